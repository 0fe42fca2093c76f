//! A transaction: what a producer sends, checked once, its own text kept.
//!
//! Invariant: a [`Transaction`] that exists is valid by every rule of the scoring specification, and
//! [`Transaction::json`] is the text it was read from, so that no hop loses a member or a digit.

use std::borrow::Cow;
use std::cell::Cell;
use std::fmt::{self, Write as _};

use serde::de::{DeserializeSeed, Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::headers::TRACEPARENT;
use crate::{Amount, JsonError, Rejection, Timestamp, TraceContext};

/// Longest `transaction_id` and `user_id`, in bytes.
pub const MAX_ID_BYTES: usize = 128;
/// Deepest nesting of objects and arrays in a transaction. Readers further on may recurse.
pub const MAX_DEPTH: usize = 64;

/// Where a transaction took place, in degrees.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Location {
    /// −90…90.
    pub latitude: f64,
    /// −180…180.
    pub longitude: f64,
}

/// A valid transaction and the JSON text it was read from.
#[derive(Debug, Clone, PartialEq)]
pub struct Transaction<'a> {
    /// 1–128 bytes, unique within a user.
    pub transaction_id: Cow<'a, str>,
    /// 1–128 bytes, the key of the stream.
    pub user_id: Cow<'a, str>,
    /// Exact.
    pub amount: Amount,
    /// Event time.
    pub timestamp: Timestamp,
    /// Where it took place, if the producer said so.
    pub location: Option<Location>,
    /// Its member `traceparent` as it stands in the text, whatever it is: no reason to refuse a payment.
    pub traceparent: Option<&'a str>,
    /// The JSON object as it came, without surrounding white space.
    pub json: &'a str,
}

impl<'a> Transaction<'a> {
    /// Reads and checks one JSON object.
    ///
    /// # Errors
    /// The first rule that the text breaks, with the member at fault. No byte sequence panics.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Rejection> {
        let text = std::str::from_utf8(bytes)
            .map_err(|_| Rejection::malformed("", "the text is not UTF-8"))?;
        let json = text.trim_matches([' ', '\t', '\n', '\r']);
        if json.is_empty() {
            return Err(Rejection::malformed("", "the text is empty"));
        }
        let reading = Cell::new("");
        let mut deserializer = serde_json::Deserializer::from_str(json);
        let members = MembersSeed { reading: &reading }
            .deserialize(&mut deserializer)
            .and_then(|members| deserializer.end().map(|()| members))
            .map_err(|error| malformed(reading.get(), &error))??;
        members.check(json)
    }

    /// The id in a text that [`Transaction::parse`] refused, if it can still be made out, for answers that name the
    /// item. The text may be broken behind it.
    #[must_use]
    pub fn id_of_rejected(bytes: &[u8]) -> Option<String> {
        let text = bytes.utf8_chunks().next()?.valid();
        let mut deserializer = serde_json::Deserializer::from_str(text);
        let found = Cell::new(None);
        // An error is no news here: what matters was found before it, or not.
        let _ = FindId { found: &found }.deserialize(&mut deserializer);
        id("transaction_id", found.get()).ok().map(Cow::into_owned)
    }

    /// The trace that the transaction says it is part of.
    #[must_use]
    pub fn trace(&self) -> Option<TraceContext> {
        let text = self.traceparent?.strip_prefix('"')?.strip_suffix('"')?;
        TraceContext::parse(text.as_bytes())
    }

    /// [`Transaction::json`] on one line, for logs of one event a line: a producer may have indented it.
    #[must_use]
    pub fn one_line(&self) -> Cow<'a, str> {
        // Strings cannot hold these raw, so all of them are white space.
        if memchr::memchr2(b'\n', b'\r', self.json.as_bytes()).is_some() {
            Cow::Owned(self.json.replace(['\n', '\r'], ""))
        } else {
            Cow::Borrowed(self.json)
        }
    }

    /// As [`Transaction::one_line`], with the member `traceparent`, for readers whose log drops headers. One that the
    /// producer gave stays as it is.
    #[must_use]
    pub fn one_line_in(&self, trace: Option<TraceContext>) -> Cow<'a, str> {
        let line = self.one_line();
        let (Some(trace), None) = (trace, self.traceparent) else {
            return line;
        };
        // A valid transaction begins with a brace, and has members behind it.
        let mut traced = String::with_capacity(line.len() + TRACEPARENT.len() + 64);
        traced.push_str("{\"");
        traced.push_str(TRACEPARENT);
        traced.push_str("\":\"");
        // Writing to a String cannot fail.
        let _ = write!(traced, "{trace}\",");
        traced.push_str(&line[1..]);
        Cow::Owned(traced)
    }
}

/// The rejection of a text that is not JSON, or not an object.
fn malformed(field: &'static str, error: &serde_json::Error) -> Rejection {
    let JsonError { reason, column, .. } = JsonError::from(error);
    let reason = match error.classify() {
        serde_json::error::Category::Data => "expected a JSON object".into(),
        _ => reason,
    };
    Rejection::malformed(
        field,
        format!("malformed JSON at column {column}: {reason}"),
    )
}

/// The members that Tollgate knows, as they stand in the text.
#[derive(Default)]
struct Members<'a> {
    transaction_id: Option<&'a str>,
    user_id: Option<&'a str>,
    amount: Option<&'a str>,
    timestamp: Option<&'a str>,
    location: Option<&'a str>,
    traceparent: Option<&'a str>,
}

impl<'a> Members<'a> {
    fn check(self, json: &'a str) -> Result<Transaction<'a>, Rejection> {
        Ok(Transaction {
            transaction_id: id("transaction_id", self.transaction_id)?,
            user_id: id("user_id", self.user_id)?,
            amount: amount(self.amount)?,
            timestamp: timestamp(self.timestamp)?,
            location: self.location.map_or(Ok(None), location)?,
            traceparent: self.traceparent,
            json,
        })
    }
}

enum Member {
    Known(&'static str),
    Other,
}

struct MembersSeed<'c> {
    reading: &'c Cell<&'static str>,
}

impl<'de> DeserializeSeed<'de> for MembersSeed<'_> {
    type Value = Result<Members<'de>, Rejection>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for MembersSeed<'_> {
    type Value = Result<Members<'de>, Rejection>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a transaction as a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members = Members::default();
        let mut wrong = None;
        while let Some(member) = map.next_key_seed(MemberName)? {
            let name = match member {
                Member::Known(name) => name,
                Member::Other => "",
            };
            self.reading.set(name);
            let value = map.next_value::<&'de RawValue>()?.get();
            self.reading.set("");
            // The rest is read all the same: a malformed text is told before a wrong member.
            let slot = match name {
                "transaction_id" => &mut members.transaction_id,
                "user_id" => &mut members.user_id,
                "amount" => &mut members.amount,
                "timestamp" => &mut members.timestamp,
                "location" => &mut members.location,
                other => {
                    if other == TRACEPARENT {
                        members.traceparent.get_or_insert(value);
                    }
                    if too_deep(value) {
                        wrong.get_or_insert_with(|| {
                            Rejection::new("", format!("nested deeper than {MAX_DEPTH} levels"))
                        });
                    }
                    continue;
                }
            };
            if slot.replace(value).is_some() {
                wrong.get_or_insert_with(|| Rejection::new(name, "given twice"));
            }
        }
        Ok(wrong.map_or(Ok(members), Err))
    }
}

/// Reads members up to the transaction_id, and no further.
struct FindId<'c, 'a> {
    found: &'c Cell<Option<&'a str>>,
}

impl<'de> DeserializeSeed<'de> for FindId<'_, 'de> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for FindId<'_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with a transaction_id")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(member) = map.next_key_seed(MemberName)? {
            let value = map.next_value::<&'de RawValue>()?.get();
            if matches!(member, Member::Known("transaction_id")) {
                self.found.set(Some(value));
                break;
            }
        }
        Ok(())
    }
}

struct MemberName;

impl<'de> DeserializeSeed<'de> for MemberName {
    type Value = Member;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Member, D::Error> {
        deserializer.deserialize_identifier(self)
    }
}

impl Visitor<'_> for MemberName {
    type Value = Member;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a member")
    }

    fn visit_str<E>(self, name: &str) -> Result<Member, E> {
        Ok(match name {
            "transaction_id" => Member::Known("transaction_id"),
            "user_id" => Member::Known("user_id"),
            "amount" => Member::Known("amount"),
            "timestamp" => Member::Known("timestamp"),
            "location" => Member::Known("location"),
            TRACEPARENT => Member::Known(TRACEPARENT),
            _ => Member::Other,
        })
    }
}

/// Whether a JSON value, one level down in its transaction, passes the limit of nesting.
fn too_deep(value: &str) -> bool {
    // Each level takes two bytes, and few values are that long.
    if value.len() < 2 * MAX_DEPTH || !value.starts_with(['{', '[']) {
        return false;
    }
    let (mut depth, mut in_string, mut escaped) = (1_usize, false, false);
    for byte in value.bytes() {
        if in_string {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => in_string = false,
                _ => {}
            }
            continue;
        }
        match byte {
            b'"' => in_string = true,
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth -= 1,
            _ => {}
        }
        if depth > MAX_DEPTH {
            return true;
        }
    }
    false
}

fn kind(raw: &str) -> &'static str {
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

fn id<'a>(field: &'static str, raw: Option<&'a str>) -> Result<Cow<'a, str>, Rejection> {
    let raw = raw.ok_or_else(|| Rejection::new(field, "is missing"))?;
    // Six bytes of text at most stand for one of value: a megabyte is refused before it is decoded.
    if raw.starts_with('"') && raw.len() > 6 * MAX_ID_BYTES + 2 {
        return Err(Rejection::new(field, "must be 1 to 128 bytes long"));
    }
    let text = string(field, raw)?;
    if text.is_empty() || text.len() > MAX_ID_BYTES {
        return Err(Rejection::new(field, "must be 1 to 128 bytes long"));
    }
    if text.contains('\0') {
        return Err(Rejection::new(
            field,
            "must not hold U+0000, which no store keeps",
        ));
    }
    Ok(text)
}

fn amount(raw: Option<&str>) -> Result<Amount, Rejection> {
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

fn timestamp(raw: Option<&str>) -> Result<Timestamp, Rejection> {
    let raw = raw.ok_or_else(|| Rejection::new("timestamp", "is missing"))?;
    Timestamp::parse(&string("timestamp", raw)?)
        .map_err(|error| Rejection::new("timestamp", error.to_string()))
}

/// `null`, `{}` and two `null`s all say that there is no location.
fn location<'a>(raw: &'a str) -> Result<Option<Location>, Rejection> {
    #[derive(Deserialize)]
    struct Coordinates<'a> {
        #[serde(borrow, default)]
        latitude: Option<&'a RawValue>,
        #[serde(borrow, default)]
        longitude: Option<&'a RawValue>,
    }
    if raw == "null" {
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
    let given = |value: Option<&'a RawValue>| value.map(RawValue::get).filter(|raw| *raw != "null");
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

/// The coordinates of what nearly every producer writes: two numbers, latitude first, and nothing else. `None` leaves
/// the text to the general reader, and is no verdict.
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

fn both(latitude: &str, longitude: &str) -> Result<Option<Location>, Rejection> {
    Ok(Some(Location {
        latitude: coordinate("location.latitude", latitude, 90.0)?,
        longitude: coordinate("location.longitude", longitude, 180.0)?,
    }))
}

fn coordinate(field: &'static str, raw: &str, limit: f64) -> Result<f64, Rejection> {
    let value: f64 = raw
        .parse()
        .map_err(|_| Rejection::new(field, format!("expected a number, found {}", kind(raw))))?;
    if value.abs() <= limit {
        return Ok(value);
    }
    Err(Rejection::new(
        field,
        format!("must lie between -{limit} and {limit}"),
    ))
}

/// A transaction to be written: what load generators and tests send.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct NewTransaction {
    /// Unique within the user.
    pub transaction_id: String,
    /// The key of the stream.
    pub user_id: String,
    /// Printed as a decimal string, which is exact in every reader.
    pub amount: Amount,
    /// Event time.
    pub timestamp: Timestamp,
    /// Where it took place.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub location: Option<Location>,
    /// Any other member.
    #[serde(flatten)]
    pub extra: serde_json::Map<String, serde_json::Value>,
}

impl NewTransaction {
    /// The transaction as JSON text.
    #[must_use]
    pub fn to_json(&self) -> String {
        // Nothing in it can fail to serialise: all keys are strings, all floats finite or printed as null.
        serde_json::to_string(self).unwrap_or_default()
    }
}
