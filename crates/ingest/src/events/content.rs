//! From the body of a request to its events, and from an event to what it contains.

use std::borrow::Cow;

use axum::http::request::Parts;
use serde_json::value::RawValue;
use tollgate_types::{CardPolicy, Rejection, Tenant, TraceContext};

use super::envelope::{self, Event, InvalidEvent};
use super::object_event;
use crate::imports::{Entry, Imports};
use crate::items::{self, Format, UnreadableBody};

/// The events of a request. The JSON decides between one event and several, whatever the content type.
///
/// # Errors
/// The body is not an event or an array of them, or has more than `limit` events.
pub(super) fn split<'a>(
    parts: &'a Parts,
    body: &'a [u8],
    limit: usize,
) -> Result<Vec<Result<Event<'a>, InvalidEvent<'a>>>, UnreadableBody> {
    if envelope::is_binary(&parts.headers) {
        return Ok(vec![envelope::binary(&parts.headers, body)]);
    }
    let whole = items::json_value(body)?;
    let events: Vec<&RawValue> = match whole.get().as_bytes().first() {
        Some(b'[') => {
            serde_json::from_str(whole.get()).map_err(|error| UnreadableBody::not_json(&error))?
        }
        Some(b'{') => vec![whole],
        _ => return Err(UnreadableBody::NoEvents),
    };
    match events.len() {
        0 => Err(UnreadableBody::NoEvents),
        number if number > limit => Err(UnreadableBody::TooMany(limit)),
        _ => Ok(events.into_iter().map(envelope::structured).collect()),
    }
}

/// For whom a request has objects imported, and how.
#[derive(Debug, Clone, Copy)]
pub(super) struct ImportOwner<'a> {
    pub(super) tenant: Tenant<'a>,
    /// Whether the rows are backfill whatever the source says.
    pub(super) backfill: bool,
}

/// An event and its content.
pub(super) struct ParsedEvent<'a> {
    /// The id of the event, without card numbers.
    pub(super) id: Option<Cow<'a, str>>,
    /// Its source, without card numbers.
    pub(super) source: Cow<'a, str>,
    pub(super) trace: Option<TraceContext>,
    pub(super) content: EventContent<'a>,
}

/// What an event contains.
pub(super) enum EventContent<'a> {
    /// The text of each transaction, not yet validated.
    Transactions(Vec<&'a [u8]>),
    /// The import of an object.
    Import(Entry),
    /// Neither, and why.
    Invalid(Rejection),
}

impl<'a> ParsedEvent<'a> {
    /// Reads the content of a tenant's event of at most `limit` transactions.
    pub(super) fn of(
        event: &'a Result<Event<'a>, InvalidEvent<'a>>,
        imports: &Imports,
        cards: &CardPolicy,
        owner: ImportOwner<'_>,
        limit: usize,
    ) -> Self {
        match event {
            Ok(event) => Self {
                id: Some(cards.mask(&event.id)),
                source: cards.mask(&event.source),
                trace: event.trace(),
                content: content(event, imports, cards, owner, limit).unwrap_or_else(|wrong| {
                    let reason = cards.mask(&wrong.reason).into_owned();
                    EventContent::Invalid(Rejection::new(wrong.field, reason))
                }),
            },
            Err(invalid) => Self {
                id: invalid.id.as_deref().map(|id| cards.mask(id)),
                source: Cow::Borrowed(""),
                trace: None,
                content: EventContent::Invalid(invalid.rejection.clone()),
            },
        }
    }

    /// The number of items that the event counts as.
    pub(super) fn items(&self) -> usize {
        match &self.content {
            EventContent::Transactions(texts) => texts.len(),
            EventContent::Import(_) | EventContent::Invalid(_) => 1,
        }
    }
}

fn content<'a>(
    event: &'a Event<'a>,
    imports: &Imports,
    cards: &CardPolicy,
    owner: ImportOwner<'_>,
    limit: usize,
) -> Result<EventContent<'a>, Rejection> {
    if let Some(mut request) = object_event::import_request(event)? {
        request.tenant = owner.tenant.given().map(str::to_owned);
        request.backfill = owner.backfill;
        // The name stands in the log, in dead letters and in log lines, and without it the object cannot be read.
        if matches!(cards.mask_id(request.object.as_bytes()), Cow::Owned(_)) {
            let reason = "has a card number, and the names of objects are stored in clear; rename the object, or set ingest.card_data_ids = \"allow\" if it is none";
            return Err(Rejection::new("data.resourceName", reason));
        }
        request.event_id = cards.mask(&request.event_id).into_owned();
        imports
            .check(owner.tenant, &request.bucket, &request.object)
            .map_err(|error| Rejection::new("data", error.to_string()))?;
        return Ok(EventContent::Import(Entry::Requested(request)));
    }
    items::split(Format::Json, &event.data, limit)
        .map(EventContent::Transactions)
        .map_err(|error| Rejection::new("data", error.to_string()))
}
