//! The member `location`: two coordinates in degrees, both or neither.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::MAX_DEPTH;
use super::fields::kind;
use super::members::too_deep;
use crate::Rejection;

/// Where a transaction took place, in degrees.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Location {
    /// −90…90.
    pub latitude: f64,
    /// −180…180.
    pub longitude: f64,
}

/// Reads the member. `null`, `""`, `{}` and two coordinates that are `null` or `""` all mean that there is no location.
pub(super) fn location<'a>(raw: &'a str) -> Result<Option<Location>, Rejection> {
    #[derive(Deserialize)]
    struct Coordinates<'a> {
        #[serde(borrow, default)]
        latitude: Option<&'a RawValue>,
        #[serde(borrow, default)]
        longitude: Option<&'a RawValue>,
    }
    if is_nothing(raw) {
        return Ok(None);
    }
    if !raw.starts_with('{') {
        return Err(Rejection::new(
            "location",
            format!("expected an object, found {}", kind(raw)),
        ));
    }
    if let Some((latitude, longitude)) = usual_location(raw) {
        return both(latitude, longitude);
    }
    if too_deep(raw) {
        return Err(Rejection::new(
            "location",
            format!("nested deeper than {MAX_DEPTH} levels"),
        ));
    }
    let read: Coordinates<'_> = serde_json::from_str(raw).map_err(|error| {
        let reason = if error.to_string().starts_with("duplicate field") {
            "holds a coordinate twice"
        } else {
            "is malformed"
        };
        Rejection::new("location", reason)
    })?;
    let given =
        |value: Option<&'a RawValue>| value.map(RawValue::get).filter(|raw| !is_nothing(raw));
    match (given(read.latitude), given(read.longitude)) {
        (None, None) => Ok(None),
        (None, Some(_)) => Err(Rejection::new(
            "location.latitude",
            "is missing, while longitude is given",
        )),
        (Some(_), None) => Err(Rejection::new(
            "location.longitude",
            "is missing, while latitude is given",
        )),
        (Some(latitude), Some(longitude)) => both(latitude, longitude),
    }
}

/// The coordinates in the form that nearly every producer writes: two numbers, latitude first, and nothing else. For any
/// other form `None`, and the general reader decides.
fn usual_location(raw: &str) -> Option<(&str, &str)> {
    let inner = raw.strip_prefix("{\"latitude\":")?.strip_suffix('}')?;
    let (latitude, rest) = inner.split_once(',')?;
    let longitude = rest.trim_start().strip_prefix("\"longitude\":")?;
    let number = |text: &str| {
        let text = text.as_bytes();
        text.iter()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E'))
    };
    let (latitude, longitude) = (latitude.trim(), longitude.trim());
    (number(latitude) && number(longitude)).then_some((latitude, longitude))
}

/// Spreadsheets and programs write an empty string where there is no value.
fn is_nothing(raw: &str) -> bool {
    raw == "null" || raw == "\"\""
}

fn both(latitude: &str, longitude: &str) -> Result<Option<Location>, Rejection> {
    Ok(Some(Location {
        latitude: coordinate("location.latitude", latitude, 90.0)?,
        longitude: coordinate("location.longitude", longitude, 180.0)?,
    }))
}

fn coordinate(field: &'static str, raw: &str, limit: f64) -> Result<f64, Rejection> {
    let value = number(raw).ok_or_else(|| {
        let found = match kind(raw) {
            "a string" => "a string that is none",
            other => other,
        };
        Rejection::new(field, format!("expected a number, found {found}"))
    })?;
    if value.abs() <= limit {
        return Ok(value);
    }
    Err(Rejection::new(
        field,
        format!("must lie between -{limit} and {limit}"),
    ))
}

/// A number, or a string that is a decimal number: it has one reading only.
fn number(raw: &str) -> Option<f64> {
    let Some(text) = raw.strip_prefix('"') else {
        return raw.parse().ok();
    };
    let text = text.strip_suffix('"')?.trim_ascii();
    // No "inf" and no "nan".
    let is_decimal = text
        .starts_with(|first: char| first.is_ascii_digit() || matches!(first, '-' | '+' | '.'))
        && text
            .bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E'));
    is_decimal.then(|| text.parse().ok())?
}
