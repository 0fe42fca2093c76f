//! An alert as the sinks get it: checked once, its own text kept.

use std::borrow::Cow;
use std::fmt;

use sha2::{Digest, Sha256};
use tollgate_log::Record;
use tollgate_types::{
    Decision, Indicators, MAX_ID_BYTES, Status, Timestamp, TraceContext, Transaction,
};

/// What makes an alert the same alert: the delivery log's key, beside the sink.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct AlertKey {
    /// The transaction's user.
    pub user_id: String,
    /// The transaction, unique within the user.
    pub transaction_id: String,
}

impl fmt::Debug for AlertKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.user_id, self.transaction_id)
    }
}

impl AlertKey {
    /// Names the alert to the outside: the same for every attempt and every redelivery, so that a receiver can tell
    /// them. It holds no full stop, which Standard Webhooks' signed text is cut by.
    #[must_use]
    pub fn message_id(&self) -> String {
        let mut hash = Sha256::new();
        // The length keeps ("ab", "c") and ("a", "bc") apart.
        hash.update((self.user_id.len() as u64).to_le_bytes());
        hash.update(&self.user_id);
        hash.update(&self.transaction_id);
        format!("alert_{}", hex(&hash.finalize()[..16]))
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A decision that somebody must be told of.
#[derive(Debug, Clone)]
pub struct Alert {
    /// Whose transaction, and which.
    pub key: AlertKey,
    /// `review` or `blocked`.
    pub status: Status,
    /// The score.
    pub fraud_score: f64,
    /// Why.
    pub fraud_indicators: Indicators,
    /// When the scorer decided.
    pub processed_at: Timestamp,
    /// The decision as the scorer wrote it, on one line.
    pub json: Box<str>,
    /// When the payment was made.
    pub event_time: Timestamp,
    /// The trace that the record is part of, passed on to receivers.
    pub trace: Option<TraceContext>,
}

impl Alert {
    /// Reads a record of the topic `alerts`.
    ///
    /// # Errors
    /// Why it is no alert, without any of its values.
    pub(crate) fn parse(record: &Record<'_>) -> Result<Self, String> {
        let text = std::str::from_utf8(record.payload)
            .map_err(|_| "the record is not UTF-8".to_owned())?;
        let decision = Decision::parse(text.as_bytes())
            .map_err(|error| format!("the record is no decision: {}", without_values(&error)))?;
        if !decision.status.is_alert() {
            return Err("a decision of status approved is no alert".to_owned());
        }
        let id = |name: &str, value: Cow<'_, str>| {
            // What the scorer writes keeps to this; the delivery log relies on it.
            if value.is_empty() || value.len() > MAX_ID_BYTES || value.contains('\0') {
                return Err(format!(
                    "{name}: must be 1 to {MAX_ID_BYTES} bytes without U+0000"
                ));
            }
            Ok(value.into_owned())
        };
        // One that is no transaction any more is told all the same, and counts as made when it was decided on.
        let transaction = Transaction::parse(decision.transaction.get().as_bytes());
        let (event_time, first) = transaction.map_or((decision.processed_at, None), |made| {
            (made.timestamp, made.trace())
        });
        let trace = record.trace().or_else(|| decision.trace()).or(first);
        Ok(Self {
            key: AlertKey {
                user_id: id("user_id", decision.user_id)?,
                transaction_id: id("transaction_id", decision.transaction_id)?,
            },
            status: decision.status,
            fraud_score: decision.fraud_score,
            fraud_indicators: decision.fraud_indicators,
            processed_at: decision.processed_at,
            // Strings cannot hold these raw, so all of them are white space.
            json: text.trim().replace(['\n', '\r'], "").into(),
            event_time,
            trace,
        })
    }
}

/// The place and kind of a JSON error; its text may quote a value, which may be card data.
fn without_values(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let kind = match error.classify() {
        serde_json::error::Category::Data if text.starts_with("missing field") => text
            .split(" at line ")
            .next()
            .unwrap_or("a member is missing")
            .to_owned(),
        serde_json::error::Category::Data => "a member does not fit".to_owned(),
        serde_json::error::Category::Eof => "the JSON ends too early".to_owned(),
        serde_json::error::Category::Syntax | serde_json::error::Category::Io => {
            "malformed JSON".to_owned()
        }
    };
    format!("{kind} at line {} column {}", error.line(), error.column())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(user: &str, transaction: &str) -> String {
        AlertKey {
            user_id: user.into(),
            transaction_id: transaction.into(),
        }
        .message_id()
    }

    #[test]
    fn a_message_id_is_stable_and_tells_alerts_apart() {
        assert_eq!(id("u", "t"), id("u", "t"));
        assert_ne!(id("ab", "c"), id("a", "bc"));
        assert!(!id("u.1", "t.2").contains('.'));
    }
}
