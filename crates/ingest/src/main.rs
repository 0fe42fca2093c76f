//! The service `tollgate-ingest`.

use tollgate_ingest::IngestConfig;
use tollgate_log::{Kafka, KafkaConfig};
#[cfg(feature = "oci")]
use tollgate_oci::Cloud;
use tollgate_service::Shutdown;
use tollgate_service::cli::run_service;
#[cfg(not(feature = "oci"))]
use tollgate_service::cloud::NoCloud as Cloud;
use tollgate_service::telemetry::TelemetryConfig;

#[derive(serde::Serialize)]
struct Config {
    kafka: KafkaConfig,
    ingest: IngestConfig,
    telemetry: TelemetryConfig,
}

fn main() -> anyhow::Result<()> {
    run_service(
        "ingest",
        |settings| {
            let kafka: KafkaConfig = settings.section("kafka")?;
            let ingest: IngestConfig = settings.section("ingest")?;
            kafka.validate()?;
            ingest.validate(&kafka)?;
            Ok(Config {
                kafka,
                ingest,
                telemetry: settings.section("telemetry")?,
            })
        },
        |config, _: Cloud| async {
            let kafka = Kafka::open_cluster(config.kafka)?;
            tollgate_ingest::run(config.ingest, kafka, Shutdown::on_signal()).await
        },
    )
}
