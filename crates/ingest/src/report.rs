//! The bodies of answers: the result of each item, and decisions.

use std::borrow::Cow;

use serde::Serialize;
use serde_json::value::RawValue;
use tollgate_types::{Rejection, TraceContext, Transaction};
use utoipa::ToSchema;

/// Up to this number of items the answer lists every result; beyond, only those of rejected items.
const ALL_RESULTS: usize = 100;

/// The result of one item.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = ItemResult)]
pub(crate) struct ItemResult<'a> {
    /// The index of the item in the request, from 0; blank lines do not count.
    index: usize,
    /// The item's id; null for a rejected item without a readable one.
    #[schema(value_type = Option<String>)]
    transaction_id: Option<Cow<'a, str>>,
    status: ItemStatus,
    /// Only for rejected items: the member at fault, such as `amount` or `location.latitude`; null if it is the whole
    /// item.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    field: Option<Option<&'static str>>,
    /// Only for rejected items: the reason.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    reason: Option<Cow<'static, str>>,
}

/// Whether an item was accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ItemStatus {
    /// It is on the log.
    Accepted,
    /// It is invalid; sent again, it will be rejected again.
    Rejected,
}

impl<'a> ItemResult<'a> {
    fn accepted(index: usize, transaction: &'a Transaction<'_>) -> Self {
        Self {
            index,
            transaction_id: Some(Cow::Borrowed(&transaction.transaction_id)),
            status: ItemStatus::Accepted,
            field: None,
            reason: None,
        }
    }

    /// The index of the item in the request, from 0.
    pub(crate) const fn index(&self) -> usize {
        self.index
    }

    /// The item's id, if it is readable.
    pub(crate) fn transaction_id(&self) -> Option<&str> {
        self.transaction_id.as_deref()
    }

    /// Why a rejected item is invalid: the member at fault and the reason.
    pub(crate) fn message(&self) -> String {
        let reason = self.reason.as_deref().unwrap_or_default();
        match self.field.flatten() {
            Some(field) => format!("{field}: {reason}"),
            None => reason.to_owned(),
        }
    }

    /// A rejected item. Its id is extracted from its text.
    pub(crate) fn rejected(index: usize, item: &[u8], rejection: Rejection) -> Self {
        Self {
            index,
            transaction_id: Transaction::id_of_rejected(item).map(Cow::Owned),
            status: ItemStatus::Rejected,
            field: Some(Some(rejection.field).filter(|field| !field.is_empty())),
            reason: Some(rejection.reason),
        }
    }
}

/// The items of a request after validation.
#[derive(Debug, Default)]
pub(crate) struct ValidatedItems<'a> {
    /// Valid transactions, with the index of their item.
    pub(crate) accepted: Vec<(usize, Transaction<'a>)>,
    /// Invalid items, in the order of their index.
    pub(crate) rejected: Vec<ItemResult<'static>>,
}

impl<'a> ValidatedItems<'a> {
    /// The accepted transactions, each with its own trace context, or else with that of its event.
    pub(crate) fn with_trace(
        &self,
        event: Option<TraceContext>,
    ) -> impl Iterator<Item = (Option<TraceContext>, &Transaction<'a>)> {
        let accepted = self.accepted.iter();
        accepted.map(move |(_, transaction)| (transaction.trace().or(event), transaction))
    }
}

impl ValidatedItems<'_> {
    /// The results that an answer lists, in the order of the items.
    pub(crate) fn results(&self) -> Vec<ItemResult<'_>> {
        let mut results = self.rejected.clone();
        if self.accepted.len() + self.rejected.len() <= ALL_RESULTS {
            let accepted = self.accepted.iter();
            results.extend(accepted.map(|(index, item)| ItemResult::accepted(*index, item)));
            results.sort_by_key(|result| result.index);
        }
        results
    }
}

/// The result of a request. All accepted items are on the log.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Report)]
pub(crate) struct Report<'a> {
    /// Transactions that are on the log.
    pub(crate) accepted: usize,
    /// Items that are invalid.
    pub(crate) rejected: usize,
    /// Accepted transactions that are older than the history of their user: `late` of their decisions; for those without
    /// one, compared with what this instance has accepted since it started.
    pub(crate) late: usize,
    /// Every item of up to 100; beyond, only rejected ones.
    pub(crate) results: Vec<ItemResult<'a>>,
    /// Only if `Prefer: wait` was applied: the decisions and errors that arrived in time, in the order of the items.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<crate::openapi::Reply>>)]
    pub(crate) decisions: Option<Vec<Box<RawValue>>>,
    /// Only if `Prefer: wait` was applied: accepted transactions without a decision. They are not approved: send them again
    /// with the same ids, or hold the payments.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) undecided: Option<usize>,
}

/// Every accepted transaction has its decision, or an error in its place.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Decided)]
pub(crate) struct Decided {
    /// One for each accepted transaction, in the order of the items: a decision, or an error.
    #[schema(value_type = Vec<crate::openapi::Reply>)]
    pub(crate) decisions: Vec<Box<RawValue>>,
    /// Transactions that are older than the history of their user: `late` of their decisions.
    pub(crate) late: usize,
    /// Only if it is not 0: errors among `decisions`. Their transactions are not approved: send them again with the same
    /// ids, or hold the payments.
    #[serde(skip_serializing_if = "is_zero")]
    #[schema(required = false)]
    pub(crate) undecided: usize,
    /// Only if items were rejected: their results.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<ItemResult>, required = false)]
    pub(crate) results: Vec<ItemResult<'static>>,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes a reference"
)]
const fn is_zero(number: &usize) -> bool {
    *number == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn validated(accepted: usize, rejected: usize) -> ValidatedItems<'static> {
        let json = br#"{"transaction_id":"t","user_id":"u","amount":1,"timestamp":"2026-03-01T12:00:00Z"}"#;
        let transaction = Transaction::parse(json).unwrap();
        let wrong = |index| ItemResult::rejected(index, b"{", Rejection::new("", "is wrong"));
        ValidatedItems {
            // In the request, rejected items come before accepted ones.
            accepted: (0..accepted)
                .map(|index| (rejected + index, transaction.clone()))
                .collect(),
            rejected: (0..rejected).map(wrong).collect(),
        }
    }

    #[test]
    fn up_to_a_hundred_items_are_all_listed_in_their_order() {
        let items = validated(60, 40);
        let indices: Vec<usize> = items.results().iter().map(|result| result.index).collect();
        assert_eq!(indices, (0..100).collect::<Vec<_>>());
    }

    #[test]
    fn beyond_a_hundred_only_rejected_items_are_listed() {
        assert_eq!(validated(61, 40).results().len(), 40);
        assert!(validated(101, 0).results().is_empty());
    }

    #[test]
    fn only_rejected_items_have_field_and_reason() {
        let items = validated(1, 1);
        let json = serde_json::to_value(items.results()).unwrap();
        let expected = serde_json::json!([
            {"index": 0, "transaction_id": null, "status": "rejected", "field": null, "reason": "is wrong"},
            {"index": 1, "transaction_id": "t", "status": "accepted"},
        ]);
        assert_eq!(json, expected);
    }
}
