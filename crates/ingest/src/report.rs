//! What a caller is told about each transaction.

use std::borrow::Cow;

use serde::Serialize;
use serde_json::value::RawValue;
use tollgate_types::{Rejection, TraceContext, Transaction};
use utoipa::ToSchema;

/// Up to so many items, each has its result; beyond, only those that were rejected.
const ALL_RESULTS: usize = 100;

/// What became of one item.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = ItemResult)]
pub(crate) struct ItemResult<'a> {
    /// Which item of the request, counted from 0; blank lines do not count.
    index: usize,
    /// The item's id; null where a rejected item's could not be made out.
    #[schema(value_type = Option<String>)]
    transaction_id: Option<Cow<'a, str>>,
    status: ItemStatus,
    /// Only where rejected: the member at fault, such as `amount` or `location.latitude`; null where it is the whole
    /// item.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    field: Option<Option<&'static str>>,
    /// Only where rejected: what is wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    reason: Option<Cow<'static, str>>,
}

/// Whether an item was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ItemStatus {
    /// It is on the log.
    Accepted,
    /// It breaks a rule; sent again, it will be rejected again.
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

    /// Which item of the request it is.
    pub(crate) const fn index(&self) -> usize {
        self.index
    }

    /// The item's id, where it has one that can be made out.
    pub(crate) fn transaction_id(&self) -> Option<&str> {
        self.transaction_id.as_deref()
    }

    /// What is wrong with a rejected item: the member, and the reason.
    pub(crate) fn why(&self) -> String {
        let reason = self.reason.as_deref().unwrap_or_default();
        match self.field.flatten() {
            Some(field) => format!("{field}: {reason}"),
            None => reason.to_owned(),
        }
    }

    /// A rejected item; its id is looked for in its text.
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

/// The items of a request, told apart.
#[derive(Debug, Default)]
pub(crate) struct Sorted<'a> {
    /// With their index.
    pub(crate) accepted: Vec<(usize, Transaction<'a>)>,
    /// In the order of their index.
    pub(crate) rejected: Vec<ItemResult<'static>>,
}

impl<'a> Sorted<'a> {
    /// The accepted ones, each with the trace that it says it is part of, or else with that of the event it came in.
    pub(crate) fn within(
        &self,
        event: Option<TraceContext>,
    ) -> impl Iterator<Item = (Option<TraceContext>, &Transaction<'a>)> {
        let accepted = self.accepted.iter();
        accepted.map(move |(_, transaction)| (transaction.trace().or(event), transaction))
    }
}

impl Sorted<'_> {
    /// The results that the answer lists, in the order of the items.
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

/// Every item has its fate: accepted ones are on the log.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Report)]
pub(crate) struct Report<'a> {
    /// Transactions that are on the log.
    pub(crate) accepted: usize,
    /// Items that break a rule.
    pub(crate) rejected: usize,
    /// Each item up to 100 of them; beyond, only rejected ones.
    pub(crate) results: Vec<ItemResult<'a>>,
    /// Only where `Prefer: wait` was applied: the decisions that are there, in the order of the items.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<crate::openapi::Decision>>)]
    pub(crate) decisions: Option<Vec<Box<RawValue>>>,
}

/// Every accepted transaction has its decision.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Decided)]
pub(crate) struct Decided {
    /// One for each accepted transaction, in the order of the items.
    #[schema(value_type = Vec<crate::openapi::Decision>)]
    pub(crate) decisions: Vec<Box<RawValue>>,
    /// Only where items were rejected: those.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<ItemResult>, required = false)]
    pub(crate) results: Vec<ItemResult<'static>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sorted(accepted: usize, rejected: usize) -> Sorted<'static> {
        let json = br#"{"transaction_id":"t","user_id":"u","amount":1,"timestamp":"2026-03-01T12:00:00Z"}"#;
        let transaction = Transaction::parse(json).unwrap();
        let wrong = |index| ItemResult::rejected(index, b"{", Rejection::new("", "is wrong"));
        Sorted {
            // Rejected ones stand before accepted ones in the request.
            accepted: (0..accepted)
                .map(|index| (rejected + index, transaction.clone()))
                .collect(),
            rejected: (0..rejected).map(wrong).collect(),
        }
    }

    #[test]
    fn up_to_a_hundred_items_are_all_listed_in_their_order() {
        let sorted = sorted(60, 40);
        let indices: Vec<usize> = sorted.results().iter().map(|result| result.index).collect();
        assert_eq!(indices, (0..100).collect::<Vec<_>>());
    }

    #[test]
    fn beyond_a_hundred_only_rejected_items_are_listed() {
        assert_eq!(sorted(61, 40).results().len(), 40);
        assert!(sorted(101, 0).results().is_empty());
    }

    #[test]
    fn field_and_reason_stand_on_rejected_items_only() {
        let sorted = sorted(1, 1);
        let json = serde_json::to_value(sorted.results()).unwrap();
        let expected = serde_json::json!([
            {"index": 0, "transaction_id": null, "status": "rejected", "field": null, "reason": "is wrong"},
            {"index": 1, "transaction_id": "t", "status": "accepted"},
        ]);
        assert_eq!(json, expected);
    }
}
