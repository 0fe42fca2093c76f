//! A decision: score, reasons and status for one transaction, with the transaction in it.

use std::borrow::Cow;
use std::fmt;

use serde::de::Error as _;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{Contributions, Indicators, Timestamp, TraceContext};

/// What is done with a transaction; the mildest is the least.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Let through.
    Approved,
    /// Held until a person has looked at it.
    Review,
    /// Stopped.
    Blocked,
}

impl Status {
    /// Every status, mildest first.
    pub const ALL: [Self; 3] = [Self::Approved, Self::Review, Self::Blocked];

    /// The name it has in JSON, metrics and the store.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Approved => "approved",
            Self::Review => "review",
            Self::Blocked => "blocked",
        }
    }

    /// The status of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.name() == name)
    }

    /// Whether a decision of this status is an alert.
    #[must_use]
    pub const fn is_alert(self) -> bool {
        matches!(self, Self::Review | Self::Blocked)
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What was decided on a transaction, and why. An alert is a decision whose status [is one](Status::is_alert).
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Decision<'a> {
    /// The transaction's id, unique within the user.
    #[serde(borrow)]
    pub transaction_id: Cow<'a, str>,
    /// The key of the stream.
    #[serde(borrow)]
    pub user_id: Cow<'a, str>,
    /// The sum of the contributions' points.
    pub fraud_score: f64,
    /// Which indicators fired.
    pub fraud_indicators: Indicators,
    /// What is done with the transaction.
    pub status: Status,
    /// When the scorer decided. A replay changes this member only.
    pub processed_at: Timestamp,
    /// Points and measured values; may be missing in a duplicate's decision.
    #[serde(default)]
    pub contributions: Contributions,
    /// Fingerprint of the rules in force.
    #[serde(borrow)]
    pub ruleset_version: Cow<'a, str>,
    /// The transaction was older than the history that it was scored against.
    #[serde(default)]
    pub late: bool,
    /// The transaction had been decided on before; this is that decision again.
    #[serde(default)]
    pub duplicate: bool,
    /// The transaction id had been used for another amount; this is the decision on the second payment.
    #[serde(default, skip_serializing_if = "is_false")]
    pub conflict: bool,
    /// Namespace of the user; absent for the default tenant.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<Cow<'a, str>>,
    /// W3C trace context of the scoring, for a reader whose log drops headers.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<Cow<'a, str>>,
    /// The transaction as its producer wrote it, without card data.
    #[serde(borrow)]
    pub transaction: &'a RawValue,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes a reference"
)]
const fn is_false(value: &bool) -> bool {
    !*value
}

impl<'a> Decision<'a> {
    /// Reads a decision that the scorer wrote.
    ///
    /// # Errors
    /// Where the text is no decision.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, serde_json::Error> {
        let text = std::str::from_utf8(bytes).map_err(serde_json::Error::custom)?;
        serde_json::from_str(text)
    }

    /// The trace that the decision is part of.
    #[must_use]
    pub fn trace(&self) -> Option<TraceContext> {
        TraceContext::parse(self.traceparent.as_deref()?.as_bytes())
    }

    /// Appends the decision as JSON on one line.
    pub fn write_to(&self, out: &mut Vec<u8>) {
        // Writing to memory cannot fail, and every member serialises.
        let _ = serde_json::to_writer(out, self);
    }

    /// As [`Decision::write_to`], but with this text for the transaction, which is not parsed again. It must be JSON on
    /// one line, as [`Transaction::one_line`](crate::Transaction::one_line) returns it.
    pub fn write_around(mut self, transaction: &str, out: &mut Vec<u8>) {
        self.transaction = RawValue::NULL;
        self.write_to(out);
        // The transaction is the last member.
        out.truncate(out.len() - "null}".len());
        out.extend_from_slice(transaction.as_bytes());
        out.push(b'}');
    }
}
