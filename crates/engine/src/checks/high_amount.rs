//! `high_amount`: an amount above the threshold, in the base currency if there is one.

use tollgate_types::{BaseAmount, Contribution, Indicator};

use super::Input;

pub(super) fn check(input: &Input<'_>) -> Option<Contribution> {
    let rule = &input.rules.high_amount;
    let base = input.worth.base?;
    (base > BaseAmount::from(rule.threshold)).then(|| Contribution {
        amount: Some(input.transaction.amount),
        amount_base: input.worth.reported,
        ..Contribution::new(
            Indicator::HIGH_AMOUNT,
            (base.to_f64() / rule.threshold.to_f64() * rule.points_per_threshold).min(rule.cap),
        )
    })
}
