//! The notifier as a process of its own: the program `tollgate-notifier`, and `tollgate notifier`.

use serde::Serialize;
use tollgate_log::{KafkaConfig, Log};
use tollgate_service::Shutdown;
use tollgate_service::cli::{ServiceArgs, run_service};
use tollgate_service::http::TlsConfig;
use tollgate_service::telemetry::TelemetryConfig;

use crate::{Cloud, ConsoleOut, NotifierConfig};

/// The sections that the process reads.
#[derive(Serialize)]
struct ProcessConfig {
    kafka: KafkaConfig,
    notifier: NotifierConfig,
    telemetry: TelemetryConfig,
    tls: TlsConfig,
}

/// Runs the service until SIGTERM, or prints its settings.
///
/// # Errors
/// Names the setting at fault, or what ended the service.
#[expect(
    clippy::print_stdout,
    reason = "whoever starts the process reads the address here"
)]
pub fn run_process(args: &ServiceArgs) -> anyhow::Result<()> {
    run_service(
        "notifier",
        args,
        |settings| {
            let tls = TlsConfig::read(settings)?;
            let notifier = NotifierConfig {
                tls: tls.clone(),
                ..settings.section("notifier")?
            };
            notifier.validate()?;
            let kafka: KafkaConfig = settings.section("kafka")?;
            kafka.validate_for_service()?;
            Ok(ProcessConfig {
                kafka,
                telemetry: settings.section("telemetry")?,
                notifier,
                tls,
            })
        },
        |config, cloud: Cloud| async move {
            let kafka = Log::open_for_service(config.kafka)?;
            let notifier = crate::start(
                config.notifier,
                kafka,
                Shutdown::on_signal(),
                ConsoleOut::stdout(),
                &cloud,
            )
            .await?;
            // Before the service is ready: the admin port answers why it is not.
            println!("notifier admin: {}", notifier.admin_url());
            notifier.join().await
        },
    )
}
