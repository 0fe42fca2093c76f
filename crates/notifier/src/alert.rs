//! An alert as the sinks receive it: checked once, with its own text.

use std::borrow::Cow;
use std::fmt;

use data_encoding::HEXLOWER;
use sha2::{Digest, Sha256};
use tollgate_log::Record;
use tollgate_types::{
    Decision, Indicators, JsonError, MAX_ID_BYTES, Status, Tenant, Timestamp, TraceContext,
    Transaction,
};

/// The identity of an alert: with the sink, the key of the delivery log.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct AlertKey {
    /// The transaction's user.
    pub user_id: String,
    /// The transaction, unique within the user.
    pub transaction_id: String,
    /// The user's tenant; empty for the default tenant.
    pub tenant: String,
    /// The amount of a transaction whose id had been used for another one; empty for the first.
    pub conflict_amount: String,
}

impl fmt::Debug for AlertKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.user_id, self.transaction_id)
    }
}

impl AlertKey {
    /// The id of the message to a receiver. It is the same for every attempt and every redelivery, so that a receiver can
    /// discard repetitions. It contains no full stop, which separates the parts of the signed text of Standard Webhooks.
    #[must_use]
    pub fn message_id(&self) -> String {
        let mut hash = Sha256::new();
        // The length keeps ("ab", "c") and ("a", "bc") apart.
        hash.update((self.user_id.len() as u64).to_le_bytes());
        hash.update(&self.user_id);
        hash.update(&self.transaction_id);
        // The default tenant's first alerts keep the ids that they always had. No id contains U+0000.
        if !self.tenant.is_empty() || !self.conflict_amount.is_empty() {
            hash.update(format!("\0{}\0{}", self.tenant, self.conflict_amount));
        }
        format!("alert_{}", HEXLOWER.encode(&hash.finalize()[..16]))
    }
}

/// A decision whose status is `review` or `blocked`.
#[derive(Debug, Clone)]
pub struct Alert {
    /// The user and the transaction.
    pub key: AlertKey,
    /// `review` or `blocked`.
    pub status: Status,
    /// The score.
    pub fraud_score: f64,
    /// The indicators behind the score.
    pub fraud_indicators: Indicators,
    /// The time of the decision.
    pub processed_at: Timestamp,
    /// The decision as the scorer wrote it, on one line.
    pub json: Box<str>,
    /// The time of the payment.
    pub event_time: Timestamp,
    /// The trace of the record, propagated to receivers.
    pub trace: Option<TraceContext>,
}

impl Alert {
    /// Reads a record of the topic `alerts`.
    ///
    /// # Errors
    /// Why it is no alert. The text holds none of its values.
    pub(crate) fn parse(record: &Record<'_>) -> Result<Self, String> {
        let text = std::str::from_utf8(record.payload)
            .map_err(|_| "the record is not UTF-8".to_owned())?;
        let decision = Decision::parse(text.as_bytes())
            .map_err(|error| format!("the record is no decision: {}", JsonError::from(&error)))?;
        if !decision.status.is_alert() {
            return Err("a decision of status approved is no alert".to_owned());
        }
        let id = |name: &str, value: Cow<'_, str>| {
            // The scorer writes no other ids; the delivery log relies on it.
            if value.is_empty() || value.len() > MAX_ID_BYTES || value.contains('\0') {
                return Err(format!(
                    "{name}: must be 1 to {MAX_ID_BYTES} bytes without U+0000"
                ));
            }
            Ok(value.into_owned())
        };
        // An alert whose transaction cannot be read is delivered regardless; its event time is that of the decision.
        let transaction = Transaction::parse(decision.transaction.get().as_bytes());
        let conflict_amount = match &transaction {
            Ok(made) if decision.conflict => made.amount_and_currency(),
            _ => String::new(),
        };
        let (event_time, first) = transaction.map_or((decision.processed_at, None), |made| {
            (made.timestamp, made.trace())
        });
        let tenant = Tenant::from_member(decision.tenant.as_deref())
            .map_err(|error| format!("tenant: {error}"))?;
        let trace = record.trace().or_else(|| decision.trace()).or(first);
        Ok(Self {
            key: AlertKey {
                user_id: id("user_id", decision.user_id)?,
                tenant: tenant.name().to_owned(),
                conflict_amount,
                transaction_id: id("transaction_id", decision.transaction_id)?,
            },
            status: decision.status,
            fraud_score: decision.fraud_score,
            fraud_indicators: decision.fraud_indicators,
            processed_at: decision.processed_at,
            // JSON strings cannot contain these unescaped, so that all of them are white space.
            json: text.trim().replace(['\n', '\r'], "").into(),
            event_time,
            trace,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(user: &str, transaction: &str) -> String {
        AlertKey {
            user_id: user.into(),
            transaction_id: transaction.into(),
            ..AlertKey::default()
        }
        .message_id()
    }

    #[test]
    fn a_message_id_is_stable_and_tells_alerts_apart() {
        assert_eq!(id("u", "t"), id("u", "t"));
        assert_ne!(id("ab", "c"), id("a", "bc"));
        assert!(!id("u.1", "t.2").contains('.'));
        let of = |tenant: &str, amount: &str| {
            let key = AlertKey {
                user_id: "u".into(),
                transaction_id: "t".into(),
                tenant: tenant.into(),
                conflict_amount: amount.into(),
            };
            key.message_id()
        };
        let ids = [
            of("", ""),
            of("a", ""),
            of("", "5"),
            of("a", "5"),
            of("b", ""),
        ];
        assert_eq!(ids[0], id("u", "t"));
        for (index, one) in ids.iter().enumerate() {
            assert!(!ids[..index].contains(one));
        }
    }
}
