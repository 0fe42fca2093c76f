//! `high_amount`: an amount above the threshold.

use tollgate_types::{Contribution, Indicator};

use super::Input;

pub(super) fn check(input: &Input<'_>) -> Option<Contribution> {
    let rule = &input.rules.high_amount;
    let amount = input.transaction.amount;
    (amount > rule.threshold).then(|| Contribution {
        amount: Some(amount),
        ..Contribution::new(
            Indicator::HIGH_AMOUNT,
            (amount.to_f64() / rule.threshold.to_f64() * rule.points_per_threshold).min(rule.cap),
        )
    })
}
