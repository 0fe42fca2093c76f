//! Texts that are no transactions but hold one: the framings of serializers and connectors. A producer gets a reason that
//! names what it has to change.

use std::borrow::Cow;

use serde::de::{Deserializer as _, IgnoredAny, MapAccess, Visitor};

use crate::Rejection;

/// Names the framing of a text that was refused; `None` if it has none that is known.
pub(super) fn named(text: &[u8]) -> Option<Rejection> {
    let reason = of_bytes(text).or_else(|| of_json(text))?;
    Some(Rejection::malformed("", reason))
}

fn of_bytes(text: &[u8]) -> Option<&'static str> {
    Some(match text {
        [b'{', 0, ..] | [0, b'{', ..] | [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => {
            "is UTF-16; send UTF-8"
        }
        [0, _, _, _, _, _, ..] if text.iter().any(|byte| *byte != 0) => {
            "has the framing of Confluent's Schema Registry (a zero byte and the id of a schema); use a serializer that writes plain JSON"
        }
        [b'O', b'b', b'j', 1, ..] => "is an Avro file; send JSON",
        [b'P', b'A', b'R', b'1', ..] => "is a Parquet file; send JSON",
        [0x1f, 0x8b, ..] => "is compressed with gzip; send the JSON text",
        [0x28, 0xb5, 0x2f, 0xfd, ..] => "is compressed with zstd; send the JSON text",
        [.., b'}', 0] | [.., 0, 0] => "is filled up with NUL bytes; send the JSON text alone",
        _ => return None,
    })
}

fn of_json(text: &[u8]) -> Option<&'static str> {
    let text = super::without_mark(text).trim_ascii();
    let reason = match text.first()? {
        b'[' => {
            "is an array; a record holds one transaction, as a JSON object (the HTTP API takes arrays)"
        }
        b'"' => "is a JSON string: the transaction was encoded twice; send the object itself",
        b'{' => return of_envelope(text),
        _ => return None,
    };
    // Not for what only begins like one.
    serde_json::from_slice::<IgnoredAny>(text).ok()?;
    Some(reason)
}

/// The members by which envelopes are told.
const NAMES: [&str; 10] = [
    "schema",
    "payload",
    "before",
    "after",
    "op",
    "specversion",
    "type",
    "source",
    "transaction_id",
    "messages",
];

fn of_envelope(text: &[u8]) -> Option<&'static str> {
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    let found = deserializer.deserialize_map(Names).ok()?;
    let has = |name: &str| {
        NAMES
            .iter()
            .zip(found)
            .any(|(known, found)| *known == name && found)
    };
    if has("transaction_id") {
        return None;
    }
    Some(if has("schema") && has("payload") {
        "is the envelope of Kafka Connect (schema and payload); set schemas.enable=false for its JsonConverter"
    } else if has("op") && (has("before") || has("after")) {
        "is the envelope of Debezium (before, after, op); unwrap it with its transformation ExtractNewRecordState"
    } else if has("specversion") && has("type") && has("source") {
        "is a CloudEvent in structured mode; write its data, or send it to POST /v1/events"
    } else if has("messages") {
        "is a batch of messages; write each message, or send the batch to POST /v1/functions/streaming"
    } else {
        return None;
    })
}

/// Which of the names a JSON object has.
struct Names;

impl<'de> Visitor<'de> for Names {
    type Value = [bool; NAMES.len()];

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = [false; NAMES.len()];
        while let Some(name) = map.next_key::<Cow<'de, str>>()? {
            map.next_value::<IgnoredAny>()?;
            for (known, found) in NAMES.iter().zip(&mut found) {
                *found |= *known == name;
            }
        }
        Ok(found)
    }
}
