//! `high_velocity`: many transactions of the user in (t − window, t + window), or many records in (r − window, r].

use tollgate_types::{Contribution, Indicator};

use super::{Input, with_this_one};

pub(super) fn check(input: &Input<'_>) -> Option<Contribution> {
    let rule = &input.rules.high_velocity;
    let window = input.windows.velocity;
    let near = input
        .history
        .count(input.time - window, input.time + window);
    // Whoever states false times still shows when the payments came.
    let arrived = input.arrival.map_or(0, |arrival| {
        let arrivals = &input.history.arrivals;
        arrivals.count(arrival, input.windows.arrival)
    });
    let count = with_this_one(near).max(arrived);
    (count >= rule.minimum_count).then(|| Contribution {
        count: Some(count),
        ..Contribution::new(
            Indicator::HIGH_VELOCITY,
            (rule.points_per_transaction * f64::from(count)).min(rule.cap),
        )
    })
}
