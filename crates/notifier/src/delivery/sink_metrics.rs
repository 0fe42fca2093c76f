//! The metrics of a sink. Its health is the state of its circuit.

use std::time::Duration;

use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};

use crate::alert::Alert;

/// Metrics of one sink, shared by its deliveries.
pub(crate) struct SinkMetrics {
    duration: Histogram,
    from_decision: Histogram,
    from_event: Histogram,
    message: Histogram,
    delivered: Counter,
    pub(crate) known: Counter,
    pub(crate) refused: Counter,
    /// Alerts in the queue of the sink.
    pub(crate) queued: Gauge,
}

impl SinkMetrics {
    pub(crate) fn new(name: &str) -> Self {
        let sink = name.to_owned();
        let outcome = |outcome: &'static str| counter!("tollgate_notifier_alerts_total", "sink" => sink.clone(), "outcome" => outcome);
        let metrics = Self {
            duration: histogram!("tollgate_notifier_delivery_duration_seconds", "sink" => sink.clone()),
            from_decision: histogram!("tollgate_notifier_decision_to_alert_seconds", "sink" => sink.clone()),
            from_event: histogram!("tollgate_notifier_event_to_alert_seconds", "sink" => sink.clone()),
            message: histogram!("tollgate_notifier_message_alerts", "sink" => sink.clone()),
            delivered: outcome("delivered"),
            known: outcome("known"),
            refused: outcome("refused"),
            queued: gauge!("tollgate_notifier_queued_alerts", "sink" => sink.clone()),
        };
        metrics.queued.set(0.0);
        metrics
    }

    /// Records a delivered message: `time` since the first attempt.
    pub(crate) fn delivered_after<'a>(
        &self,
        time: Duration,
        alerts: impl ExactSizeIterator<Item = &'a Alert>,
    ) {
        let number = alerts.len();
        self.duration.record_many(time, number);
        self.delivered.increment(number as u64);
        self.message
            .record(u32::try_from(number).unwrap_or(u32::MAX));
        let now = tollgate_service::now();
        for alert in alerts {
            self.from_decision.record(seconds(now - alert.processed_at));
            self.from_event.record(seconds(now - alert.event_time));
        }
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a duration in seconds is a float"
)]
fn seconds(micros: i64) -> f64 {
    micros.max(0) as f64 / 1e6
}
