//! Parses the envelope of an event: CloudEvents 1.0 in structured or binary mode, and the envelope of OCI Events, which is
//! CloudEvents 0.1. No I/O.
//!
//! <https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/spec.md>,
//! <https://docs.oracle.com/iaas/Content/Events/Reference/eventenvelopereference.htm>

use std::borrow::Cow;

use axum::http::{HeaderMap, header};
use serde::Deserialize;
use serde_json::value::RawValue;
use tollgate_types::{Rejection, TraceContext};

use crate::lenient_base64;

/// An event, whatever its envelope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Event<'a> {
    pub(super) id: Cow<'a, str>,
    /// Such as `com.oraclecloud.objectstorage.createobject`.
    pub(super) kind: Cow<'a, str>,
    pub(super) source: Cow<'a, str>,
    /// The data, as JSON text.
    pub(super) data: Cow<'a, [u8]>,
    /// The extension for distributed tracing.
    pub(super) traceparent: Option<Cow<'a, str>>,
}

impl Event<'_> {
    /// The trace context of the event.
    pub(super) fn trace(&self) -> Option<TraceContext> {
        TraceContext::parse(self.traceparent.as_deref()?.as_bytes())
    }
}

/// The members of both envelopes, unparsed.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Members<'a> {
    #[serde(borrow)]
    specversion: Option<&'a RawValue>,
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    #[serde(borrow, rename = "type")]
    kind: Option<&'a RawValue>,
    #[serde(borrow)]
    source: Option<&'a RawValue>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    #[serde(borrow)]
    data_base64: Option<&'a RawValue>,
    #[serde(borrow)]
    traceparent: Option<&'a RawValue>,
    #[serde(borrow, rename = "cloudEventsVersion")]
    oci_version: Option<&'a RawValue>,
    #[serde(borrow, rename = "eventID")]
    oci_id: Option<&'a RawValue>,
    #[serde(borrow, rename = "eventType")]
    oci_kind: Option<&'a RawValue>,
}

/// An event that cannot be read, and its id as far as that can be: the sender finds the event by it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct InvalidEvent<'a> {
    pub(super) id: Option<Cow<'a, str>>,
    pub(super) rejection: Rejection,
}

/// An event in structured mode: a JSON object.
///
/// # Errors
/// The member at fault and the reason.
pub(super) fn structured(raw: &RawValue) -> Result<Event<'_>, InvalidEvent<'_>> {
    let nameless = |reason| InvalidEvent {
        id: None,
        rejection: Rejection::new("", reason),
    };
    if !raw.get().starts_with('{') {
        return Err(nameless("expected an event as a JSON object"));
    }
    let members: Members<'_> = serde_json::from_str(raw.get())
        .map_err(|_| nameless("the envelope has a duplicate member"))?;
    of_members(&members).map_err(|rejection| InvalidEvent {
        id: text("id", members.id.or(members.oci_id)).ok(),
        rejection,
    })
}

fn of_members<'a>(members: &Members<'a>) -> Result<Event<'a>, Rejection> {
    let oci = members.oci_version.is_some() && members.specversion.is_none();
    let event = if oci {
        version("cloudEventsVersion", members.oci_version, "0.1")?;
        Event {
            id: text("eventID", members.oci_id)?,
            kind: text("eventType", members.oci_kind)?,
            source: text("source", members.source)?,
            data: data(members.data, None)?,
            traceparent: None,
        }
    } else {
        version("specversion", members.specversion, "1.0")?;
        Event {
            id: text("id", members.id)?,
            kind: text("type", members.kind)?,
            source: text("source", members.source)?,
            data: data(members.data, members.data_base64)?,
            traceparent: text("traceparent", members.traceparent).ok(),
        }
    };
    Ok(event)
}

/// Whether a request contains an event in binary mode. The content type decides: senders may repeat the attributes of a
/// structured event in headers (HTTP protocol binding, section 3.2.3).
pub(super) fn is_binary(headers: &HeaderMap) -> bool {
    const STRUCTURED: &[u8] = b"application/cloudevents";
    let kind = headers.get(header::CONTENT_TYPE);
    let kind = kind.map_or(&b""[..], |kind| kind.as_bytes().trim_ascii_start());
    let is_structured = kind
        .get(..STRUCTURED.len())
        .is_some_and(|begin| begin.eq_ignore_ascii_case(STRUCTURED));
    !is_structured && headers.contains_key("ce-specversion")
}

/// An event in binary mode: its attributes are headers, its data is the body.
///
/// # Errors
/// The header at fault and the reason.
pub(super) fn binary<'a>(
    headers: &'a HeaderMap,
    body: &'a [u8],
) -> Result<Event<'a>, InvalidEvent<'a>> {
    of_headers(headers, body).map_err(|rejection| {
        let id = headers.get("ce-id").and_then(|value| value.to_str().ok());
        let id = id.filter(|text| !text.is_empty()).map(Cow::Borrowed);
        InvalidEvent { id, rejection }
    })
}

fn of_headers<'a>(headers: &'a HeaderMap, body: &'a [u8]) -> Result<Event<'a>, Rejection> {
    let header = |name: &'static str| {
        let value = headers.get(name).and_then(|value| value.to_str().ok());
        let value = value.filter(|text| !text.is_empty());
        value.ok_or_else(|| Rejection::new(name, "must be a non-empty text"))
    };
    if header("ce-specversion")? != "1.0" {
        return Err(Rejection::new("ce-specversion", "must be 1.0"));
    }
    Ok(Event {
        id: header("ce-id")?.into(),
        kind: header("ce-type")?.into(),
        source: header("ce-source")?.into(),
        data: body.into(),
        traceparent: header("ce-traceparent").ok().map(Cow::Borrowed),
    })
}

fn version(
    field: &'static str,
    found: Option<&RawValue>,
    expected: &'static str,
) -> Result<(), Rejection> {
    match text(field, found) {
        Ok(found) if found == expected => Ok(()),
        _ => Err(Rejection::new(field, format!("must be \"{expected}\""))),
    }
}

fn text<'a>(field: &'static str, value: Option<&'a RawValue>) -> Result<Cow<'a, str>, Rejection> {
    #[derive(Deserialize)]
    struct Text<'a>(#[serde(borrow)] Cow<'a, str>);
    let read = value.and_then(|value| serde_json::from_str::<Text<'_>>(value.get()).ok());
    match read {
        Some(Text(text)) if !text.is_empty() => Ok(text),
        _ => Err(Rejection::new(field, "must be a non-empty string")),
    }
}

fn data<'a>(
    data: Option<&'a RawValue>,
    coded: Option<&'a RawValue>,
) -> Result<Cow<'a, [u8]>, Rejection> {
    if let Some(coded) = coded {
        if data.is_some() {
            let reason = "is given beside data; an event has one of them";
            return Err(Rejection::new("data_base64", reason));
        }
        let coded = text("data_base64", Some(coded))?;
        return lenient_base64::decode(&coded)
            .map(Cow::Owned)
            .ok_or_else(|| Rejection::new("data_base64", "is not base64"));
    }
    let data = data.ok_or_else(|| Rejection::new("data", "is missing"))?;
    // Some senders put the JSON into a string.
    if data.get().starts_with('"') {
        return Ok(match text("data", Some(data))? {
            Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
            Cow::Owned(text) => Cow::Owned(text.into_bytes()),
        });
    }
    Ok(Cow::Borrowed(data.get().as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<(String, String, String), Rejection> {
        let raw: &RawValue = serde_json::from_str(text).unwrap();
        let event = structured(raw).map_err(|invalid| invalid.rejection)?;
        let data = String::from_utf8_lossy(&event.data).into_owned();
        Ok((event.id.into_owned(), event.kind.into_owned(), data))
    }

    #[test]
    fn both_envelopes_give_the_same_event() {
        let expected = ("1".to_owned(), "t".to_owned(), "{\"a\":1}".to_owned());
        for text in [
            r#"{"specversion":"1.0","id":"1","type":"t","source":"s","data":{"a":1},"more":[]}"#,
            r#"{"specversion":"1.0","id":"1","type":"t","source":"s","data_base64":"eyJhIjoxfQ=="}"#,
            r#"{"specversion":"1.0","id":"1","type":"t","source":"s","data":null,"data_base64":"eyJhIjoxfQ"}"#,
            r#"{"specversion":"1.0","id":"1","type":"t","source":"s","data":"{\"a\":1}"}"#,
            r#"{"cloudEventsVersion":"0.1","eventID":"1","eventType":"t","source":"s","data":{"a":1},"extensions":{}}"#,
        ] {
            assert_eq!(read(text).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn a_missing_or_invalid_member_is_named() {
        for (text, field) in [
            (r#"{"id":"1"}"#, "specversion"),
            (
                r#"{"specversion":"0.3","id":"1","type":"t","source":"s","data":1}"#,
                "specversion",
            ),
            (
                r#"{"specversion":"1.0","type":"t","source":"s","data":1}"#,
                "id",
            ),
            (
                r#"{"specversion":"1.0","id":7,"type":"t","source":"s","data":1}"#,
                "id",
            ),
            (
                r#"{"specversion":"1.0","id":"1","type":"","source":"s","data":1}"#,
                "type",
            ),
            (
                r#"{"specversion":"1.0","id":"1","type":"t","source":"s"}"#,
                "data",
            ),
            (
                r#"{"specversion":"1.0","id":"1","type":"t","source":"s","data_base64":"!"}"#,
                "data_base64",
            ),
            (
                r#"{"cloudEventsVersion":"0.1","eventType":"t","source":"s","data":1}"#,
                "eventID",
            ),
            (
                r#"{"specversion":"1.0","id":"1","type":"t","source":"s","data":{},"data_base64":"e30="}"#,
                "data_base64",
            ),
            ("7", ""),
        ] {
            assert_eq!(read(text).unwrap_err().field, field, "{text}");
        }
    }

    #[test]
    fn an_invalid_event_is_named_by_its_id() {
        for (text, id) in [
            (
                r#"{"specversion":"1.0","id":"1","type":"t","source":"s"}"#,
                Some("1"),
            ),
            (r#"{"id":"1"}"#, Some("1")),
            (r#"{"cloudEventsVersion":"0.1","eventID":"1"}"#, Some("1")),
            (r#"{"specversion":"1.0","id":7}"#, None),
            (r#"{"specversion":"1.0"}"#, None),
            ("7", None),
        ] {
            let raw: &RawValue = serde_json::from_str(text).unwrap();
            assert_eq!(structured(raw).unwrap_err().id.as_deref(), id, "{text}");
        }
    }

    #[test]
    fn in_binary_mode_the_headers_are_the_envelope() {
        let mut headers = HeaderMap::new();
        for (name, value) in [("ce-specversion", "1.0"), ("ce-id", "1"), ("ce-type", "t")] {
            headers.insert(name, value.parse().unwrap());
        }
        let invalid = binary(&headers, b"{}").unwrap_err();
        assert_eq!(invalid.rejection.field, "ce-source");
        assert_eq!(invalid.id.as_deref(), Some("1"));
        headers.insert("ce-source", "s".parse().unwrap());
        assert_eq!(binary(&headers, b"{}").unwrap().kind, "t");
        for (kind, expected) in [
            (None, true),
            (Some("application/json"), true),
            (Some("application/cloudevents+json; charset=utf-8"), false),
            (Some("Application/CloudEvents-Batch+JSON"), false),
        ] {
            let mut headers = headers.clone();
            if let Some(kind) = kind {
                headers.insert(header::CONTENT_TYPE, kind.parse().unwrap());
            }
            assert_eq!(is_binary(&headers), expected, "{kind:?}");
        }
        assert!(!is_binary(&HeaderMap::new()));
    }
}
