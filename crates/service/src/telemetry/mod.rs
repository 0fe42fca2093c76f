//! What a process tells of itself: logs on standard error, metrics at `/metrics`, and with an OTLP endpoint traces,
//! metrics and logs there.
//!
//! Invariants: no log line, metric or span holds an amount, a location or card data, and users stand in them as keyed
//! hashes, unless a setting says otherwise. Telemetry never makes a payment wait: every queue is bounded, and what does not fit is counted and gone.

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

/// How long what is still to be sent may take when the process ends.
const FAREWELL: Duration = Duration::from_secs(3);
/// Histograms keep every value until they are summed up.
const UPKEEP: Duration = Duration::from_secs(5);

/// The telemetry of a process that runs services.
#[derive(Debug)]
pub struct Telemetry {
    otlp: Option<otlp::Otlp>,
    upkeep: tokio::task::JoinHandle<()>,
}

impl Telemetry {
    /// Starts telling. `service` names the process where neither `OTEL_SERVICE_NAME` nor `OTEL_RESOURCE_ATTRIBUTES`
    /// does.
    ///
    /// # Errors
    /// Names the setting at fault.
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

    /// Sends what is still to be sent, and does not take long over it.
    pub async fn stop(self) {
        self.upkeep.abort();
        if let Some(otlp) = self.otlp {
            otlp.stop(FAREWELL).await;
        }
    }
}
