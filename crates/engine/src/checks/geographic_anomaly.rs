//! `geographic_anomaly`: farther from the user's latest place in (t − window, t) than one travels in the time between.

use tollgate_types::{Contribution, Indicator};

use super::Input;
use super::distance::{distance_km, hours};

pub(super) fn check(input: &Input<'_>) -> Option<Contribution> {
    let rule = &input.rules.geographic_anomaly;
    let here = input.transaction.location?;
    let time = input.time;
    let (last_time, last) = input
        .history
        .latest_place(time - input.windows.geographic, time)?;
    let distance = distance_km(last, here);
    let speed = distance / hours(time - last_time);
    (speed > rule.threshold_kmh).then(|| Contribution {
        speed_kmh: Some(speed),
        distance_km: Some(distance),
        ..Contribution::new(
            Indicator::GEOGRAPHIC_ANOMALY,
            (speed / rule.kmh_per_point).min(rule.cap),
        )
    })
}
