//! Great-circle distance and travelling time.

use tollgate_types::Location;

const EARTH_RADIUS_KM: f64 = 6371.0;

/// Great-circle distance in km by the haversine formula, in the order of operations of the golden vectors.
///
/// The trigonometric functions are the platform's, as in the golden vectors, which were computed with glibc. Another C
/// library may differ in the last bit of a speed, so all scorers of an installation are built for the same one.
pub(super) fn distance_km(from: Location, to: Location) -> f64 {
    let (lat1, lon1) = (from.latitude.to_radians(), from.longitude.to_radians());
    let (lat2, lon2) = (to.latitude.to_radians(), to.longitude.to_radians());
    let (half_dlat, half_dlon) = (((lat2 - lat1) / 2.0).sin(), ((lon2 - lon1) / 2.0).sin());
    let a = half_dlat * half_dlat + lat1.cos() * lat2.cos() * (half_dlon * half_dlon);
    // For antipodes rounding can carry `a` past 1, where the arc sine is NaN, and NaN exceeds no threshold.
    2.0 * a.min(1.0).sqrt().asin() * EARTH_RADIUS_KM
}

/// Microseconds as hours.
#[expect(
    clippy::cast_precision_loss,
    reason = "windows are below 2^53 microseconds"
)]
pub(super) fn hours(micros: i64) -> f64 {
    micros as f64 / 1e6 / 3600.0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn place(latitude: f64, longitude: f64) -> Location {
        Location {
            latitude,
            longitude,
        }
    }

    #[test]
    fn known_distances_come_out() {
        let quarter = std::f64::consts::FRAC_PI_2 * EARTH_RADIUS_KM;
        for (from, to, expected) in [
            (place(0.0, 0.0), place(0.0, 0.0), 0.0),
            (place(0.0, 0.0), place(0.0, 90.0), quarter),
            (place(90.0, 0.0), place(-90.0, 123.0), 2.0 * quarter),
            (place(0.0, 180.0), place(0.0, -180.0), 0.0),
            (place(52.52, 13.405), place(48.8566, 2.3522), 877.46),
        ] {
            assert!(
                (distance_km(from, to) - expected).abs() < 0.01,
                "{from:?} {to:?}"
            );
        }
    }

    proptest! {
        #[test]
        fn antipodes_are_half_a_circle_apart_and_never_nan(latitude in -90.0..=90.0, longitude in -180.0..=0.0) {
            let distance = distance_km(place(latitude, longitude), place(-latitude, longitude + 180.0));
            prop_assert!((distance - std::f64::consts::PI * EARTH_RADIUS_KM).abs() < 0.01, "{distance}");
        }
    }
}
