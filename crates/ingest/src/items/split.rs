//! Splits the body of a request into its items, without parsing them.
//!
//! Invariant: neither the depth nor the number of items costs more than their text; at most `limit` items are kept.

use std::cell::Cell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, SeqAccess, Visitor};
use serde_json::value::RawValue;
use tollgate_types::{JsonError, without_mark};

/// The format of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// One object, or an array of them.
    Json,
    /// One object per line.
    Ndjson,
}

impl Format {
    /// The format of a `Content-Type`, if it is a supported one.
    pub(crate) fn of(content_type: &str) -> Option<Self> {
        let mut parts = content_type.split(';').map(str::trim);
        let format = match parts.next()?.to_ascii_lowercase().as_str() {
            "application/json" => Self::Json,
            // None is registered; these are in use.
            "application/x-ndjson"
            | "application/ndjson"
            | "application/jsonl"
            | "application/x-jsonl"
            | "application/jsonlines"
            | "application/x-jsonlines" => Self::Ndjson,
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

/// Why a body could not be split into items.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum UnreadableBody {
    #[error("the body has no transactions")]
    Empty,
    #[error("the body is not valid UTF-8 at byte {0}")]
    NotUtf8(usize),
    #[error("malformed JSON at line {}, column {}: {}", .0.line, .0.column, .0.reason)]
    NotJson(JsonError),
    #[error("expected a transaction as a JSON object, or an array of them")]
    NoTransactions,
    #[error("expected an array of messages, or an object with an array `messages`")]
    NoBatch,
    #[error("expected an event as a JSON object, or an array of them")]
    NoEvents,
    #[error("the request has more than {0} transactions")]
    TooMany(usize),
}

impl UnreadableBody {
    pub(crate) fn not_json(error: &serde_json::Error) -> Self {
        Self::NotJson(JsonError::from(error))
    }
}

/// A body that is one JSON value.
///
/// # Errors
/// The body is not UTF-8 or not JSON.
pub(crate) fn json_value(body: &[u8]) -> Result<&RawValue, UnreadableBody> {
    serde_json::from_str(utf8(without_mark(body))?)
        .map_err(|error| UnreadableBody::not_json(&error))
}

fn utf8(body: &[u8]) -> Result<&str, UnreadableBody> {
    std::str::from_utf8(body).map_err(|error| UnreadableBody::NotUtf8(error.valid_up_to()))
}

/// The text of each item, in order.
///
/// # Errors
/// The body is empty or malformed, or has more than `limit` items.
pub(crate) fn split(
    format: Format,
    body: &[u8],
    limit: usize,
) -> Result<Vec<&[u8]>, UnreadableBody> {
    let body = without_mark(body);
    let items = match format {
        Format::Json => split_json(utf8(body)?, limit)?,
        Format::Ndjson => split_lines(body, limit)?,
    };
    if items.is_empty() {
        return Err(UnreadableBody::Empty);
    }
    Ok(items)
}

fn split_json(text: &str, limit: usize) -> Result<Vec<&[u8]>, UnreadableBody> {
    let first = text.bytes().find(|byte| !byte.is_ascii_whitespace());
    match first {
        None => Ok(Vec::new()),
        Some(b'[') => split_array(text, limit),
        Some(other) => {
            let item: &RawValue =
                serde_json::from_str(text).map_err(|error| UnreadableBody::not_json(&error))?;
            if other == b'{' {
                Ok(vec![item.get().as_bytes()])
            } else {
                Err(UnreadableBody::NoTransactions)
            }
        }
    }
}

fn split_array(text: &str, limit: usize) -> Result<Vec<&[u8]>, UnreadableBody> {
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
            UnreadableBody::TooMany(limit)
        } else {
            UnreadableBody::not_json(&error)
        }
    })
}

/// Collects the elements of an array as raw text.
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

fn split_lines(body: &[u8], limit: usize) -> Result<Vec<&[u8]>, UnreadableBody> {
    let mut items = Vec::new();
    for line in body.split(|byte| *byte == b'\n') {
        // Files that were joined have one in the middle.
        let line = without_mark(line).trim_ascii();
        if line.is_empty() {
            continue;
        }
        if items.len() == limit {
            return Err(UnreadableBody::TooMany(limit));
        }
        items.push(line);
    }
    Ok(items)
}

/// Begins each item of a JSON text sequence: RFC 7464, section 2.2.
pub(crate) const RECORD_SEPARATOR: u8 = 0x1e;

/// The items of a JSON text sequence.
pub(crate) fn sequence(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    let items = text.split(|byte| *byte == RECORD_SEPARATOR).skip(1);
    items.map(|item| item.strip_suffix(b"\n").unwrap_or(item))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMIT: usize = 5;

    fn texts(format: Format, body: &str) -> Result<Vec<&str>, UnreadableBody> {
        let items = split(format, body.as_bytes(), LIMIT)?;
        Ok(items
            .into_iter()
            .map(|item| std::str::from_utf8(item).unwrap())
            .collect())
    }

    #[test]
    fn the_content_type_selects_the_format_and_only_utf8_is_accepted() {
        for (content_type, expected) in [
            ("application/json", Some(Format::Json)),
            ("Application/JSON; charset=UTF-8", Some(Format::Json)),
            (
                "application/json;charset=\"utf-8\"; v=1",
                Some(Format::Json),
            ),
            ("application/x-ndjson", Some(Format::Ndjson)),
            ("application/jsonl", Some(Format::Ndjson)),
            ("application/ndjson", Some(Format::Ndjson)),
            (
                "application/x-jsonlines; charset=utf-8",
                Some(Format::Ndjson),
            ),
            ("application/json; charset=utf-16", None),
            ("application/json-patch", None),
            ("text/plain", None),
            ("", None),
        ] {
            assert_eq!(Format::of(content_type), expected, "{content_type}");
        }
    }

    #[test]
    fn an_object_is_one_item_and_an_array_one_for_each_element() {
        assert_eq!(texts(Format::Json, " {\"a\": 1}\n"), Ok(vec!["{\"a\": 1}"]));
        assert_eq!(
            texts(Format::Json, "\u{feff}[ {} , 1,\"x\" ]"),
            Ok(vec!["{}", "1", "\"x\""])
        );
    }

    #[test]
    fn lines_may_be_blank_end_in_crlf_or_not_end_at_all() {
        assert_eq!(
            texts(
                Format::Ndjson,
                "\u{feff}{}\r\n\r\n  \n{\"a\":\nx\n\u{feff}[]"
            ),
            Ok(vec!["{}", "{\"a\":", "x", "[]"])
        );
    }

    #[test]
    fn a_body_without_items_is_empty_in_every_format() {
        for (format, body) in [
            (Format::Json, ""),
            (Format::Json, " \n"),
            (Format::Json, "[]"),
            (Format::Ndjson, ""),
            (Format::Ndjson, "\n\r\n"),
        ] {
            assert_eq!(texts(format, body), Err(UnreadableBody::Empty), "{body:?}");
        }
    }

    #[test]
    fn malformed_json_is_reported_with_its_position() {
        let error = texts(Format::Json, "{\"a\":").unwrap_err().to_string();
        assert_eq!(
            error,
            "malformed JSON at line 1, column 5: EOF while parsing a value"
        );
        for body in ["[{}, NaN]", "[{}", "{} {}", "[] x", "nonsense"] {
            let error = texts(Format::Json, body);
            assert!(matches!(error, Err(UnreadableBody::NotJson(_))), "{body}");
        }
        for body in ["1", "\"x\"", "null"] {
            assert_eq!(
                texts(Format::Json, body),
                Err(UnreadableBody::NoTransactions)
            );
        }
    }

    #[test]
    fn items_are_counted_before_they_are_kept() {
        let bomb = format!("[{}[]]", "[],".repeat(1_000_000));
        assert_eq!(
            texts(Format::Json, &bomb),
            Err(UnreadableBody::TooMany(LIMIT))
        );
        let lines = "{}\n".repeat(LIMIT + 1);
        assert_eq!(
            texts(Format::Ndjson, &lines),
            Err(UnreadableBody::TooMany(LIMIT))
        );
        assert!(texts(Format::Ndjson, &lines[3..]).is_ok());
    }

    #[test]
    fn deep_nesting_does_not_overflow_the_stack() {
        let deep = format!("[{}{}]", "[".repeat(100_000), "]".repeat(100_000));
        assert_eq!(texts(Format::Json, &deep).unwrap().len(), 1);
        let open = "[".repeat(100_000);
        assert!(texts(Format::Json, &open).is_err());
    }

    proptest! {
        #[test]
        fn an_array_and_ndjson_have_the_same_items(items in prop::collection::vec(r#"\{"a":[0-9]{1,9}\}|"[a-z\\u{e9}]*"|\[\]|-?[1-9][0-9]{0,3}"#, 1..=LIMIT)) {
            let items: Vec<&str> = items.iter().map(String::as_str).collect();
            let array = format!("[{}]", items.join(" , "));
            let lines = items.join("\n");
            prop_assert_eq!(texts(Format::Ndjson, &lines).unwrap(), items.clone());
            // The generated backslashes are not always valid JSON escapes.
            if let Ok(found) = texts(Format::Json, &array) {
                prop_assert_eq!(found, items);
            }
        }
    }
}
