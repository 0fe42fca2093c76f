//! A transaction: what a producer sends, checked once, its own text kept.
//!
//! Invariant: a [`Transaction`] that exists is valid by every rule of the README's section "Use it", and
//! [`Transaction::json`] is the text it was read from, so that no service loses a member or a digit.

mod fields;
mod location;
mod members;
mod new;

use std::borrow::Cow;
use std::cell::Cell;
use std::fmt::Write as _;

use serde::de::DeserializeSeed as _;

use crate::headers::TRACEPARENT;
use crate::{Amount, JsonError, Rejection, Timestamp, TraceContext};
pub use location::Location;
use members::{FindId, Found, MembersSeed};
pub use members::{MemberSlot, MemberTable, Members};
pub use new::NewTransaction;

/// Longest `transaction_id` and `user_id`, in bytes.
pub const MAX_ID_BYTES: usize = 128;
/// Deepest nesting of objects and arrays in a transaction. Readers further on may recurse.
pub const MAX_DEPTH: usize = 64;

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
    /// Where it took place, if the producer gave a place.
    pub location: Option<Location>,
    /// Its member `traceparent` as it stands in the text, valid or not.
    pub traceparent: Option<&'a str>,
    /// The members that were registered in the table it was read with.
    pub members: Members<'a>,
    /// The JSON object as it came, without surrounding white space.
    pub json: &'a str,
}

impl<'a> Transaction<'a> {
    /// Reads and checks one JSON object.
    ///
    /// # Errors
    /// The first rule that the text breaks, with the member at fault. No byte sequence panics.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Rejection> {
        Self::parse_with(bytes, &MemberTable::default())
    }

    /// As [`Transaction::parse`], and finds the members of `table` too. Their values are JSON, and not checked further.
    ///
    /// # Errors
    /// As [`Transaction::parse`].
    pub fn parse_with(bytes: &'a [u8], table: &MemberTable) -> Result<Self, Rejection> {
        let text = std::str::from_utf8(bytes)
            .map_err(|_| Rejection::malformed("", "the text is not UTF-8"))?;
        let json = text.trim_matches([' ', '\t', '\n', '\r']);
        if json.is_empty() {
            return Err(Rejection::malformed("", "the text is empty"));
        }
        let reading = Cell::new("");
        let seed = MembersSeed {
            reading: &reading,
            table,
        };
        let mut deserializer = serde_json::Deserializer::from_str(json);
        let found = seed
            .deserialize(&mut deserializer)
            .and_then(|found| deserializer.end().map(|()| found))
            .map_err(|error| malformed(reading.get(), &error))??;
        Self::check(found, json)
    }

    fn check(found: Found<'a>, json: &'a str) -> Result<Self, Rejection> {
        let core = found.core;
        Ok(Self {
            transaction_id: fields::id("transaction_id", core[members::TRANSACTION_ID])?,
            user_id: fields::id("user_id", core[members::USER_ID])?,
            amount: fields::amount(core[members::AMOUNT])?,
            timestamp: fields::timestamp(core[members::TIMESTAMP])?,
            location: core[members::LOCATION].map_or(Ok(None), location::location)?,
            traceparent: core[members::TRACE],
            members: found.further,
            json,
        })
    }

    /// The id in a text that [`Transaction::parse`] refused, if it can still be read, for answers that name the item.
    /// The text may be broken after it.
    #[must_use]
    pub fn id_of_rejected(bytes: &[u8]) -> Option<String> {
        let text = bytes.utf8_chunks().next()?.valid();
        let mut deserializer = serde_json::Deserializer::from_str(text);
        let found = Cell::new(None);
        // The text was refused, so an error is expected: what matters is whether the id stands before it.
        let _ = FindId { found: &found }.deserialize(&mut deserializer);
        fields::id("transaction_id", found.get())
            .ok()
            .map(Cow::into_owned)
    }

    /// The trace that the transaction is part of, by its member `traceparent`.
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

    /// As [`Transaction::one_line`], with the member `traceparent`, for readers whose log drops headers. One from the
    /// producer stays as it is.
    #[must_use]
    pub fn one_line_in(&self, trace: Option<TraceContext>) -> Cow<'a, str> {
        let line = self.one_line();
        let (Some(trace), None) = (trace, self.traceparent) else {
            return line;
        };
        // A valid transaction begins with a brace, and members follow it.
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
