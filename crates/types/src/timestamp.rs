//! Event time: microseconds since 1970-01-01T00:00:00Z, read from and printed as RFC 3339.

use std::borrow::Cow;
use std::fmt;
use std::ops::Sub;

use chrono::{DateTime, NaiveDateTime};
use serde::de::{self, Deserialize, Deserializer, Visitor};
use serde::ser::{Serialize, Serializer};

/// A point in time to the microsecond, between the years 0 and 9999 (UTC).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

/// Why a text is not a timestamp.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TimestampError {
    /// Not RFC 3339.
    #[error("expected an RFC 3339 time such as 2026-03-01T12:30:00Z")]
    Malformed,
    /// Only digits.
    #[error(
        "expected RFC 3339 such as 2026-03-01T12:30:00Z; a number may be seconds or milliseconds"
    )]
    Number,
    /// RFC 3339 has four digits for the year, in UTC too.
    #[error("must lie between the years 0000 and 9999 in UTC")]
    OutOfRange,
}

impl Timestamp {
    /// 0000-01-01T00:00:00Z.
    pub const MIN: Self = Self(-62_167_219_200_000_000);
    /// 9999-12-31T23:59:59.999999Z.
    pub const MAX: Self = Self(253_402_300_799_999_999);

    /// The point in time this many microseconds after 1970-01-01T00:00:00Z, where it is in range.
    #[must_use]
    pub fn from_micros(micros: i64) -> Option<Self> {
        (Self::MIN.0..=Self::MAX.0)
            .contains(&micros)
            .then_some(Self(micros))
    }

    /// The point in time this many milliseconds after 1970-01-01T00:00:00Z, where it is in range.
    #[must_use]
    pub fn from_millis(millis: i64) -> Option<Self> {
        millis.checked_mul(1_000).and_then(Self::from_micros)
    }

    /// Microseconds since 1970-01-01T00:00:00Z.
    #[must_use]
    pub const fn micros(self) -> i64 {
        self.0
    }

    /// 2000-01-01T00:00:00Z. The zero times of programs are before it: 0001-01-01, 1899-12-30, 1970-01-01, 1980-01-01.
    pub const YEAR_2000: Self = Self(946_684_800_000_000);

    /// Reads RFC 3339; without an offset the time is UTC. Offsets are also read as `+01` and `+0100`, as databases and ISO
    /// 8601 write them, and a blank may stand in the place of the `T`. Digits beyond the microsecond are dropped.
    ///
    /// # Errors
    /// Where the text is no such time, or lies outside the years 0000 to 9999.
    pub fn parse(text: &str) -> Result<Self, TimestampError> {
        if let Some(micros) = parse_usual(text.as_bytes()) {
            return Self::from_micros(micros).ok_or(TimestampError::OutOfRange);
        }
        let whole = with_whole_offset(text);
        let micros = match DateTime::parse_from_rfc3339(&whole) {
            Ok(time) => time.timestamp_micros(),
            Err(_) => parse_without_offset(text)
                .ok_or_else(|| unreadable(text))?
                .and_utc()
                .timestamp_micros(),
        };
        Self::from_micros(micros).ok_or(TimestampError::OutOfRange)
    }
}

/// Why a text is not read.
fn unreadable(text: &str) -> TimestampError {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let is_number = digits.starts_with(|first: char| first.is_ascii_digit())
        && digits
            .bytes()
            .all(|byte| byte.is_ascii_digit() || byte == b'.');
    match is_number {
        true => TimestampError::Number,
        false => TimestampError::Malformed,
    }
}

/// The text with its offset as `±hh:mm`, where it ends in `±hh` or `±hhmm` behind a time.
fn with_whole_offset(text: &str) -> Cow<'_, str> {
    let sign = text.rfind(['+', '-']).filter(|at| *at >= 19);
    let Some((time, offset)) = sign.map(|at| text.split_at(at)) else {
        return Cow::Borrowed(text);
    };
    let is_short = matches!(offset.len(), 3 | 5) && offset[1..].bytes().all(|b| b.is_ascii_digit());
    if !is_short {
        return Cow::Borrowed(text);
    }
    let minutes = if offset.len() == 5 {
        &offset[3..]
    } else {
        "00"
    };
    Cow::Owned(format!("{time}{}:{minutes}", &offset[..3]))
}

/// Reads what nearly every producer writes, `2026-03-01T12:30:00` with at most nine decimals and `Z`, `±hh:mm`, `±hhmm`, `±hh` or
/// nothing after it, in a tenth of the time. For any other form `None`, and the general reader decides.
fn parse_usual(text: &[u8]) -> Option<i64> {
    let (fixed, rest) = text.split_first_chunk::<19>()?;
    if [fixed[4], fixed[7], fixed[13], fixed[16]] != *b"--::" || !matches!(fixed[10], b'T' | b' ') {
        return None;
    }
    let two = |at: usize| digits(&fixed[at..at + 2]);
    let (year, month, day) = (digits(&fixed[..4])?, two(5)?, two(8)?);
    let (hour, minute, second) = (two(11)?, two(14)?, two(17)?);
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days_in_month = match month {
        2 => 28 + i64::from(leap),
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    if !(1..=days_in_month).contains(&day) || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let (fraction, offset) = match rest.strip_prefix(b".") {
        None => (0, rest),
        Some(rest) => {
            let length = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
            if !(1..=9).contains(&length) {
                return None;
            }
            let kept = length.min(6);
            let scale = [0, 100_000, 10_000, 1_000, 100, 10, 1][kept];
            (digits(&rest[..kept])? * scale, &rest[length..])
        }
    };
    let offset_minutes = match offset {
        b"" | b"Z" => 0,
        [sign @ (b'+' | b'-'), rest @ ..] => {
            let (hours, minutes) = match rest {
                [h1, h2, b':', m1, m2] | [h1, h2, m1, m2] => {
                    (digits(&[*h1, *h2])?, digits(&[*m1, *m2])?)
                }
                [_, _] => (digits(rest)?, 0),
                _ => return None,
            };
            if hours > 23 || minutes > 59 {
                return None;
            }
            if *sign == b'+' {
                hours * 60 + minutes
            } else {
                -(hours * 60 + minutes)
            }
        }
        _ => return None,
    };
    let minutes = days_from_civil(year, month, day) * 1_440 + hour * 60 + minute - offset_minutes;
    Some((minutes * 60 + second) * 1_000_000 + fraction)
}

fn digits(text: &[u8]) -> Option<i64> {
    text.iter().try_fold(0, |value, byte| {
        byte.is_ascii_digit()
            .then(|| value * 10 + i64::from(byte - b'0'))
    })
}

/// Days since 1970-01-01 in the proleptic Gregorian calendar: `days_from_civil` of Howard Hinnant's
/// "chrono-Compatible Low-Level Date Algorithms", for years from 0 on.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    // The year begins in March, so that the leap day is its last.
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

/// Year, month and day: `civil_from_days` of the same source.
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = (month_from_march + 2) % 12 + 1;
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

fn parse_without_offset(text: &str) -> Option<NaiveDateTime> {
    // chrono would accept a year of any length and a sign; RFC 3339 has four digits and a `T`.
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

/// Room for the longest text of a timestamp.
const TEXT: [u8; 27] = *b"0000-00-00T00:00:00.000000Z";

impl Timestamp {
    /// RFC 3339 in UTC, written into `text`: `2026-03-01T12:30:00Z`, or with six decimals where there is a fraction.
    fn write_text(self, text: &mut [u8; TEXT.len()]) -> &str {
        let (seconds, micros) = (self.0.div_euclid(1_000_000), self.0.rem_euclid(1_000_000));
        let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
        let (year, month, day) = civil_from_days(days);
        for (value, end, width) in [
            (year, 4, 4),
            (month, 7, 2),
            (day, 10, 2),
            (second / 3_600, 13, 2),
            (second / 60 % 60, 16, 2),
            (second % 60, 19, 2),
            (micros, 26, 6),
        ] {
            let mut rest = value.unsigned_abs();
            for digit in text[end - width..end].iter_mut().rev() {
                *digit = b'0' + u8::try_from(rest % 10).unwrap_or_default();
                rest /= 10;
            }
        }
        let text = if micros == 0 {
            text[19] = b'Z';
            &text[..20]
        } else {
            &text[..]
        };
        // Digits and signs.
        std::str::from_utf8(text).unwrap_or_default()
    }
}

impl fmt::Display for Timestamp {
    /// RFC 3339 in UTC: `2026-03-01T12:30:00Z`, or with six decimals where there is a fraction.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.write_text(&mut TEXT.clone()))
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.write_text(&mut TEXT.clone()))
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = Timestamp;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an RFC 3339 time")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Timestamp, E> {
                Timestamp::parse(text).map_err(E::custom)
            }
        }
        deserializer.deserialize_str(Text)
    }
}

#[cfg(test)]
mod tests {
    use chrono::SecondsFormat;
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
            // As PostgreSQL, ISO 8601 in its basic form, and both with many digits have it.
            "2026-03-01 12:30:00.5+00",
            "2026-03-01 13:30:00.500+01",
            "2026-03-01T13:30:00.5+0100",
            "2026-03-01T07:00:00.5-0530",
            "2026-03-01T13:30:00.50000000000+01",
            "2026-03-01t13:30:00.5+0100",
            "2026-03-01T12:30:00.5-00",
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
    fn the_twenty_ninth_of_february_is_there_in_leap_years_only() {
        for (year, leap) in [
            ("0000", true),
            ("1900", false),
            ("2000", true),
            ("2024", true),
            ("2100", false),
            ("2200", false),
            ("2026", false),
        ] {
            assert_eq!(
                micros(&format!("{year}-02-29T00:00:00Z")).is_ok(),
                leap,
                "{year}"
            );
        }
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in [
            "",
            "now",
            "2026-03-01T12:30:00+1",
            "2026-03-01T12:30:00+010",
            "2026-03-01T12:30:00+01:0",
            "2026-03-01T12:30:00+24",
            "2026-03-01T12:30:00+0160",
            "2026-03-01T12:30:00+00Z",
            "2026-03-01+00",
            "2026-03-01T12:30+00",
            "2026-02-30T00:00:00Z",
            "2026-03-01",
            "2026-03-01T25:00:00Z",
            "2026-03-01T12:30",
        ] {
            assert_eq!(micros(text), Err(TimestampError::Malformed), "{text}");
        }
    }

    #[test]
    fn a_number_is_no_time_and_the_reason_says_why() {
        for text in [
            "1767225600",
            "1767225600000",
            "1767225600.5",
            "-1",
            "20260301",
        ] {
            assert_eq!(micros(text), Err(TimestampError::Number), "{text}");
        }
    }

    #[test]
    fn the_zero_times_of_programs_are_before_2000() {
        assert_eq!(Timestamp::YEAR_2000.to_string(), "2000-01-01T00:00:00Z");
        for text in [
            "0001-01-01T00:00:00Z",
            "1899-12-30T00:00:00",
            "1970-01-01T00:00:00Z",
            "1980-01-06T00:00:00Z",
        ] {
            assert!(
                Timestamp::parse(text).unwrap() < Timestamp::YEAR_2000,
                "{text}"
            );
        }
    }

    proptest! {
        #[test]
        fn an_offset_in_a_short_form_is_the_same_offset(
            time in "[0-9]{4}-0[1-9]-[01][1-9]T[01][0-9]:[0-5][0-9]:[0-5][0-9](\\.[0-9]{1,12})?",
            sign in "[-+]", hours in 0..24_u8, minutes in 0..60_u8,
        ) {
            let whole = micros(&format!("{time}{sign}{hours:02}:{minutes:02}"));
            prop_assert_eq!(micros(&format!("{time}{sign}{hours:02}{minutes:02}")), whole);
            if minutes == 0 {
                prop_assert_eq!(micros(&format!("{time}{sign}{hours:02}")), whole);
            }
            let blank = time.replace('T', " ");
            prop_assert_eq!(micros(&format!("{blank}{sign}{hours:02}{minutes:02}")), whole);
        }

        #[test]
        fn parsing_what_was_printed_gives_the_same_instant(micros in Timestamp::MIN.0..=Timestamp::MAX.0) {
            let time = Timestamp(micros);
            prop_assert_eq!(Timestamp::parse(&time.to_string()), Ok(time));
        }

        #[test]
        fn it_prints_what_chrono_prints(micros in Timestamp::MIN.0..=Timestamp::MAX.0, whole: bool) {
            let micros = if whole { micros.div_euclid(1_000_000) * 1_000_000 } else { micros };
            let precision = if micros % 1_000_000 == 0 { SecondsFormat::Secs } else { SecondsFormat::Micros };
            let expected = DateTime::from_timestamp_micros(micros).unwrap().to_rfc3339_opts(precision, true);
            prop_assert_eq!(Timestamp(micros).to_string(), expected);
        }

        #[test]
        fn the_usual_form_is_read_as_chrono_reads_it(
            text in "[0-9]{4}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-6][0-9]:[0-6][0-9](\\.[0-9]{0,10})?(Z|[-+][0-2][0-9]:[0-6][0-9]|)",
        ) {
            let whole = if text.ends_with('Z') || text[19..].contains(['+', '-']) { text.clone() } else { format!("{text}Z") };
            let expected = DateTime::parse_from_rfc3339(&whole).ok().map(|time| time.timestamp_micros());
            let expected = expected.filter(|micros| Timestamp::from_micros(*micros).is_some());
            prop_assert_eq!(micros(&text).ok(), expected, "{}", text);
        }

        #[test]
        fn every_day_there_is_has_its_date(days in -719_528_i64..=2_932_896) {
            let (year, month, day) = civil_from_days(days);
            prop_assert_eq!(days_from_civil(year, month, day), days);
        }

        #[test]
        fn no_text_panics(text in "[-+0-9TtZz:. ]{0,40}|.{0,40}") {
            let _ = Timestamp::parse(&text);
        }
    }
}
