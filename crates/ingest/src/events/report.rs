//! The body of the answer to a request with events.

use std::borrow::Cow;

use serde::Serialize;
use tollgate_types::Rejection;
use utoipa::ToSchema;

use super::content::{EventContent, ParsedEvent};
use crate::report::{ItemResult, ValidatedItems};

const ACCEPTED: &str = "accepted";
const REJECTED: &str = "rejected";
/// Rejected events, and rejected transactions, that an answer lists.
const MAX_REJECTED: usize = 100;

/// The result of a request with events.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = EventReport)]
pub(crate) struct EventReport<'a> {
    /// The number of accepted events.
    pub(super) accepted: usize,
    /// The number of rejected events.
    pub(super) rejected: usize,
    /// Accepted transactions that are older than the history of their user, compared with what this instance has accepted
    /// since it started. Those of imports are counted by the import.
    pub(super) late: usize,
    /// One for each event, in their order; of rejected events the first 100. `rejected` counts all of them.
    pub(super) results: Vec<EventResult<'a>>,
}

/// The result of one event.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = EventResult)]
pub(crate) struct EventResult<'a> {
    /// The index of the event in the request, from 0.
    index: usize,
    /// The event's id; null if it could not be read.
    #[schema(value_type = Option<String>)]
    pub(super) id: Option<Cow<'a, str>>,
    /// `accepted` or `rejected`.
    status: &'static str,
    /// Only for an object: the import that reads it, the same for the same version of the same object.
    #[serde(skip_serializing_if = "Option::is_none")]
    import: Option<String>,
    /// Only for transactions: the number of accepted ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    transactions: Option<usize>,
    /// Only for transactions: the rejected ones, the first 100 of a request. If the event is accepted, all of them are also
    /// dead-lettered.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<ItemResult>, required = false)]
    results: Vec<ItemResult<'static>>,
    /// Only for rejected events: the member at fault; null if it is the whole event.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub(super) field: Option<Option<&'static str>>,
    /// Only for rejected events: the reason.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub(super) reason: Option<Cow<'static, str>>,
}

impl<'a> EventResult<'a> {
    pub(super) fn of(
        index: usize,
        event: &ParsedEvent<'a>,
        validated: &ValidatedItems<'_>,
    ) -> Self {
        let mut result = Self {
            index,
            id: event.id.clone(),
            status: ACCEPTED,
            import: None,
            transactions: None,
            results: validated.rejected.clone(),
            field: None,
            reason: None,
        };
        match &event.content {
            EventContent::Import(entry) => result.import = Some(entry.id().to_owned()),
            EventContent::Transactions(_) if validated.accepted.is_empty() => {
                result.reject(Rejection::new("data", "has no valid transaction"));
            }
            EventContent::Transactions(_) => {
                result.transactions = Some(validated.accepted.len());
            }
            EventContent::Invalid(rejection) => result.reject(rejection.clone()),
        }
        result
    }

    /// Shortens what the answer has of rejected events and transactions to the first [`MAX_REJECTED`] of each: all of it could
    /// be fifty times as long as the request.
    pub(super) fn shorten(results: &mut Vec<Self>) {
        let mut events = 0;
        results.retain(|result| {
            events += usize::from(!result.is_accepted());
            result.is_accepted() || events <= MAX_REJECTED
        });
        let mut left = MAX_REJECTED;
        for result in results {
            result.results.truncate(left);
            left -= result.results.len();
        }
    }

    fn reject(&mut self, rejection: Rejection) {
        self.status = REJECTED;
        self.field = Some(Some(rejection.field).filter(|field| !field.is_empty()));
        self.reason = Some(rejection.reason);
    }

    pub(super) fn is_accepted(&self) -> bool {
        self.status == ACCEPTED
    }
}
