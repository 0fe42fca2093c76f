//! Coordinates packed into as few bytes as keep every bit.

use tollgate_types::Location;

use super::layout::{FULL_PLACE_BYTES, MAX_PLACE_BYTES, SHORT_PLACE_BYTES};

/// Ten-millionths of a degree, about a centimetre: what phones and payment terminals send at most.
const UNITS_PER_DEGREE: f64 = 1e7;

/// How a place is kept in the history.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum PlaceKind {
    /// There is none.
    Absent,
    /// Two `i32` of ten-millionths of a degree.
    Short,
    /// Two `f64`, where ten-millionths would lose a bit.
    Full,
}

impl PlaceKind {
    /// Bytes that a place of this kind takes.
    pub(crate) const fn width(self) -> usize {
        match self {
            Self::Absent => 0,
            Self::Short => SHORT_PLACE_BYTES,
            Self::Full => FULL_PLACE_BYTES,
        }
    }
}

/// Whether a place is that which programs write for an unknown one.
pub(crate) fn is_null_island(at: &Location) -> bool {
    at.latitude == 0.0 && at.longitude == 0.0
}

/// The shortest kind that keeps every bit of `location`, and its bytes.
pub(crate) fn pack(location: Option<Location>) -> (PlaceKind, [u8; MAX_PLACE_BYTES]) {
    let mut bytes = [0; MAX_PLACE_BYTES];
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
pub(crate) fn unpack(kind: PlaceKind, bytes: &[u8]) -> Option<Location> {
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

    proptest! {
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
