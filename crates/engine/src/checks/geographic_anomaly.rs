//! `geographic_anomaly`: farther from the user's latest place in (t − window, t], or from the earliest in (t, t + window), than
//! one travels in the time between.

use tollgate_types::{Contribution, Indicator};

use super::Input;
use super::distance::{distance_km, hours};

/// Two places at the same time are this far apart, in microseconds, or speeds would be infinite.
const SHORTEST: i64 = 1_000_000;

pub(super) fn check(input: &Input<'_>) -> Option<Contribution> {
    let rule = &input.rules.geographic_anomaly;
    let here = input.location?;
    let (time, window) = (input.time, input.windows.geographic);
    let neighbours = [
        input
            .history
            .latest_place(time - window, time, rule.null_island),
        input
            .history
            .earliest_place(time, time + window, rule.null_island),
    ];
    let travels = neighbours.into_iter().flatten().map(|(then, there)| {
        let distance = distance_km(there, here);
        let between = (time - then).abs().max(SHORTEST);
        (distance / hours(between), distance)
    });
    let (speed, distance) = travels
        .filter(|(_, distance)| *distance >= rule.minimum_km)
        .max_by(|one, other| one.0.total_cmp(&other.0))?;
    (speed > rule.threshold_kmh).then(|| Contribution {
        speed_kmh: Some(speed),
        distance_km: Some(distance),
        ..Contribution::new(
            Indicator::GEOGRAPHIC_ANOMALY,
            (speed / rule.kmh_per_point).min(rule.cap),
        )
    })
}
