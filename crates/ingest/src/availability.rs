//! Watches whether the log can be written to, so that a service without one says so, and turns callers away at once.
//!
//! What is accepted does not rest on this: a 202 rests on acknowledgements alone.

use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use tollgate_log::{Kafka, Quiet};
use tollgate_service::Shutdown;
use tollgate_service::health::Health;
use tollgate_service::http::Problem;

/// The component that `/readyz` names.
pub(crate) const COMPONENT: &str = "log";
/// How long the log may take to answer.
const ASK: Duration = Duration::from_secs(2);
/// Time between two questions, while it answers …
const INTERVAL: Duration = Duration::from_secs(2);
/// … and while it does not.
const INTERVAL_DOWN: Duration = Duration::from_millis(500);
/// When callers are to come again.
const RETRY: Duration = Duration::from_secs(2);
/// A log that answered is down after so many questions without an answer: one may be lost.
const MISSES: u32 = 2;

/// Asks for the topic again and again, until the shutdown.
pub(crate) async fn watch(kafka: Kafka, health: Health, shutdown: Shutdown) -> anyhow::Result<()> {
    let client: Arc<BaseConsumer<Quiet>> =
        Arc::new(kafka.client_config().create_with_context(Quiet)?);
    let mut misses = MISSES;
    while !shutdown.is_begun() {
        let (asked, topic) = (Arc::clone(&client), kafka.topics().transactions.clone());
        let state = tokio::task::spawn_blocking(move || ask(&asked, &topic)).await?;
        match state {
            Ok(None) => {
                misses = 0;
                health.ready(COMPONENT);
            }
            Ok(Some(reason)) => health.not_ready(COMPONENT, reason),
            Err(error) => {
                misses = misses.saturating_add(1);
                if misses >= MISSES {
                    let reason = format!("no broker at {} answers: {error}", kafka.brokers());
                    health.not_ready(COMPONENT, reason);
                }
            }
        }
        let interval = if misses == 0 { INTERVAL } else { INTERVAL_DOWN };
        tokio::select! {
            () = tokio::time::sleep(interval) => {}
            () = shutdown.begun() => {}
        }
    }
    Ok(())
}

/// Why the topic cannot be written to; none where it can.
fn ask(
    client: &BaseConsumer<Quiet>,
    topic: &str,
) -> Result<Option<String>, rdkafka::error::KafkaError> {
    let metadata = client.fetch_metadata(Some(topic), ASK)?;
    let exists = metadata
        .topics()
        .iter()
        .any(|found| found.error().is_none() && !found.partitions().is_empty());
    Ok((!exists)
        .then(|| format!("topic {topic} does not exist; `tollgate topics create` makes it")))
}

/// Turns a caller away while the log cannot be written to.
pub(crate) fn require_log(health: &Health) -> Result<(), Problem> {
    match health.reasons().remove(COMPONENT) {
        None => Ok(()),
        Some(reason) => {
            metrics::counter!("tollgate_ingest_shed_total", "reason" => "log").increment(1);
            // The reason may name hosts that are no business of a caller.
            tracing::debug!(reason, "a request is turned away");
            let problem = Problem::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "the log cannot be written to; nothing of this request was taken",
            );
            Err(problem.retry_after(RETRY))
        }
    }
}
