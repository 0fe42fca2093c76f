//! From the bytes of a body to its items, and from an item to a transaction or its rejection. Pure.
//!
//! Invariant: an item that is wrong never takes its neighbours with it, as long as it can be told from them.

use std::cell::Cell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, SeqAccess, Visitor};
use serde_json::value::RawValue;
use tollgate_types::{JsonError, Rejection, Timestamp, Transaction};

/// A timestamp may lie so far ahead of the clock, in microseconds: clocks differ, the future does not happen.
const MAX_AHEAD_MICROS: i64 = 5 * 60 * 1_000_000;

/// How items stand in a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// One object, or an array of them.
    Json,
    /// One object a line.
    Ndjson,
}

impl Format {
    /// The format that a `Content-Type` names, if it is one that is taken.
    pub(crate) fn of(content_type: &str) -> Option<Self> {
        let mut parts = content_type.split(';').map(str::trim);
        let format = match parts.next()?.to_ascii_lowercase().as_str() {
            "application/json" => Self::Json,
            "application/x-ndjson" => Self::Ndjson,
            _ => return None,
        };
        let utf8 = parts.all(|parameter| match parameter.split_once('=') {
            Some((name, value)) if name.trim().eq_ignore_ascii_case("charset") => {
                let value = value.trim().trim_matches('"');
                ["utf-8", "utf8", "us-ascii"]
                    .iter()
                    .any(|known| value.eq_ignore_ascii_case(known))
            }
            _ => true,
        });
        utf8.then_some(format)
    }
}

/// Why no item could be told from another.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unreadable {
    #[error("the body holds no transaction")]
    Empty,
    #[error("the body is not UTF-8, from byte {0} on")]
    NotUtf8(usize),
    #[error("malformed JSON at line {}, column {}: {}", .0.line, .0.column, .0.reason)]
    NotJson(JsonError),
    #[error("expected a transaction as a JSON object, or an array of them")]
    NoTransactions,
    #[error("expected an array of messages, or an object whose member `messages` is one")]
    NoBatch,
    #[error("expected an event as a JSON object, or an array of them")]
    NoEvents,
    #[error("the request holds more than {0} transactions")]
    TooMany(usize),
}

impl Unreadable {
    pub(crate) fn not_json(error: &serde_json::Error) -> Self {
        Self::NotJson(JsonError::from(error))
    }
}

/// The text of each item, in order. At most `limit` of them are looked at.
pub(crate) fn split(format: Format, body: &[u8], limit: usize) -> Result<Vec<&[u8]>, Unreadable> {
    // A byte order mark is no part of JSON, and some editors write one all the same.
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    let items = match format {
        Format::Json => {
            let text = std::str::from_utf8(body)
                .map_err(|error| Unreadable::NotUtf8(error.valid_up_to()))?;
            split_json(text, limit)?
        }
        Format::Ndjson => split_lines(body, limit)?,
    };
    if items.is_empty() {
        return Err(Unreadable::Empty);
    }
    Ok(items)
}

fn split_json(text: &str, limit: usize) -> Result<Vec<&[u8]>, Unreadable> {
    let first = text.bytes().find(|byte| !byte.is_ascii_whitespace());
    match first {
        None => Ok(Vec::new()),
        Some(b'[') => split_array(text, limit),
        Some(other) => {
            let item: &RawValue =
                serde_json::from_str(text).map_err(|error| Unreadable::not_json(&error))?;
            if other == b'{' {
                Ok(vec![item.get().as_bytes()])
            } else {
                Err(Unreadable::NoTransactions)
            }
        }
    }
}

fn split_array(text: &str, limit: usize) -> Result<Vec<&[u8]>, Unreadable> {
    let too_many = Cell::new(false);
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let elements = Elements {
        limit,
        too_many: &too_many,
    };
    let items = elements
        .deserialize(&mut deserializer)
        .and_then(|items| deserializer.end().map(|()| items));
    items.map_err(|error| {
        if too_many.get() {
            Unreadable::TooMany(limit)
        } else {
            Unreadable::not_json(&error)
        }
    })
}

/// The elements of an array as they stand, unread, so that neither depth nor number costs more than their text.
struct Elements<'c> {
    limit: usize,
    too_many: &'c Cell<bool>,
}

impl<'de> DeserializeSeed<'de> for Elements<'_> {
    type Value = Vec<&'de [u8]>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Elements<'_> {
    type Value = Vec<&'de [u8]>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of transactions")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element::<&'de RawValue>()? {
            if items.len() == self.limit {
                self.too_many.set(true);
                return Err(A::Error::custom("too many"));
            }
            items.push(item.get().as_bytes());
        }
        Ok(items)
    }
}

fn split_lines(body: &[u8], limit: usize) -> Result<Vec<&[u8]>, Unreadable> {
    let mut items = Vec::new();
    for line in body.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii) {
        if line.is_empty() {
            continue;
        }
        if items.len() == limit {
            return Err(Unreadable::TooMany(limit));
        }
        items.push(line);
    }
    Ok(items)
}

/// What an item must keep to beyond the rules of a transaction.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rules {
    /// Longest text of one item, in bytes.
    pub(crate) max_bytes: usize,
    /// The clock, in microseconds since 1970.
    pub(crate) now_micros: i64,
}

/// Reads one item.
pub(crate) fn check(item: &[u8], rules: Rules) -> Result<Transaction<'_>, Rejection> {
    if item.len() > rules.max_bytes {
        let reason = format!("is larger than {} bytes", rules.max_bytes);
        return Err(Rejection::new("", reason));
    }
    // Told here, because the parser's own message for it would quote the value.
    let found = match item {
        b"true" | b"false" => Some("a boolean"),
        b"null" => Some("null"),
        [b'"', ..] => Some("a string"),
        [b'[', ..] => Some("an array"),
        [b'-' | b'0'..=b'9', ..] => Some("a number"),
        _ => None,
    };
    if let Some(found) = found {
        let reason = format!("expected a transaction as a JSON object, found {found}");
        return Err(Rejection::new("", reason));
    }
    let transaction = Transaction::parse(item)?;
    if transaction.timestamp.micros() > rules.now_micros.saturating_add(MAX_AHEAD_MICROS) {
        let reason = "lies more than 5 minutes ahead of the clock";
        return Err(Rejection::new("timestamp", reason));
    }
    Ok(transaction)
}

/// The clock as [`Rules`] wants it.
pub(crate) fn now_micros() -> i64 {
    chrono::Utc::now()
        .timestamp_micros()
        .clamp(Timestamp::MIN.micros(), Timestamp::MAX.micros())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMIT: usize = 5;

    fn texts(format: Format, body: &str) -> Result<Vec<&str>, Unreadable> {
        let items = split(format, body.as_bytes(), LIMIT)?;
        Ok(items
            .into_iter()
            .map(|item| std::str::from_utf8(item).unwrap())
            .collect())
    }

    #[test]
    fn the_content_type_decides_and_only_utf8_is_taken() {
        for (content_type, expected) in [
            ("application/json", Some(Format::Json)),
            ("Application/JSON; charset=UTF-8", Some(Format::Json)),
            (
                "application/json;charset=\"utf-8\"; v=1",
                Some(Format::Json),
            ),
            ("application/x-ndjson", Some(Format::Ndjson)),
            ("application/json; charset=utf-16", None),
            ("application/json-patch", None),
            ("text/plain", None),
            ("", None),
        ] {
            assert_eq!(Format::of(content_type), expected, "{content_type}");
        }
    }

    #[test]
    fn an_object_is_one_item_and_an_array_as_many_as_it_holds() {
        assert_eq!(texts(Format::Json, " {\"a\": 1}\n"), Ok(vec!["{\"a\": 1}"]));
        assert_eq!(
            texts(Format::Json, "\u{feff}[ {} , 1,\"x\" ]"),
            Ok(vec!["{}", "1", "\"x\""])
        );
    }

    #[test]
    fn lines_may_be_blank_end_in_crlf_or_not_end_at_all() {
        assert_eq!(
            texts(Format::Ndjson, "{}\r\n\r\n  \n{\"a\":\nx"),
            Ok(vec!["{}", "{\"a\":", "x"])
        );
    }

    #[test]
    fn a_body_without_items_is_empty_whatever_its_form() {
        for (format, body) in [
            (Format::Json, ""),
            (Format::Json, " \n"),
            (Format::Json, "[]"),
            (Format::Ndjson, ""),
            (Format::Ndjson, "\n\r\n"),
        ] {
            assert_eq!(texts(format, body), Err(Unreadable::Empty), "{body:?}");
        }
    }

    #[test]
    fn a_body_that_is_no_json_says_where() {
        let error = texts(Format::Json, "{\"a\":").unwrap_err().to_string();
        assert_eq!(
            error,
            "malformed JSON at line 1, column 5: EOF while parsing a value"
        );
        for body in ["[{}, NaN]", "[{}", "{} {}", "[] x", "nonsense"] {
            let error = texts(Format::Json, body);
            assert!(matches!(error, Err(Unreadable::NotJson(_))), "{body}");
        }
        for body in ["1", "\"x\"", "null"] {
            assert_eq!(texts(Format::Json, body), Err(Unreadable::NoTransactions));
        }
    }

    #[test]
    fn items_are_counted_before_they_are_kept() {
        let bomb = format!("[{}[]]", "[],".repeat(1_000_000));
        assert_eq!(texts(Format::Json, &bomb), Err(Unreadable::TooMany(LIMIT)));
        let lines = "{}\n".repeat(LIMIT + 1);
        assert_eq!(
            texts(Format::Ndjson, &lines),
            Err(Unreadable::TooMany(LIMIT))
        );
        assert!(texts(Format::Ndjson, &lines[3..]).is_ok());
    }

    #[test]
    fn depth_costs_no_stack() {
        let deep = format!("[{}{}]", "[".repeat(100_000), "]".repeat(100_000));
        assert_eq!(texts(Format::Json, &deep).unwrap().len(), 1);
        let open = "[".repeat(100_000);
        assert!(texts(Format::Json, &open).is_err());
    }

    fn rules() -> Rules {
        Rules {
            max_bytes: 200,
            now_micros: Timestamp::parse("2026-03-01T12:00:00Z").unwrap().micros(),
        }
    }

    fn at(timestamp: &str) -> String {
        format!(r#"{{"transaction_id":"t","user_id":"u","amount":1,"timestamp":"{timestamp}"}}"#)
    }

    #[test]
    fn five_minutes_ahead_are_allowed_and_no_more() {
        assert!(check(at("2026-03-01T12:05:00Z").as_bytes(), rules()).is_ok());
        let rejection = check(at("2026-03-01T12:05:00.000001Z").as_bytes(), rules()).unwrap_err();
        assert_eq!(rejection.field, "timestamp");
    }

    #[test]
    fn what_is_no_object_or_too_long_is_told_without_its_value() {
        let long = format!("{{\"x\":\"{}\"}}", "secret".repeat(100));
        for item in ["\"secret\"", "[\"secret\"]", "12345", &long] {
            let rejection = check(item.as_bytes(), rules()).unwrap_err();
            assert_eq!(rejection.field, "");
            let reason = rejection.reason;
            assert!(
                !reason.contains("secret") && !reason.contains("12345"),
                "{reason}"
            );
        }
    }

    proptest! {
        #[test]
        fn no_body_panics(body in prop::collection::vec(any::<u8>(), 0..200), ndjson: bool) {
            let format = if ndjson { Format::Ndjson } else { Format::Json };
            for item in split(format, &body, LIMIT).unwrap_or_default() {
                let _ = check(item, rules());
            }
        }

        #[test]
        fn nearly_json_does_not_panic(body in r#"[\[\]{},:"\\ntu0-9eE+. \n\r-]{0,80}"#, ndjson: bool) {
            let format = if ndjson { Format::Ndjson } else { Format::Json };
            for item in split(format, body.as_bytes(), LIMIT).unwrap_or_default() {
                let _ = check(item, rules());
            }
        }

        #[test]
        fn array_and_lines_hold_the_same_items(items in prop::collection::vec(r#"\{"a":[0-9]{1,9}\}|"[a-z\\u{e9}]*"|\[\]|-?[1-9][0-9]{0,3}"#, 1..=LIMIT)) {
            let items: Vec<&str> = items.iter().map(String::as_str).collect();
            let array = format!("[{}]", items.join(" , "));
            let lines = items.join("\n");
            prop_assert_eq!(texts(Format::Ndjson, &lines).unwrap(), items.clone());
            // The generator's backslashes need not form escapes that JSON knows.
            if let Ok(found) = texts(Format::Json, &array) {
                prop_assert_eq!(found, items);
            }
        }
    }
}
