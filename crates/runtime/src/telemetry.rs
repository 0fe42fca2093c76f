//! Logs as JSON lines on standard error, and metrics for `/metrics`.
//!
//! Invariant: no log line holds an amount, a location or card data; modules log ids of records, not their content.

use std::io::IsTerminal as _;
use std::sync::OnceLock;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use serde::{Deserialize, Serialize};
use tracing_subscriber::EnvFilter;

/// Section `telemetry` of the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TelemetryConfig {
    /// Log filter, such as `info` or `info,tollgate_scorer=debug`.
    pub log: String,
    /// How log lines look.
    pub log_format: LogFormat,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// One JSON object a line, for machines.
    Json,
    /// Plain lines, for a terminal.
    Text,
}

impl Default for TelemetryConfig {
    fn default() -> Self {
        Self {
            log: "info".to_owned(),
            log_format: LogFormat::Json,
        }
    }
}

/// Starts logging; a second call in one process changes nothing.
///
/// # Errors
/// Where the filter cannot be read.
pub fn init_logging(config: &TelemetryConfig) -> anyhow::Result<()> {
    let invalid = |reason: &str| {
        anyhow::anyhow!(
            "telemetry.log: {reason}; expected a filter such as info or info,tollgate_scorer=debug"
        )
    };
    // A bare word would pass for the name of a module.
    let levels = ["off", "error", "warn", "info", "debug", "trace"];
    let is_level = |word: &str| levels.contains(&word.trim().to_lowercase().as_str());
    for word in config
        .log
        .split(',')
        .filter(|word| !word.contains(['=', '[']))
    {
        if !is_level(word) {
            return Err(invalid(&format!("{word:?} is no level")));
        }
    }
    let filter = EnvFilter::try_new(&config.log).map_err(|error| invalid(&error.to_string()))?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    // Fails only where a subscriber is set already, as in tests that start several services.
    let _ = match config.log_format {
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
        LogFormat::Text => builder
            .with_target(false)
            .with_ansi(std::io::stderr().is_terminal())
            .try_init(),
    };
    Ok(())
}

/// Upper bounds in seconds for every histogram that measures time.
const SECONDS: &[f64] = &[
    0.000_1, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0,
    10.0, 30.0,
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

/// The process's metrics. Services in one process share them; their names tell them apart.
pub fn metrics_handle() -> &'static PrometheusHandle {
    METRICS.get_or_init(|| {
        let builder = [
            ("_seconds", SECONDS),
            ("_records", RECORDS),
            ("_score", SCORES),
        ]
        .into_iter()
        .try_fold(PrometheusBuilder::new(), |builder, (suffix, bounds)| {
            builder.set_buckets_for_metric(Matcher::Suffix(suffix.to_owned()), bounds)
        })
        .unwrap_or_default();
        let recorder = builder.build_recorder();
        let handle = recorder.handle();
        // Fails only where somebody else set a recorder: then theirs is used, and this one shows nothing.
        let _ = metrics::set_global_recorder(recorder);
        handle
    })
}
