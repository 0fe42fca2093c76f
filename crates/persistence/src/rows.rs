//! Converts a decision to rows of the two tables, and back. Pure.
//!
//! Invariant: a decision is read back as it was written, to the last bit of the score and the last byte of the transaction.

use std::borrow::Cow;
use std::error::Error;

use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::value::RawValue;
use tollgate_types::{
    Amount, Contributions, Decision, Indicator, Indicators, JsonError, Status, Tenant, Timestamp,
    TraceContext, Transaction,
};

use crate::queryable::queryable;

/// One decision to write.
#[derive(Debug)]
pub(crate) struct Row<'a> {
    pub(crate) user_id: Cow<'a, str>,
    pub(crate) transaction_id: Cow<'a, str>,
    /// Empty for the default tenant.
    pub(crate) tenant: Cow<'a, str>,
    /// The amount, as canonical text with the code of its currency if it has one, of a transaction whose id had been used for another amount. Empty for the first.
    pub(crate) conflict_amount: String,
    pub(crate) amount: Amount,
    pub(crate) event_time: Timestamp,
    /// The text of the transaction, as every JSON function can read it.
    pub(crate) body: Cow<'a, str>,
    /// The producer's text, where it is another one.
    pub(crate) original: Option<&'a str>,
    pub(crate) fraud_score: f64,
    pub(crate) status: Status,
    /// Joined by commas.
    pub(crate) fraud_indicators: String,
    pub(crate) processed_at: Timestamp,
    pub(crate) ruleset_version: Cow<'a, str>,
    pub(crate) late: bool,
    /// As JSON.
    pub(crate) contributions: String,
    /// The trace of the decision, for records without trace headers. Not stored.
    pub(crate) trace: Option<TraceContext>,
}

impl<'a> Row<'a> {
    /// Reads a record of the topic `decisions`.
    ///
    /// # Errors
    /// Why it is no decision. The text holds none of its values: they may be card data.
    pub(crate) fn read(payload: &'a [u8]) -> Result<Self, String> {
        let mut decision = Decision::parse(payload)
            .map_err(|error| format!("no decision: {}", JsonError::from(&error)))?;
        let text = decision.transaction.get();
        let transaction = Transaction::parse(text.as_bytes()).map_err(|rejection| {
            // Behind a colon the reason may quote what was found.
            let reason = rejection.reason.split(": ").next().unwrap_or_default();
            format!("the decision's transaction: {} {reason}", rejection.field)
        })?;
        if transaction.user_id != decision.user_id
            || transaction.transaction_id != decision.transaction_id
        {
            return Err("the decision and its transaction disagree about the ids".to_owned());
        }
        let tenant = decision.tenant.take().unwrap_or_default();
        if !tenant.is_empty() && Tenant::parse(&tenant).is_err() {
            return Err("tenant: not the name of a tenant".to_owned());
        }
        let conflict_amount = if decision.conflict {
            transaction.amount_and_currency()
        } else {
            String::new()
        };
        let body = queryable(text);
        Ok(Self {
            tenant,
            conflict_amount,
            original: matches!(body, Cow::Owned(_)).then_some(text),
            amount: transaction.amount,
            event_time: transaction.timestamp,
            body,
            fraud_score: decision.fraud_score,
            status: decision.status,
            fraud_indicators: join(&decision.fraud_indicators),
            processed_at: decision.processed_at,
            late: decision.late,
            trace: decision.trace().or_else(|| transaction.trace()),
            // Nothing in it can fail to serialise.
            contributions: serde_json::to_string(&decision.contributions).unwrap_or_default(),
            user_id: decision.user_id,
            transaction_id: decision.transaction_id,
            ruleset_version: decision.ruleset_version,
        })
    }

    /// What is stored once, in the order in which every replica writes.
    pub(crate) fn key(&self) -> (&str, &str, &str, &str) {
        (
            &self.user_id,
            &self.transaction_id,
            &self.tenant,
            &self.conflict_amount,
        )
    }
}

fn join(indicators: &Indicators) -> String {
    let names: Vec<&str> = indicators.iter().map(Indicator::name).collect();
    names.join(",")
}

/// The indicators in a joined text. A part that cannot be a name is ignored: no version writes one.
pub(crate) fn split(text: &str) -> Indicators {
    text.split(',')
        .filter_map(|name| Indicator::intern(name).ok())
        .collect()
}

/// A time for SQLite, of fixed width, so that texts sort like times.
pub(crate) fn fixed_width(time: Timestamp) -> String {
    utc(time).to_rfc3339_opts(SecondsFormat::Micros, true)
}

/// A time for the driver of PostgreSQL.
pub(crate) fn utc(time: Timestamp) -> DateTime<Utc> {
    // Every timestamp is within chrono's range.
    DateTime::from_timestamp_micros(time.micros()).unwrap_or_default()
}

/// A decision that was read back.
#[derive(Debug)]
pub(crate) struct StoredDecision {
    pub(crate) user_id: String,
    pub(crate) transaction_id: String,
    /// Empty for the default tenant.
    pub(crate) tenant: String,
    /// Empty for the first decision on the transaction.
    pub(crate) conflict_amount: String,
    pub(crate) event_time: Timestamp,
    fraud_score: f64,
    status: Status,
    fraud_indicators: Indicators,
    processed_at: Timestamp,
    ruleset_version: String,
    late: bool,
    contributions: Contributions,
    body: Box<RawValue>,
}

/// The columns of both tables, in the types that the stores share.
#[derive(Debug)]
pub(crate) struct Columns {
    pub(crate) user_id: String,
    pub(crate) transaction_id: String,
    pub(crate) tenant: String,
    pub(crate) conflict_amount: String,
    pub(crate) event_time: Timestamp,
    pub(crate) fraud_score: f64,
    pub(crate) status: String,
    pub(crate) fraud_indicators: String,
    pub(crate) processed_at: Timestamp,
    pub(crate) ruleset_version: String,
    pub(crate) late: bool,
    pub(crate) contributions: String,
    pub(crate) body: String,
}

impl StoredDecision {
    /// # Errors
    /// A column holds a value that this version never writes.
    pub(crate) fn new(columns: Columns) -> Result<Self, Box<dyn Error + Send + Sync>> {
        Ok(Self {
            status: Status::from_name(&columns.status).ok_or("unknown status")?,
            fraud_indicators: split(&columns.fraud_indicators),
            contributions: serde_json::from_str(&columns.contributions)?,
            body: RawValue::from_string(columns.body)?,
            user_id: columns.user_id,
            transaction_id: columns.transaction_id,
            tenant: columns.tenant,
            conflict_amount: columns.conflict_amount,
            event_time: columns.event_time,
            fraud_score: columns.fraud_score,
            processed_at: columns.processed_at,
            ruleset_version: columns.ruleset_version,
            late: columns.late,
        })
    }

    /// Bytes of the decision as JSON, about.
    pub(crate) fn size(&self) -> usize {
        // Names and numbers of the decision's own members.
        const MEMBERS: usize = 400;
        let contributions = 100 * self.fraud_indicators.iter().count();
        self.body.get().len() + contributions + MEMBERS
    }

    /// The decision as the scorer first wrote it.
    pub(crate) fn decision(&self) -> Decision<'_> {
        Decision {
            transaction_id: Cow::Borrowed(&self.transaction_id),
            user_id: Cow::Borrowed(&self.user_id),
            fraud_score: self.fraud_score,
            fraud_indicators: self.fraud_indicators.clone(),
            status: self.status,
            processed_at: self.processed_at,
            contributions: self.contributions.clone(),
            ruleset_version: Cow::Borrowed(&self.ruleset_version),
            late: self.late,
            // A row is the first decision on its transaction; later ones are the duplicates.
            duplicate: false,
            conflict: !self.conflict_amount.is_empty(),
            tenant: (!self.tenant.is_empty()).then_some(Cow::Borrowed(self.tenant.as_str())),
            // The trace of the scoring ended long ago.
            traceparent: None,
            transaction: &self.body,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRANSACTION: &str =
        r#"{"transaction_id":"t","user_id":"u","amount":12.5,"timestamp":"2026-03-01T00:00:00Z"}"#;

    fn decision(transaction: &str, status: &str) -> String {
        format!(
            r#"{{"transaction_id":"t","user_id":"u","fraud_score":40.1,"fraud_indicators":["high_amount","high_velocity"],"status":"{status}","processed_at":"2026-03-01T00:00:01Z","ruleset_version":"r","transaction":{transaction}}}"#
        )
    }

    #[test]
    fn indicators_are_joined_in_the_order_of_the_table() {
        let text = decision(TRANSACTION, "review");
        let row = Row::read(text.as_bytes()).unwrap();
        assert_eq!(row.fraud_indicators, "high_velocity,high_amount");
        assert_eq!(join(&split(&row.fraud_indicators)), row.fraud_indicators);
        assert_eq!(join(&split("")), "");
    }

    #[test]
    fn reasons_quote_nothing_of_what_was_read() {
        let other_user = TRANSACTION.replace("\"u\"", "\"4111111111111111\"");
        for payload in [
            decision(TRANSACTION, "4111111111111111"),
            decision(&other_user, "review"),
            decision("\"4111111111111111\"", "review"),
            "4111111111111111".to_owned(),
            "{\"4111111111111111".to_owned(),
        ] {
            let reason = Row::read(payload.as_bytes()).unwrap_err();
            assert!(!reason.contains("4111"), "{reason}");
        }
        let missing = Row::read(b"{}").unwrap_err();
        assert!(missing.contains("`transaction_id` is missing"), "{missing}");
    }

    #[test]
    fn times_of_one_width_sort_as_texts() {
        let times = [
            "0000-01-01T00:00:00Z",
            "1969-12-31T23:59:59.5Z",
            "9999-12-31T23:59:59.999999Z",
        ];
        let texts = times.map(|time| fixed_width(Timestamp::parse(time).unwrap()));
        assert!(texts.is_sorted());
        assert!(texts.iter().all(|text| text.len() == 27));
    }

    proptest::proptest! {
        #[test]
        fn no_record_panics(payload in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200)) {
            let _ = Row::read(&payload);
        }
    }
}
