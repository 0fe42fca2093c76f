//! A transaction: what a producer sends, checked once, its own text kept.
//!
//! Invariant: a [`Transaction`] that exists is valid by every rule of the README's section "Use it", and
//! [`Transaction::json`] is the text it was read from, so that no service loses a member or a digit. Only an id that
//! was not in the form in which ids are used is written anew in it.

mod currency;
mod fields;
mod framing;
mod ids;
mod location;
mod members;
mod new;

use std::borrow::Cow;
use std::cell::Cell;
use std::fmt::Write as _;

use serde::de::DeserializeSeed as _;

use crate::headers::TRACEPARENT;
use crate::{Amount, JsonError, Rejection, Timestamp, TraceContext};
pub use currency::NamedCurrency;
use fields::Id;
pub use ids::{UserIdCase, mixes_scripts, stored_id};
pub use location::Location;
use members::{FindId, Found, MembersSeed};
pub use members::{MemberSlot, MemberTable, Members};
pub use new::NewTransaction;

/// Longest `transaction_id` and `user_id`, in bytes.
pub const MAX_ID_BYTES: usize = 128;
/// Largest transaction by default, in bytes: of ingest and of the scorer.
pub const MAX_TRANSACTION_BYTES: usize = 256 * 1024;
/// Deepest nesting of objects and arrays in a transaction. Readers further on may recurse.
pub const MAX_DEPTH: usize = 64;

/// A valid transaction and the JSON text it was read from.
#[derive(Debug, Clone, PartialEq)]
pub struct Transaction<'a> {
    /// 1–128 bytes in NFC, unique within a user.
    pub transaction_id: Cow<'a, str>,
    /// 1–128 bytes in NFC, the key of the stream.
    pub user_id: Cow<'a, str>,
    /// Exact.
    pub amount: Amount,
    /// Event time.
    pub timestamp: Timestamp,
    /// Where it took place, if the producer gave a place.
    pub location: Option<Location>,
    /// Its member `traceparent` as it stands in the text, valid or not.
    pub traceparent: Option<&'a str>,
    /// Its member `currency` as it stands in the text, valid or not; empty where it is given twice.
    pub currency: Option<&'a str>,
    /// The members that were registered in the table it was read with.
    pub members: Members<'a>,
    /// The JSON object as it came, without surrounding white space, its ids in the form above.
    pub json: Cow<'a, str>,
}

/// A value where it stands in the text of its transaction.
#[derive(Debug, Clone, Copy)]
struct Span<'a>(&'a str);

impl Span<'_> {
    /// Its place in `text`, of which it is a part.
    fn within(self, text: &str) -> std::ops::Range<usize> {
        let begin = (self.0.as_ptr() as usize).saturating_sub(text.as_ptr() as usize);
        begin..begin + self.0.len()
    }
}

impl<'a> Transaction<'a> {
    /// Reads and checks one JSON object.
    ///
    /// # Errors
    /// The first rule that the text breaks, with the member at fault. No byte sequence panics.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Rejection> {
        Self::parse_with(bytes, &MemberTable::default())
    }

    /// As [`Transaction::parse`], with the user id in this case.
    ///
    /// # Errors
    /// As [`Transaction::parse`].
    pub fn parse_in_case(bytes: &'a [u8], case: UserIdCase) -> Result<Self, Rejection> {
        Self::read(bytes, &MemberTable::default(), case)
    }

    /// As [`Transaction::parse`], and finds the members of `table` too. Their values are JSON, and not checked further.
    ///
    /// # Errors
    /// As [`Transaction::parse`].
    pub fn parse_with(bytes: &'a [u8], table: &MemberTable) -> Result<Self, Rejection> {
        Self::read(bytes, table, UserIdCase::Keep)
    }

    fn read(bytes: &'a [u8], table: &MemberTable, case: UserIdCase) -> Result<Self, Rejection> {
        Self::read_plain(bytes, table, case)
            .map_err(|rejection| framing::named(bytes).unwrap_or(rejection))
    }

    fn read_plain(
        bytes: &'a [u8],
        table: &MemberTable,
        case: UserIdCase,
    ) -> Result<Self, Rejection> {
        let text = std::str::from_utf8(without_mark(bytes))
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
        Self::check(found, json, case)
    }

    fn check(found: Found<'a>, json: &'a str, case: UserIdCase) -> Result<Self, Rejection> {
        let core = found.core;
        let keep = UserIdCase::Keep;
        let transaction_id = fields::id("transaction_id", core[members::TRANSACTION_ID], keep)?;
        let user_id = fields::id("user_id", core[members::USER_ID], case)?;
        let json = with_ids(json, &transaction_id, &user_id);
        Ok(Self {
            transaction_id: transaction_id.text,
            user_id: user_id.text,
            amount: fields::amount(core[members::AMOUNT])?,
            timestamp: fields::timestamp(core[members::TIMESTAMP])?,
            location: core[members::LOCATION].map_or(Ok(None), location::location)?,
            traceparent: core[members::TRACE],
            currency: found.currency,
            members: found.further,
            json,
        })
    }

    /// Checks that it is not older than `earliest`: older timestamps are mostly the zero time of a program.
    ///
    /// # Errors
    /// Names the timestamp, and `setting`, which holds the limit.
    pub fn check_not_before(&self, earliest: Timestamp, setting: &str) -> Result<(), Rejection> {
        if self.timestamp >= earliest {
            return Ok(());
        }
        let reason = format!(
            "is before {earliest}, as the zero time of a program is; {setting} sets the limit"
        );
        Err(Rejection::new("timestamp", reason))
    }

    /// The id in a text that [`Transaction::parse`] refused, if it can still be read, for answers that name the item.
    /// The text may be broken after it.
    #[must_use]
    pub fn id_of_rejected(bytes: &[u8]) -> Option<String> {
        let text = without_mark(bytes).utf8_chunks().next()?.valid();
        let mut deserializer = serde_json::Deserializer::from_str(text);
        let found = Cell::new(None);
        // The text was refused, so an error is expected: what matters is whether the id stands before it.
        let _ = FindId { found: &found }.deserialize(&mut deserializer);
        fields::id("transaction_id", found.get(), UserIdCase::Keep)
            .ok()
            .map(|id| id.text.into_owned())
    }

    /// The trace that the transaction is part of, by its member `traceparent`.
    #[must_use]
    pub fn trace(&self) -> Option<TraceContext> {
        let text = self.traceparent?.strip_prefix('"')?.strip_suffix('"')?;
        TraceContext::parse(text.as_bytes())
    }

    /// [`Transaction::json`] on one line, for logs of one event a line: a producer may have indented it.
    #[must_use]
    pub fn one_line(&self) -> Cow<'_, str> {
        // Strings cannot hold these raw, so all of them are white space.
        if memchr::memchr2(b'\n', b'\r', self.json.as_bytes()).is_some() {
            Cow::Owned(self.json.replace(['\n', '\r'], ""))
        } else {
            Cow::Borrowed(&self.json)
        }
    }

    /// As [`Transaction::one_line`], with the member `traceparent`, for readers whose log drops headers. One from the
    /// producer stays as it is.
    #[must_use]
    pub fn one_line_in(&self, trace: Option<TraceContext>) -> Cow<'_, str> {
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

    /// As [`Transaction::one_line_in`], without the member where the line would be longer than `max_bytes` with it: a
    /// trace is no reason to refuse a payment, and the record's header has it too.
    #[must_use]
    pub fn one_line_within(&self, trace: Option<TraceContext>, max_bytes: usize) -> Cow<'_, str> {
        let line = self.one_line_in(trace);
        if line.len() > max_bytes {
            return self.one_line();
        }
        line
    }
}

/// A text without the byte order mark that editors and spreadsheets write before it.
#[must_use]
pub fn without_mark(text: &[u8]) -> &[u8] {
    text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text)
}

/// The text with those ids in it that it has in another form.
fn with_ids<'a>(json: &'a str, transaction_id: &Id<'_>, user_id: &Id<'_>) -> Cow<'a, str> {
    let ids = [transaction_id, user_id];
    let mut changed: Vec<_> = ids
        .into_iter()
        .filter_map(|id| Some((id.replaces?.within(json), &*id.text)))
        .collect();
    if changed.is_empty() {
        return Cow::Borrowed(json);
    }
    changed.sort_by_key(|(place, _)| place.start);
    let mut text = String::with_capacity(json.len() + 32);
    let mut done = 0;
    for (place, id) in changed {
        text.push_str(&json[done..place.start]);
        // A string always serialises.
        text.push_str(&serde_json::to_string(id).unwrap_or_default());
        done = place.end;
    }
    text.push_str(&json[done..]);
    Cow::Owned(text)
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
