//! Watches whether the log can be written to. While it cannot, the service is not ready and rejects requests at once.
//!
//! Acceptance does not depend on this: a 202 depends on acknowledgements alone.

use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use tollgate_log::{Log, LogError};
use tollgate_service::Shutdown;
use tollgate_service::health::Health;
use tollgate_service::http::Problem;

/// The component that `/readyz` names.
pub(crate) const COMPONENT: &str = "log";
/// How long the log may take to answer.
const TIMEOUT: Duration = Duration::from_secs(2);
/// Time between two look-ups, while it answers …
const INTERVAL: Duration = Duration::from_secs(2);
/// … and while it does not.
const INTERVAL_DOWN: Duration = Duration::from_millis(500);
/// When callers are to try again.
const RETRY: Duration = Duration::from_secs(2);
/// A log that answered counts as unavailable after this number of look-ups without an answer: one may be lost.
const MISSES: u32 = 2;

/// Looks the topic up again and again, until the shutdown.
pub(crate) async fn watch(log: Log, health: Health, shutdown: Shutdown) -> anyhow::Result<()> {
    let lookup = Arc::new(log.topic_lookup()?);
    let mut misses = MISSES;
    while !shutdown.is_begun() {
        let (lookup, topic) = (Arc::clone(&lookup), log.topics().transactions.clone());
        let counts =
            tokio::task::spawn_blocking(move || lookup.partition_counts(&[&topic], TIMEOUT));
        match counts.await? {
            Ok(counts) if counts.is_empty() => {
                let missing = LogError::NoTopic(log.topics().transactions.clone());
                health.not_ready(COMPONENT, missing.to_string());
            }
            Ok(_) => {
                misses = 0;
                health.ready(COMPONENT);
            }
            Err(error) => {
                misses = misses.saturating_add(1);
                if misses >= MISSES {
                    health.not_ready(COMPONENT, error.to_string());
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

/// Rejects a request while the log cannot be written to.
pub(crate) fn require_log(health: &Health) -> Result<(), Problem> {
    match health.reasons().remove(COMPONENT) {
        None => Ok(()),
        Some(reason) => {
            metrics::counter!("tollgate_ingest_shed_total", "reason" => "log").increment(1);
            // The reason may name hosts, which callers must not learn.
            tracing::debug!(reason, "a request is rejected");
            let problem = Problem::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "the log cannot be written to; nothing of this request was accepted",
            );
            Err(problem.retry_after(RETRY))
        }
    }
}
