//! The process's metrics: one recorder, read by `/metrics`, by OTLP and by OCI Monitoring alike.

use std::sync::OnceLock;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

/// Upper bounds in seconds for every histogram that measures time.
const SECONDS: &[f64] = &[
    0.000_1, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0,
    10.0, 30.0,
];
/// Upper bounds in seconds for durations below a microsecond.
const SHORT_SECONDS: &[f64] = &[
    0.000_000_1,
    0.000_000_25,
    0.000_000_5,
    0.000_001,
    0.000_002_5,
    0.000_005,
    0.000_01,
    0.000_025,
    0.000_05,
    0.000_1,
    0.001,
];
/// Upper bounds in seconds for durations since an event outside Tollgate, which may be long ago.
const LONG_SECONDS: &[f64] = &[
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1_800.0,
    21_600.0, 86_400.0,
];
/// Upper bounds for histograms that count records.
const RECORDS: &[f64] = &[1.0, 5.0, 10.0, 50.0, 100.0, 500.0, 1_000.0, 5_000.0];
/// Upper bounds for scores.
const SCORES: &[f64] = &[
    0.0, 10.0, 20.0, 30.0, 40.0, 50.0, 60.0, 70.0, 80.0, 100.0, 145.0,
];

static METRICS: OnceLock<PrometheusHandle> = OnceLock::new();

/// The metrics as `/metrics` shows them.
pub fn metrics_text() -> String {
    let handle = metrics_handle();
    handle.run_upkeep();
    handle.render()
}

/// The metrics of the process. Services in one process share them, and distinguish them by their names.
pub fn metrics_handle() -> &'static PrometheusHandle {
    METRICS.get_or_init(|| {
        // If several match, the full name takes precedence, then the longest suffix.
        let builder = [
            (
                Matcher::Full("tollgate_scorer_scoring_duration_seconds".to_owned()),
                SHORT_SECONDS,
            ),
            (
                Matcher::Full("tollgate_scorer_event_to_decision_seconds".to_owned()),
                LONG_SECONDS,
            ),
            (
                Matcher::Full("tollgate_notifier_event_to_alert_seconds".to_owned()),
                LONG_SECONDS,
            ),
            (Matcher::Suffix("_seconds".to_owned()), SECONDS),
            (Matcher::Suffix("_records".to_owned()), RECORDS),
            (Matcher::Suffix("_alerts".to_owned()), RECORDS),
            (Matcher::Suffix("_score".to_owned()), SCORES),
        ]
        .into_iter()
        .try_fold(PrometheusBuilder::new(), |builder, (matcher, bounds)| {
            builder.set_buckets_for_metric(matcher, bounds)
        })
        .unwrap_or_default();
        let recorder = builder.build_recorder();
        let handle = recorder.handle();
        // Fails only if another recorder is set: then that one is used, and this one stays empty.
        let _ = metrics::set_global_recorder(recorder);
        handle
    })
}
