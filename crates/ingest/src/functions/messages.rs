//! The messages of a batch, as a function or Connector Hub receives them. No I/O.
//!
//! Writers do not agree on the types of the members of a message, so each member is read leniently.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;
use tollgate_types::CardPolicy;

use crate::items::{UnreadableBody, json_value};
use crate::lenient_base64;

/// How many characters of a member are copied into the headers of a dead letter.
const MAX_POSITION_CHARS: usize = 256;

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Message<'a> {
    #[serde(borrow)]
    value: Option<&'a RawValue>,
    #[serde(borrow)]
    stream: Option<&'a RawValue>,
    #[serde(borrow)]
    partition: Option<&'a RawValue>,
    #[serde(borrow)]
    offset: Option<&'a RawValue>,
}

/// `{"messages":[…]}`.
#[derive(Debug, Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    messages: Vec<&'a RawValue>,
}

/// The messages of a batch, which is an array or an object with the array `messages`.
///
/// # Errors
/// The body is not a batch, or has more than `limit` messages.
pub(super) fn split(body: &[u8], limit: usize) -> Result<Vec<&RawValue>, UnreadableBody> {
    let whole = json_value(body)?;
    let messages = if whole.get().starts_with('[') {
        serde_json::from_str(whole.get()).map_err(|error| UnreadableBody::not_json(&error))?
    } else {
        let envelope: Result<Envelope<'_>, _> = serde_json::from_str(whole.get());
        envelope.map_err(|_| UnreadableBody::NoBatch)?.messages
    };
    if messages.len() > limit {
        return Err(UnreadableBody::TooMany(limit));
    }
    Ok(messages)
}

/// The text of the transaction in a message; without one, the whole message, so that a dead letter keeps all of it.
pub(super) fn item<'a>(message: &'a RawValue) -> Cow<'a, [u8]> {
    let whole = || Cow::Borrowed(message.get().as_bytes());
    let read: Result<Message<'a>, _> = serde_json::from_str(message.get());
    let Some(value) = read.ok().and_then(|message| message.value) else {
        return whole();
    };
    if !value.get().starts_with('"') {
        return Cow::Borrowed(value.get().as_bytes());
    }
    let Ok(text) = serde_json::from_str::<String>(value.get()) else {
        return whole();
    };
    let begins = text.trim_start_matches(|c: char| c == '\u{feff}' || c.is_whitespace());
    if begins.starts_with('{') {
        return Cow::Owned(text.into_bytes());
    }
    lenient_base64::decode(&text).map_or_else(whole, Cow::Owned)
}

/// The position of a message in its stream, as its writer reported it.
pub(super) struct Position {
    pub(super) stream: String,
    pub(super) partition: String,
    pub(super) offset: String,
}

impl Position {
    /// The position, without card numbers.
    pub(super) fn of(message: &RawValue, cards: &CardPolicy) -> Self {
        let message: Message<'_> = serde_json::from_str(message.get()).unwrap_or_default();
        let text = |value: Option<&RawValue>| {
            let text = value.map_or("", RawValue::get).trim_matches('"');
            let text: String = text.chars().take(MAX_POSITION_CHARS).collect();
            cards.mask(&text).into_owned()
        };
        let stream = text(message.stream);
        Self {
            stream: if stream.is_empty() {
                "functions".to_owned()
            } else {
                stream
            },
            partition: text(message.partition),
            offset: text(message.offset),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn items(body: &str) -> Vec<String> {
        split(body.as_bytes(), 10)
            .unwrap()
            .into_iter()
            .map(|message| String::from_utf8_lossy(&item(message)).into_owned())
            .collect()
    }

    #[test]
    fn a_value_is_text_base64_or_an_object_and_the_batch_an_object_or_an_array() {
        let coded = "eyJhIjoxfQ";
        let messages = format!(
            r#"[{{"value":"{{\"a\":1}}"}},{{"value":"{coded}","offset":3}},{{"value":{{"a":1}},"partition":"0"}}]"#
        );
        let expected = vec![r#"{"a":1}"#; 3];
        assert_eq!(items(&messages), expected);
        assert_eq!(items(&format!(r#"{{"messages":{messages}}}"#)), expected);
        assert!(items(r#"{"messages":[]}"#).is_empty());
    }

    #[test]
    fn a_message_without_a_usable_value_is_kept_whole() {
        let wrong = r#"[{"key":"x"},7,{"value":"no base64!"}]"#;
        assert_eq!(
            items(wrong),
            [r#"{"key":"x"}"#, "7", r#"{"value":"no base64!"}"#]
        );
    }

    #[test]
    fn a_body_that_is_not_a_batch_is_an_error() {
        for body in ["{}", "{\"messages\":1}", "7"] {
            assert_eq!(
                split(body.as_bytes(), 1).unwrap_err(),
                UnreadableBody::NoBatch
            );
        }
        assert_eq!(split(b"[1,2]", 1).unwrap_err(), UnreadableBody::TooMany(1));
        assert!(matches!(
            split(b"[", 1).unwrap_err(),
            UnreadableBody::NotJson(_)
        ));
    }

    #[test]
    fn the_position_of_a_message_is_read_whatever_the_types_of_its_members() {
        let message: &RawValue =
            serde_json::from_str(r#"{"stream":"s","partition":0,"offset":"17","value":""}"#)
                .unwrap();
        let position = Position::of(message, &CardPolicy::default());
        assert_eq!(
            (&*position.stream, &*position.partition, &*position.offset),
            ("s", "0", "17")
        );
    }
}
