//! The notifier as a process of its own.

use serde::Serialize;
use tollgate_log::{Kafka, KafkaConfig};
use tollgate_notifier::{Cloud, ConsoleOut, NotifierConfig};
use tollgate_service::Shutdown;
use tollgate_service::cli::run_service;
use tollgate_service::telemetry::TelemetryConfig;

#[derive(Serialize)]
struct ServiceConfig {
    kafka: KafkaConfig,
    notifier: NotifierConfig,
    telemetry: TelemetryConfig,
}

#[expect(
    clippy::print_stdout,
    reason = "whoever starts the process reads the address here"
)]
fn main() -> anyhow::Result<()> {
    run_service(
        "notifier",
        |settings| {
            let notifier: NotifierConfig = settings.section("notifier")?;
            notifier.validate()?;
            let kafka: KafkaConfig = settings.section("kafka")?;
            kafka.validate()?;
            Ok(ServiceConfig {
                kafka,
                telemetry: settings.section("telemetry")?,
                notifier,
            })
        },
        |config, cloud: Cloud| async move {
            let kafka = Kafka::open_cluster(config.kafka)?;
            let notifier = tollgate_notifier::start(
                config.notifier,
                kafka,
                Shutdown::on_signal(),
                ConsoleOut::stdout(),
                &cloud,
            )
            .await?;
            // It answers why the service is not ready, so it is told before that.
            println!("notifier admin: http://{}", notifier.admin_address);
            notifier.join().await
        },
    )
}
