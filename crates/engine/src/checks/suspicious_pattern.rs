//! `suspicious_pattern`: a round amount; else an amount that the user repeats in (t − window, t + window).
//!
//! Payers round in their own currency, so it is the payment's own amount that is round or repeated; the least round amount is
//! one in the base currency, if there is one.

use tollgate_types::{BaseAmount, Contribution, Indicator};

use super::{Input, with_this_one};

pub(super) fn check(input: &Input<'_>) -> Option<Contribution> {
    let rule = &input.rules.suspicious_pattern;
    let amount = input.transaction.amount;
    // A multiple of zero can only come from rules that were never validated; then no amount is round.
    let multiple = i128::from(rule.round_multiple.ten_thousandths());
    let multiple = multiple * i128::from(input.worth.power_of_ten);
    let round = i128::from(amount.ten_thousandths()).checked_rem(multiple) == Some(0);
    let minimum = BaseAmount::from(rule.round_minimum);
    if round && input.worth.base.is_some_and(|base| base >= minimum) {
        return Some(Contribution {
            amount: Some(amount),
            amount_base: input.worth.reported,
            ..Contribution::new(Indicator::SUSPICIOUS_PATTERN, rule.round_points)
        });
    }
    let enough = usize::try_from(rule.repeat_minimum_count)
        .unwrap_or(usize::MAX)
        .saturating_sub(1);
    let window = input.windows.repeat;
    let (after, before) = (input.time - window, input.time + window);
    let others = input
        .history
        .count_amount(input.worth.remembered, after, before, enough)?;
    let count = with_this_one(others);
    Some(Contribution {
        count: Some(count),
        amount: Some(amount),
        amount_base: input.worth.reported,
        ..Contribution::new(
            Indicator::SUSPICIOUS_PATTERN,
            (rule.points_per_repeat * f64::from(count)).min(rule.repeat_cap),
        )
    })
}
