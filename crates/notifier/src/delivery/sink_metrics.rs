//! A sink's metrics; what is known of its health is its circuit.

use std::time::Duration;

use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};

/// Metrics of one sink, shared by its deliveries.
pub(crate) struct SinkMetrics {
    duration: Histogram,
    delivered: Counter,
    pub(crate) known: Counter,
    pub(crate) refused: Counter,
    /// Alerts that wait in the sink's queue.
    pub(crate) queued: Gauge,
}

impl SinkMetrics {
    pub(crate) fn new(name: &str) -> Self {
        let sink = name.to_owned();
        let outcome = |outcome: &'static str| counter!("tollgate_notifier_alerts_total", "sink" => sink.clone(), "outcome" => outcome);
        let metrics = Self {
            duration: histogram!("tollgate_notifier_delivery_duration_seconds", "sink" => sink.clone()),
            delivered: outcome("delivered"),
            known: outcome("known"),
            refused: outcome("refused"),
            queued: gauge!("tollgate_notifier_queued_alerts", "sink" => sink.clone()),
        };
        metrics.queued.set(0.0);
        metrics
    }

    /// The sink has so many alerts, so long after the first attempt.
    pub(crate) fn delivered_after(&self, time: Duration, alerts: usize) {
        self.duration.record_many(time, alerts);
        self.delivered.increment(alerts as u64);
    }
}
