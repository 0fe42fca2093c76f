//! `high_velocity`: many transactions of the user in (t − window, t].

use tollgate_types::{Contribution, Indicator};

use super::{Input, with_this_one};

pub(super) fn check(input: &Input<'_>) -> Option<Contribution> {
    let rule = &input.rules.high_velocity;
    let before = input
        .history
        .count(input.time - input.windows.velocity, input.time);
    let count = with_this_one(before);
    (count >= rule.minimum_count).then(|| Contribution {
        count: Some(count),
        ..Contribution::new(
            Indicator::HIGH_VELOCITY,
            (rule.points_per_transaction * f64::from(count)).min(rule.cap),
        )
    })
}
