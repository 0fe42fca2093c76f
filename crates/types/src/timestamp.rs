//! Event time: microseconds since 1970-01-01T00:00:00Z, read from and printed as RFC 3339.

use std::fmt;
use std::ops::Sub;

use chrono::{DateTime, NaiveDateTime, SecondsFormat};
use serde::de::{Deserialize, Deserializer, Error as _};
use serde::ser::{Serialize, Serializer};

/// A point in time to the microsecond, between the years 0 and 9999 (UTC).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

/// Why a text is no timestamp.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TimestampError {
    /// Not RFC 3339.
    #[error("expected an RFC 3339 time such as 2026-03-01T12:30:00Z")]
    Malformed,
    /// RFC 3339 has four digits for the year, in UTC too.
    #[error("must lie between the years 0000 and 9999 in UTC")]
    OutOfRange,
}

impl Timestamp {
    /// 0000-01-01T00:00:00Z.
    pub const MIN: Self = Self(-62_167_219_200_000_000);
    /// 9999-12-31T23:59:59.999999Z.
    pub const MAX: Self = Self(253_402_300_799_999_999);

    /// A point in time so many microseconds after 1970-01-01T00:00:00Z, where it is in range.
    #[must_use]
    pub fn from_micros(micros: i64) -> Option<Self> {
        (Self::MIN.0..=Self::MAX.0)
            .contains(&micros)
            .then_some(Self(micros))
    }

    /// A point in time so many milliseconds after 1970-01-01T00:00:00Z, where it is in range.
    #[must_use]
    pub fn from_millis(millis: i64) -> Option<Self> {
        millis.checked_mul(1_000).and_then(Self::from_micros)
    }

    /// Microseconds since 1970-01-01T00:00:00Z.
    #[must_use]
    pub const fn micros(self) -> i64 {
        self.0
    }

    /// Reads RFC 3339; without an offset the time is UTC. Digits beyond the microsecond are cut off.
    ///
    /// # Errors
    /// Where the text is no such time, or lies outside the years 0000 to 9999.
    pub fn parse(text: &str) -> Result<Self, TimestampError> {
        let micros = match DateTime::parse_from_rfc3339(text) {
            Ok(time) => time.timestamp_micros(),
            Err(_) => parse_without_offset(text)
                .ok_or(TimestampError::Malformed)?
                .and_utc()
                .timestamp_micros(),
        };
        Self::from_micros(micros).ok_or(TimestampError::OutOfRange)
    }
}

fn parse_without_offset(text: &str) -> Option<NaiveDateTime> {
    // chrono would take a year of any length and a sign; RFC 3339 has four digits and a `T`.
    let bytes = text.as_bytes();
    let shaped = bytes.len() >= 19 && bytes[..4].iter().all(u8::is_ascii_digit) && bytes[4] == b'-';
    let format = match bytes.get(10) {
        Some(b'T' | b't' | b' ') if shaped => "%Y-%m-%d",
        _ => return None,
    };
    let (date, time) = (text.get(..10)?, text.get(11..)?);
    let date = chrono::NaiveDate::parse_from_str(date, format).ok()?;
    let time = chrono::NaiveTime::parse_from_str(time, "%H:%M:%S%.f").ok()?;
    Some(date.and_time(time))
}

impl Sub for Timestamp {
    /// Microseconds.
    type Output = i64;

    fn sub(self, earlier: Self) -> i64 {
        self.0 - earlier.0
    }
}

impl fmt::Display for Timestamp {
    /// RFC 3339 in UTC: `2026-03-01T12:30:00Z`, or with six decimals where there is a fraction.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(time) = DateTime::from_timestamp_micros(self.0) else {
            return Err(fmt::Error);
        };
        let precision = if self.0 % 1_000_000 == 0 {
            SecondsFormat::Secs
        } else {
            SecondsFormat::Micros
        };
        f.write_str(&time.to_rfc3339_opts(precision, true))
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn micros(text: &str) -> Result<i64, TimestampError> {
        Timestamp::parse(text).map(Timestamp::micros)
    }

    #[test]
    fn the_same_instant_is_read_from_every_offset_and_from_none() {
        let expected = micros("2026-03-01T12:30:00.5Z");
        assert!(expected.is_ok());
        for text in [
            "2026-03-01T12:30:00.500000",
            "2026-03-01T12:30:00.5000009",
            "2026-03-01T21:30:00.5+09:00",
            "2026-03-01T04:30:00.500-08:00",
            "2026-03-01t12:30:00.5z",
            "2026-03-01 12:30:00.5",
        ] {
            assert_eq!(micros(text), expected, "{text}");
        }
    }

    #[test]
    fn the_first_and_the_last_year_are_in_and_their_neighbours_out() {
        assert_eq!(micros("0000-01-01T00:00:00Z"), Ok(Timestamp::MIN.micros()));
        assert_eq!(
            micros("9999-12-31T23:59:59.999999Z"),
            Ok(Timestamp::MAX.micros())
        );
        assert_eq!(
            micros("9999-12-31T23:59:59-01:00"),
            Err(TimestampError::OutOfRange)
        );
        assert_eq!(
            micros("0000-01-01T00:00:00+01:00"),
            Err(TimestampError::OutOfRange)
        );
        assert_eq!(
            micros("10000-01-01T00:00:00Z"),
            Err(TimestampError::Malformed)
        );
        assert_eq!(
            micros("10000-01-01T00:00:00"),
            Err(TimestampError::Malformed)
        );
        assert_eq!(
            micros("-001-01-01T00:00:00"),
            Err(TimestampError::Malformed)
        );
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in [
            "",
            "now",
            "1767225600",
            "2026-02-30T00:00:00Z",
            "2026-03-01",
            "2026-03-01T25:00:00Z",
            "2026-03-01T12:30",
        ] {
            assert_eq!(micros(text), Err(TimestampError::Malformed), "{text}");
        }
    }

    proptest! {
        #[test]
        fn parsing_what_was_printed_gives_the_same_instant(micros in Timestamp::MIN.0..=Timestamp::MAX.0) {
            let time = Timestamp(micros);
            prop_assert_eq!(Timestamp::parse(&time.to_string()), Ok(time));
        }

        #[test]
        fn no_text_panics(text in "[-+0-9TtZz:. ]{0,40}|.{0,40}") {
            let _ = Timestamp::parse(&text);
        }
    }
}
