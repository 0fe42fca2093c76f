//! The engine's result for one transaction, and how it becomes a decision.

use std::borrow::Cow;

use serde_json::value::RawValue;
use tollgate_types::{
    Contributions, Decision, Indicators, Status, Tenant, Timestamp, TraceContext, Transaction,
};

use crate::policy::Ruling;
use crate::state::Remembered;

/// Score, reasons and status. It borrows nothing from the history.
#[derive(Debug, Clone, PartialEq)]
pub struct Verdict {
    /// The sum of the contributions' points.
    pub score: f64,
    /// Which indicators fired.
    pub indicators: Indicators,
    /// What is done with the transaction.
    pub status: Status,
    /// Points and measured values; empty for a duplicate.
    pub contributions: Contributions,
    /// The transaction was older than the history that it was scored against.
    pub late: bool,
    /// The transaction was decided on before; score, indicators and status are those of the first decision.
    pub duplicate: bool,
    /// It is a duplicate, and the first one came from another sender, who alone may be told the verdict.
    pub foreign: bool,
    /// The user has the transaction's id in history with another amount.
    pub conflict: bool,
    /// The user has so many transactions that windows were counted without the oldest ones.
    pub approximate: bool,
    /// What a policy adds, once a change was applied to the engine.
    pub ruling: Option<Box<Ruling>>,
}

impl Verdict {
    /// That of `first`, sent again by `sender`.
    pub(crate) fn duplicate_of(first: Remembered, sender: u16) -> Self {
        Self {
            score: first.score,
            status: first.status(),
            indicators: first.indicators,
            // What nobody is known to have sent belongs to nobody.
            foreign: first.sender != 0 && first.sender != sender,
            conflict: false,
            approximate: false,
            contributions: Contributions::default(),
            late: false,
            duplicate: true,
            ruling: None,
        }
    }

    /// Appends the decision on `transaction`, which is one of this tenant's, as JSON on one line. `trace` is the span in
    /// which it was made. A verdict by a policy has the policy's hash in the place of `ruleset_version`.
    pub fn write_decision(
        &self,
        tenant: Tenant<'_>,
        transaction: &Transaction<'_>,
        processed_at: Timestamp,
        ruleset_version: &str,
        trace: Option<TraceContext>,
        out: &mut Vec<u8>,
    ) {
        if let Some(ruling) = &self.ruling {
            ruling.write_decision(self, tenant, transaction, processed_at, trace, out);
            return;
        }
        let traceparent = trace.map(TraceContext::to_traceparent);
        let decision = Decision {
            transaction_id: Cow::Borrowed(&transaction.transaction_id),
            user_id: Cow::Borrowed(&transaction.user_id),
            fraud_score: self.score,
            fraud_indicators: self.indicators.clone(),
            status: self.status,
            processed_at,
            contributions: self.contributions.clone(),
            ruleset_version: Cow::Borrowed(ruleset_version),
            late: self.late,
            duplicate: self.duplicate,
            conflict: self.conflict,
            tenant: tenant.given().map(Cow::Borrowed),
            traceparent: traceparent
                .as_ref()
                .and_then(|text| std::str::from_utf8(text).ok())
                .map(Cow::Borrowed),
            transaction: RawValue::NULL,
        };
        decision.write_around(&transaction.one_line(), out);
    }
}
