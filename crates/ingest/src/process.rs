//! Ingest as a process of its own: the program `tollgate-ingest`, and `tollgate ingest`.

use tollgate_log::{KafkaConfig, Log};
#[cfg(feature = "oci")]
use tollgate_oci::Cloud;
use tollgate_service::Shutdown;
use tollgate_service::cli::{ServiceArgs, run_service};
#[cfg(not(feature = "oci"))]
use tollgate_service::cloud::NoCloud as Cloud;
use tollgate_service::http::TlsConfig;
use tollgate_service::telemetry::TelemetryConfig;
use tollgate_types::MAX_TRANSACTION_BYTES;

use crate::IngestConfig;

/// The sections that the process reads.
#[derive(serde::Serialize)]
struct Config {
    kafka: KafkaConfig,
    ingest: IngestConfig,
    telemetry: TelemetryConfig,
    tls: TlsConfig,
}

/// What ingest has to know of the section `scorer`, where both are configured in one place.
#[derive(serde::Serialize, serde::Deserialize)]
#[serde(default)]
struct ScorerLimits {
    max_transaction_bytes: usize,
}

impl Default for ScorerLimits {
    fn default() -> Self {
        Self {
            max_transaction_bytes: MAX_TRANSACTION_BYTES,
        }
    }
}

/// Runs the service until SIGTERM, or prints its settings.
///
/// # Errors
/// Names the setting at fault, or what ended the service.
pub fn run_process(args: &ServiceArgs) -> anyhow::Result<()> {
    run_service(
        "ingest",
        args,
        |settings| {
            let kafka: KafkaConfig = settings.section("kafka")?;
            let tls = TlsConfig::read(settings)?;
            let ingest = IngestConfig {
                tls: tls.clone(),
                ..settings.section("ingest")?
            };
            let scorer: ScorerLimits = settings.section("scorer")?;
            kafka.validate_for_service()?;
            ingest.validate(&kafka)?;
            ingest.validate_scored_size(scorer.max_transaction_bytes)?;
            Ok(Config {
                kafka,
                ingest,
                telemetry: settings.section("telemetry")?,
                tls,
            })
        },
        |config, _: Cloud| async {
            let kafka = Log::open_for_service(config.kafka)?;
            crate::run(config.ingest, kafka, Shutdown::on_signal()).await
        },
    )
}
