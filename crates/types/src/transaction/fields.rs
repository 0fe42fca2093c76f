//! The checks of single members: ids, amount and timestamp. Errors name the member and never its value.

use std::borrow::Cow;

use super::ids::{self, UserIdCase};
use super::{MAX_ID_BYTES, Span};
use crate::{Amount, Rejection, Timestamp, TimestampError};

/// What kind of JSON value a text is, for errors.
pub(super) fn kind(raw: &str) -> &'static str {
    match raw.as_bytes().first() {
        Some(b'"') => "a string",
        Some(b'{') => "an object",
        Some(b'[') => "an array",
        Some(b't' | b'f') => "a boolean",
        Some(b'n') => "null",
        _ => "a number",
    }
}

/// The text of a JSON string, borrowed where it holds no escape.
fn string<'a>(field: &'static str, raw: &'a str) -> Result<Cow<'a, str>, Rejection> {
    let Some(inner) = raw
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'))
    else {
        return Err(Rejection::new(
            field,
            format!("expected a string, found {}", kind(raw)),
        ));
    };
    if !inner.contains('\\') {
        return Ok(Cow::Borrowed(inner));
    }
    serde_json::from_str(raw).map(Cow::Owned).map_err(|_| {
        Rejection::new(
            field,
            "holds an escape that is no character, such as half a surrogate pair",
        )
    })
}

/// An id in the form in which it is used, and where it stands in the text if that has it in another form.
pub(super) struct Id<'a> {
    pub(super) text: Cow<'a, str>,
    /// The member's value in the text, where it is not `text`.
    pub(super) replaces: Option<Span<'a>>,
}

pub(super) fn id<'a>(
    field: &'static str,
    raw: Option<&'a str>,
    case: UserIdCase,
) -> Result<Id<'a>, Rejection> {
    let raw = raw.ok_or_else(|| Rejection::new(field, "is missing"))?;
    // At most six bytes of text encode one byte of value, so a megabyte is refused before it is decoded.
    if raw.starts_with('"') && raw.len() > 6 * MAX_ID_BYTES + 2 {
        return Err(Rejection::new(field, "must be 1 to 128 bytes long"));
    }
    let given = string(field, raw)?;
    // Without an escape this is a borrow; with one, a few bytes.
    let text = ids::check(field, given.clone(), case)?;
    let replaces = (text != given).then_some(Span(raw));
    Ok(Id { text, replaces })
}

pub(super) fn amount(raw: Option<&str>) -> Result<Amount, Rejection> {
    let raw = raw.ok_or_else(|| Rejection::new("amount", "is missing"))?;
    let parsed = match raw.as_bytes().first() {
        Some(b'"') => Amount::parse_decimal(&string("amount", raw)?),
        Some(b'-' | b'0'..=b'9') => Amount::parse_number(raw),
        _ => {
            let reason = format!("expected a number or a decimal string, found {}", kind(raw));
            return Err(Rejection::new("amount", reason));
        }
    };
    parsed.map_err(|error| Rejection::new("amount", error.to_string()))
}

pub(super) fn timestamp(raw: Option<&str>) -> Result<Timestamp, Rejection> {
    let raw = raw.ok_or_else(|| Rejection::new("timestamp", "is missing"))?;
    if matches!(raw.as_bytes().first(), Some(b'-' | b'0'..=b'9')) {
        return Err(Rejection::new(
            "timestamp",
            TimestampError::Number.to_string(),
        ));
    }
    Timestamp::parse(&string("timestamp", raw)?)
        .map_err(|error| Rejection::new("timestamp", error.to_string()))
}
