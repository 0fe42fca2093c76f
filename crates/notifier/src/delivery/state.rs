//! Whether a sink takes alerts, and its metrics.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};
use tokio::sync::Notify;

/// State of one sink, shared by its deliveries.
pub(crate) struct SinkState {
    name: String,
    attempts_before_down: u32,
    /// Failed attempts since the last answer.
    failures: AtomicU32,
    recovered: Notify,
    up: Gauge,
    retries: Counter,
    duration: Histogram,
    pub(crate) delivered: Counter,
    pub(crate) known: Counter,
    pub(crate) refused: Counter,
    /// Alerts that wait in the sink's queue.
    pub(crate) queued: Gauge,
}

impl SinkState {
    pub(crate) fn new(name: &str, attempts_before_down: u32) -> Self {
        let sink = name.to_owned();
        let outcome = |outcome: &'static str| counter!("tollgate_notifier_alerts_total", "sink" => sink.clone(), "outcome" => outcome);
        let state = Self {
            name: name.to_owned(),
            attempts_before_down,
            failures: AtomicU32::new(0),
            recovered: Notify::new(),
            up: gauge!("tollgate_notifier_sink_up", "sink" => sink.clone()),
            retries: counter!("tollgate_notifier_retries_total", "sink" => sink.clone()),
            duration: histogram!("tollgate_notifier_delivery_duration_seconds", "sink" => sink.clone()),
            delivered: outcome("delivered"),
            known: outcome("known"),
            refused: outcome("refused"),
            queued: gauge!("tollgate_notifier_queued_alerts", "sink" => sink.clone()),
        };
        state.up.set(1.0);
        state.queued.set(0.0);
        state
    }

    pub(crate) fn is_down(&self) -> bool {
        self.failures.load(Ordering::Relaxed) >= self.attempts_before_down
    }

    /// The sink has answered, whatever it said.
    pub(crate) fn answered(&self) {
        if self.failures.swap(0, Ordering::Relaxed) >= self.attempts_before_down {
            tracing::info!(sink = self.name, "the sink takes alerts again");
            self.up.set(1.0);
            self.recovered.notify_waiters();
        }
    }

    /// An attempt has failed, and will be made again.
    pub(crate) fn failed(&self, reason: &str) {
        self.retries.increment(1);
        let before = self.failures.fetch_add(1, Ordering::Relaxed);
        if before.saturating_add(1) == self.attempts_before_down {
            tracing::warn!(
                sink = self.name,
                reason,
                "the sink takes no alerts; they wait in the log"
            );
            self.up.set(0.0);
        } else {
            tracing::debug!(sink = self.name, reason, "an attempt has failed");
        }
    }

    /// The sink has an alert, so long after the first attempt.
    pub(crate) fn delivered_after(&self, time: Duration) {
        self.duration.record(time);
        self.delivered.increment(1);
    }

    /// Waits until a sink that was down answers.
    pub(crate) async fn recovered(&self) {
        self.recovered.notified().await;
    }
}
