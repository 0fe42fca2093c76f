//! The status of a transaction, and what set it.

use std::sync::Arc;

use tollgate_policy::{Action, Thresholds};
use tollgate_types::Status;

use super::ruling::Fired;

/// What the status depends on.
pub(super) struct Facts<'f> {
    pub(super) thresholds: &'f Thresholds,
    pub(super) score: f64,
    /// What fired and counts, in order.
    pub(super) contributions: &'f [Fired],
    /// The transaction is late, and no backfill.
    pub(super) late: bool,
    /// Windows were counted without rows that were dropped for want of room.
    pub(super) approximate: bool,
    /// The mildest status of an amount whose currency has no rate.
    pub(super) unknown_currency: Status,
}

/// The first of these that holds decides.
pub(super) fn outcome(facts: &Facts<'_>) -> (Status, Arc<str>) {
    let first = |action: Action| {
        let mut fired = facts.contributions.iter();
        let fired = fired.find(|fired| fired.has(action))?;
        Some(Arc::from(&*fired.indicator))
    };
    if let Some(rule) = first(Action::Allow) {
        return (Status::Approved, rule);
    }
    let late = if facts.late {
        facts.thresholds.late_status
    } else {
        Status::Approved
    };
    let named = |name: &str| Some(Arc::from(name));
    let when = |holds: bool, name: &str| if holds { named(name) } else { None };
    let blocked = first(Action::Block)
        .or_else(|| when(facts.score >= facts.thresholds.block, "score"))
        .or_else(|| when(late == Status::Blocked, "late"))
        .or_else(|| when(facts.unknown_currency == Status::Blocked, UNKNOWN_CURRENCY));
    if let Some(by) = blocked {
        return (Status::Blocked, by);
    }
    let mut fired = facts.contributions.iter();
    let conflict = fired.any(|fired| fired.indicator == CONFLICT);
    let review = first(Action::Review)
        .or_else(|| when(facts.score >= facts.thresholds.review, "score"))
        .or_else(|| when(conflict, CONFLICT))
        .or_else(|| when(late == Status::Review, "late"))
        .or_else(|| when(facts.unknown_currency == Status::Review, UNKNOWN_CURRENCY))
        .or_else(|| when(facts.approximate, "approximate"));
    match review {
        Some(by) => (Status::Review, by),
        None => (Status::Approved, Arc::from("score")),
    }
}

const CONFLICT: &str = "conflicting_duplicate";
const UNKNOWN_CURRENCY: &str = "unknown_currency";
