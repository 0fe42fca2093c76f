//! `conflicting_duplicate`: an id that the user has used for another amount.

use tollgate_types::{Contribution, Indicator};

use super::Input;

pub(super) fn check(input: &Input<'_>) -> Option<Contribution> {
    // The amount of the first one is not told: it may be another caller's.
    input.conflict.then(|| Contribution {
        amount: Some(input.transaction.amount),
        ..Contribution::new(
            Indicator::CONFLICTING_DUPLICATE,
            input.rules.conflicting_duplicate.points,
        )
    })
}
