//! Great-circle distance, and coordinates packed into as few bytes as keep every bit.

use tollgate_types::Location;

const EARTH_RADIUS_KM: f64 = 6371.0;
/// Ten-millionths of a degree, about a centimetre: what phones and payment terminals send at most.
const UNITS_PER_DEGREE: f64 = 1e7;

/// Great-circle distance in km by the haversine formula, in the reference text's order of operations.
///
/// The sine and its like are the platform's, as in the golden vectors, which a program on glibc made: another C library
/// may differ in the last bit of a speed, so every scorer of an installation is built for the same one.
pub(super) fn distance_km(from: Location, to: Location) -> f64 {
    let (lat1, lon1) = (from.latitude.to_radians(), from.longitude.to_radians());
    let (lat2, lon2) = (to.latitude.to_radians(), to.longitude.to_radians());
    let (half_dlat, half_dlon) = (((lat2 - lat1) / 2.0).sin(), ((lon2 - lon1) / 2.0).sin());
    let a = half_dlat * half_dlat + lat1.cos() * lat2.cos() * (half_dlon * half_dlon);
    // For antipodes rounding can carry `a` past 1, where the arc sine is NaN and the fastest traveller innocent.
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

/// How a place is kept in the history.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum PlaceKind {
    /// There is none.
    Absent,
    /// Two `i32` of ten-millionths of a degree.
    Short,
    /// Two `f64`, where ten-millionths would lose a bit.
    Full,
}

impl PlaceKind {
    /// The kind of this number.
    pub(super) const fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::Absent),
            1 => Some(Self::Short),
            2 => Some(Self::Full),
            _ => None,
        }
    }

    /// Bytes that a place of this kind takes.
    pub(super) const fn width(self) -> usize {
        match self {
            Self::Absent => 0,
            Self::Short => 8,
            Self::Full => 16,
        }
    }
}

/// The shortest kind that keeps every bit of `location`, and its bytes.
pub(super) fn pack(location: Option<Location>) -> (PlaceKind, [u8; 16]) {
    let mut bytes = [0; 16];
    let Some(Location {
        latitude,
        longitude,
    }) = location
    else {
        return (PlaceKind::Absent, bytes);
    };
    if let (Some(latitude), Some(longitude)) = (short(latitude), short(longitude)) {
        bytes[..4].copy_from_slice(&latitude.to_le_bytes());
        bytes[4..8].copy_from_slice(&longitude.to_le_bytes());
        return (PlaceKind::Short, bytes);
    }
    bytes[..8].copy_from_slice(&latitude.to_le_bytes());
    bytes[8..].copy_from_slice(&longitude.to_le_bytes());
    (PlaceKind::Full, bytes)
}

/// The place in `bytes`, of which a shorter kind leaves the end unused.
pub(super) fn unpack(kind: PlaceKind, bytes: &[u8]) -> Option<Location> {
    match kind {
        PlaceKind::Absent => None,
        PlaceKind::Short => {
            let (latitude, rest) = bytes.split_first_chunk()?;
            let longitude = rest.first_chunk()?;
            let degrees =
                |units: &[u8; 4]| f64::from(i32::from_le_bytes(*units)) / UNITS_PER_DEGREE;
            Some(Location {
                latitude: degrees(latitude),
                longitude: degrees(longitude),
            })
        }
        PlaceKind::Full => {
            let (latitude, rest) = bytes.split_first_chunk()?;
            let longitude = rest.first_chunk()?;
            Some(Location {
                latitude: f64::from_le_bytes(*latitude),
                longitude: f64::from_le_bytes(*longitude),
            })
        }
    }
}

fn short(degrees: f64) -> Option<i32> {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "saturates, and is compared with what it came from"
    )]
    let units = (degrees * UNITS_PER_DEGREE).round() as i32;
    // Bits and not values, so that -0.0 stays what it is.
    (f64::from(units) / UNITS_PER_DEGREE)
        .to_bits()
        .eq(&degrees.to_bits())
        .then_some(units)
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

        #[test]
        fn a_place_unpacked_is_the_place_packed(latitude in -90.0..=90.0, longitude in -180.0..=180.0) {
            let (kind, bytes) = pack(Some(place(latitude, longitude)));
            prop_assert_eq!(unpack(kind, &bytes), Some(place(latitude, longitude)));
        }

        #[test]
        fn seven_decimals_fit_in_eight_bytes(
            latitude in -900_000_000_i32..=900_000_000,
            longitude in -1_800_000_000_i32..=1_800_000_000,
        ) {
            let read = |units: i32| format!("{units}e-7").parse::<f64>().unwrap();
            let there = place(read(latitude), read(longitude));
            let (kind, bytes) = pack(Some(there));
            prop_assert_eq!(kind, PlaceKind::Short);
            prop_assert_eq!(unpack(kind, &bytes), Some(there));
        }
    }

    #[test]
    fn a_negative_zero_keeps_its_sign() {
        let (kind, bytes) = pack(Some(place(-0.0, 1.0)));
        assert!(unpack(kind, &bytes).unwrap().latitude.is_sign_negative());
    }
}
