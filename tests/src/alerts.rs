//! Alerts as the scorer writes them, without a scorer: for tests of what comes behind it.

use rdkafka::producer::{BaseRecord, Producer as _};
use serde_json::json;

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

/// Writes alerts to their topic.
///
/// # Errors
/// Where the log does not take them.
pub fn write(log: &TestLog, alerts: &[String]) -> anyhow::Result<()> {
    let producer: rdkafka::producer::ThreadedProducer<rdkafka::producer::DefaultProducerContext> =
        log.client().create()?;
    for alert in alerts {
        let record = BaseRecord::to(&log.topics().alerts).key("u").payload(alert);
        producer.send(record).map_err(|(error, _)| error)?;
    }
    producer.flush(std::time::Duration::from_secs(20))?;
    Ok(())
}
