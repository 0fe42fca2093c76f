//! Observability: logs on standard error, metrics at `/metrics`, and traces, metrics and logs to an OTLP endpoint.
//!
//! Invariants: no log line, metric or span contains an amount, a location or card data, and users are keyed hashes unless a
//! setting allows their ids. Telemetry never delays a payment: every queue is bounded, and items that do not fit are counted
//! and dropped.

mod config;
pub mod exposition;
mod headers;
mod logs;
mod metrics;
mod otlp;
mod resource;
pub mod trace;
mod user_hash;

use std::time::Duration;

pub use config::{LogFormat, OtlpProtocol, TelemetryConfig, UserIds};
pub use logs::{LogLevels, log_levels};
pub use metrics::{metrics_handle, metrics_text};
pub use user_hash::user_attribute;

/// Timeout of the last export when the process ends.
const LAST_EXPORT: Duration = Duration::from_secs(3);
/// Interval of the upkeep of histograms, which keep every value until then.
const UPKEEP: Duration = Duration::from_secs(5);

/// The telemetry of a process that runs services.
#[derive(Debug)]
pub struct Telemetry {
    otlp: Option<otlp::Otlp>,
    upkeep: tokio::task::JoinHandle<()>,
}

impl Telemetry {
    /// Starts logs, metrics and traces. `service` names the process unless `OTEL_SERVICE_NAME` or
    /// `OTEL_RESOURCE_ATTRIBUTES` do.
    ///
    /// # Errors
    /// Names the invalid setting.
    pub fn start(service: &str, config: &TelemetryConfig) -> anyhow::Result<Self> {
        metrics_handle();
        user_hash::configure(config.user_ids, config.user_key.expose());
        let targets = config.targets(&|name| std::env::var(name).ok())?;
        let otlp = match targets {
            Some(targets) => Some(otlp::Otlp::start(service, targets)?),
            None => None,
        };
        logs::start(config, otlp.as_ref())?;
        let upkeep = tokio::spawn(async {
            loop {
                tokio::time::sleep(UPKEEP).await;
                metrics_handle().run_upkeep();
            }
        });
        Ok(Self { otlp, upkeep })
    }

    /// Exports what is queued, within a short timeout.
    pub async fn stop(self) {
        self.upkeep.abort();
        if let Some(otlp) = self.otlp {
            otlp.stop(LAST_EXPORT).await;
        }
    }
}
