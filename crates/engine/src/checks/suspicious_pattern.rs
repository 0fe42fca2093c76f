//! `suspicious_pattern`: a round amount; else an amount that the user repeats in (t − window, t + window).

use tollgate_types::{Contribution, Indicator};

use super::{Input, with_this_one};

pub(super) fn check(input: &Input<'_>) -> Option<Contribution> {
    let rule = &input.rules.suspicious_pattern;
    let amount = input.transaction.amount;
    // A multiple of zero can only come from rules that were never validated; then no amount is round.
    let multiple = rule.round_multiple.ten_thousandths();
    let round = amount.ten_thousandths().checked_rem(multiple) == Some(0);
    if round && amount >= rule.round_minimum {
        return Some(Contribution {
            amount: Some(amount),
            ..Contribution::new(Indicator::SUSPICIOUS_PATTERN, rule.round_points)
        });
    }
    let enough = usize::try_from(rule.repeat_minimum_count)
        .unwrap_or(usize::MAX)
        .saturating_sub(1);
    let window = input.windows.repeat;
    let (after, before) = (input.time - window, input.time + window);
    let others = input.history.count_amount(amount, after, before, enough)?;
    let count = with_this_one(others);
    Some(Contribution {
        count: Some(count),
        amount: Some(amount),
        ..Contribution::new(
            Indicator::SUSPICIOUS_PATTERN,
            (rule.points_per_repeat * f64::from(count)).min(rule.repeat_cap),
        )
    })
}
