//! Alerts as the scorer writes them, without a scorer: for tests of what comes behind it.

use serde_json::json;
use tollgate_log::{Acks, ProducerRecord};

use crate::kafka::TestLog;

/// An alert of the user `u`.
#[must_use]
pub fn alert(id: &str, status: &str, fraud_score: f64) -> String {
    let transaction = json!({
        "transaction_id": id, "user_id": "u", "amount": "4200", "timestamp": "2026-03-01T12:00:00Z",
    });
    json!({
        "transaction_id": id, "user_id": "u", "fraud_score": fraud_score, "fraud_indicators": ["high_amount"],
        "status": status, "processed_at": "2026-03-01T12:00:01Z", "contributions": [], "ruleset_version": "r",
        "late": false, "duplicate": false, "transaction": transaction,
    })
    .to_string()
}

/// Writes alerts to their topic, signed as the scorer signs them.
///
/// # Errors
/// Where the log does not take them.
pub fn write(log: &TestLog, alerts: &[String]) -> anyhow::Result<()> {
    let producer = log.producer()?;
    let (acks, acknowledged) = Acks::to_wait_for();
    for alert in alerts {
        let record = ProducerRecord::signed(&log.topics().alerts, b"u", alert.as_bytes());
        producer.send_waiting(&record, &acks, || false)?;
    }
    acks.seal();
    Ok(acknowledged.recv()??)
}
