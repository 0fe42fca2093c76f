//! Times in a format of strftime, and local times of a time zone. No I/O.

use std::str::FromStr as _;

use chrono::format::{Item, Parsed, StrftimeItems, parse};
use chrono::offset::MappedLocalTime;
use chrono::{DateTime, FixedOffset, NaiveDate, NaiveDateTime, NaiveTime, SecondsFormat, Utc};
use chrono::{TimeZone as _, Timelike as _};
use chrono_tz::Tz;

/// Forms of a local time without a setting for its format.
const LOCAL: [&str; 4] = [
    "%Y-%m-%dT%H:%M:%S%.f",
    "%Y-%m-%d %H:%M:%S%.f",
    "%Y-%m-%dT%H:%M",
    "%Y-%m-%d %H:%M",
];

/// The zone of local times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Zone {
    Offset(FixedOffset),
    Named(Tz),
}

/// How times are written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct TimeForm {
    format: Option<String>,
    zone: Option<Zone>,
}

/// Why a format or a zone cannot be used.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum TimeFormError {
    /// Of the setting `timestamp_format`.
    Format(&'static str),
    /// Of the setting `time_zone`.
    Zone(&'static str),
}

impl TimeForm {
    /// # Errors
    /// The format has no date, or is none; the zone is unknown, or missing although the format has no offset.
    pub(super) fn new(format: Option<&str>, zone: Option<&str>) -> Result<Self, TimeFormError> {
        let zone = zone
            .map(|name| match Tz::from_str(name) {
                Ok(zone) => Ok(Zone::Named(zone)),
                Err(_) => FixedOffset::from_str(name).map(Zone::Offset),
            })
            .transpose()
            .map_err(|_| {
                TimeFormError::Zone(
                    "must be a name such as Europe/Berlin, or an offset such as +01:00",
                )
            })?;
        if let Some(format) = format {
            let invalid = "must be a format of strftime with a date, such as %d.%m.%Y %H:%M:%S";
            if StrftimeItems::new(format).any(|item| item == Item::Error) {
                return Err(TimeFormError::Format(invalid));
            }
            // A time that was written in the format must be read again.
            let sample = NaiveDate::from_ymd_opt(2026, 3, 1)
                .and_then(|day| day.and_hms_opt(14, 5, 6))
                .map(|time| time.and_utc().fixed_offset())
                .ok_or(TimeFormError::Format(invalid))?;
            let mut text = String::new();
            std::fmt::write(&mut text, format_args!("{}", sample.format(format)))
                .map_err(|_| TimeFormError::Format(invalid))?;
            match parsed(&text, format) {
                Some(Time::At(_)) => {}
                Some(Time::Local(_)) if zone.is_some() => {}
                Some(Time::Local(_)) => {
                    return Err(TimeFormError::Zone(
                        "must be set, since timestamp_format has no offset",
                    ));
                }
                None => return Err(TimeFormError::Format(invalid)),
            }
        }
        Ok(Self {
            format: format.map(str::to_owned),
            zone,
        })
    }

    /// The time as RFC 3339 in UTC; `None` if it is not of a local form, and may be RFC 3339 as it is.
    ///
    /// # Errors
    /// It is not written in the format, or is no time of the zone.
    pub(super) fn read(&self, text: &str) -> Result<Option<String>, String> {
        let time = match (&self.format, self.zone) {
            (None, None) => return Ok(None),
            (Some(format), _) => parsed(text, format).ok_or_else(|| {
                format!("timestamp: is not written as ingest.sources[].timestamp_format {format:?}")
            })?,
            (None, Some(_)) => {
                let local = LOCAL
                    .iter()
                    .find_map(|format| NaiveDateTime::parse_from_str(text, format).ok());
                match local {
                    Some(local) => Time::Local(local),
                    None => return Ok(None),
                }
            }
        };
        let time = match time {
            Time::At(time) => time,
            Time::Local(local) => match self.zone {
                Some(Zone::Offset(offset)) => earliest(&offset.from_local_datetime(&local)),
                Some(Zone::Named(zone)) => earliest(&zone.from_local_datetime(&local)),
                None => None,
            }
            .ok_or("timestamp: does not exist in ingest.sources[].time_zone: the clocks were set forward past it")?,
        };
        Ok(Some(time.to_rfc3339_opts(SecondsFormat::AutoSi, true)))
    }
}

/// A local time that was shown twice is the first one; one that was skipped is none.
fn earliest<Z: chrono::TimeZone>(mapped: &MappedLocalTime<DateTime<Z>>) -> Option<DateTime<Utc>> {
    match mapped {
        MappedLocalTime::Single(time) | MappedLocalTime::Ambiguous(time, _) => Some(time.to_utc()),
        MappedLocalTime::None => None,
    }
}

enum Time {
    At(DateTime<Utc>),
    Local(NaiveDateTime),
}

fn parsed(text: &str, format: &str) -> Option<Time> {
    let mut fields = Parsed::new();
    parse(&mut fields, text, StrftimeItems::new(format)).ok()?;
    if let Ok(time) = fields.to_datetime() {
        return Some(Time::At(time.to_utc()));
    }
    if fields.timestamp().is_some() {
        let at = fields.to_naive_datetime_with_offset(0).ok()?;
        return Some(Time::At(at.and_utc()));
    }
    let day = fields.to_naive_date().ok()?;
    // A format of dates alone is the beginning of the day; a time of day must be a whole one.
    let has_time = fields.hour_mod_12().is_some() || fields.minute().is_some();
    let time = match has_time {
        true => fields.to_naive_time().ok()?,
        false => NaiveTime::MIN,
    };
    // A leap second has no place of its own in the count of seconds.
    let time = time.with_nanosecond(time.nanosecond() % 1_000_000_000)?;
    Some(Time::Local(day.and_time(time)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(
        format: Option<&str>,
        zone: Option<&str>,
        text: &str,
    ) -> Result<Option<String>, String> {
        TimeForm::new(format, zone).unwrap().read(text)
    }

    fn is(text: &str) -> Result<Option<String>, String> {
        Ok(Some(text.to_owned()))
    }

    #[test]
    fn local_times_are_read_in_their_format_and_zone() {
        let german = Some("%d.%m.%Y %H:%M:%S");
        let berlin = Some("Europe/Berlin");
        assert_eq!(
            read(german, berlin, "01.03.2026 10:00:00"),
            is("2026-03-01T09:00:00Z")
        );
        assert_eq!(
            read(german, berlin, "1.7.2026 10:00:00"),
            is("2026-07-01T08:00:00Z")
        );
        assert_eq!(
            read(
                Some("%m/%d/%Y %I:%M %p"),
                Some("America/New_York"),
                "03/01/2026 02:30 PM"
            ),
            is("2026-03-01T19:30:00Z")
        );
        assert_eq!(
            read(Some("%Y%m%d"), Some("+01:00"), "20260301"),
            is("2026-02-28T23:00:00Z")
        );
        assert_eq!(
            read(
                Some("%d/%b/%Y:%H:%M:%S %z"),
                None,
                "01/Mar/2026:10:00:00 +0100"
            ),
            is("2026-03-01T09:00:00Z")
        );
        assert_eq!(
            read(Some("%s"), None, "1772355600"),
            is("2026-03-01T09:00:00Z")
        );
        assert!(read(german, berlin, "2026-03-01T10:00:00Z").is_err());
        assert!(read(german, berlin, "31.02.2026 10:00:00").is_err());
    }

    #[test]
    fn without_a_format_local_times_of_iso_8601_are_of_the_zone_and_others_stay() {
        let berlin = Some("Europe/Berlin");
        assert_eq!(
            read(None, berlin, "2026-03-01 10:00:00.250"),
            is("2026-03-01T09:00:00.250Z")
        );
        assert_eq!(
            read(None, berlin, "2026-03-01T10:00"),
            is("2026-03-01T09:00:00Z")
        );
        for text in ["2026-03-01T10:00:00Z", "2026-03-01T10:00:00+05:00", "x"] {
            assert_eq!(read(None, berlin, text), Ok(None));
        }
    }

    #[test]
    fn a_local_time_that_was_shown_twice_is_the_first_one_and_one_that_was_skipped_is_none() {
        let berlin = Some("Europe/Berlin");
        // The clocks were set back from 03:00 to 02:00.
        assert_eq!(
            read(None, berlin, "2025-10-26 02:30:00"),
            is("2025-10-26T00:30:00Z")
        );
        // The clocks were set forward from 02:00 to 03:00.
        let skipped = read(None, berlin, "2026-03-29 02:30:00").unwrap_err();
        assert!(skipped.contains("does not exist"), "{skipped}");
        assert_eq!(
            read(None, berlin, "2026-03-29 03:00:00"),
            is("2026-03-29T01:00:00Z")
        );
    }

    #[test]
    fn a_format_without_a_date_or_without_a_zone_is_refused() {
        for (format, zone) in [
            (Some("%H:%M"), Some("UTC")),
            (Some("%Q"), Some("UTC")),
            (Some("%d.%m. %H:%M"), Some("UTC")),
        ] {
            let error = TimeForm::new(format, zone);
            assert!(matches!(error, Err(TimeFormError::Format(_))), "{format:?}");
        }
        for (format, zone) in [(Some("%d.%m.%Y %H:%M"), None), (None, Some("Europe/Berl"))] {
            let error = TimeForm::new(format, zone);
            assert!(matches!(error, Err(TimeFormError::Zone(_))), "{zone:?}");
        }
    }
}
