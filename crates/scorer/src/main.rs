//! The scorer as a process of its own.

use tollgate_log::Kafka;
#[cfg(feature = "oci")]
use tollgate_oci::Cloud;
use tollgate_scorer::ProcessConfig;
use tollgate_service::Shutdown;
use tollgate_service::cli::run_service;
#[cfg(not(feature = "oci"))]
use tollgate_service::cloud::NoCloud as Cloud;

fn main() -> anyhow::Result<()> {
    run_service(
        "scorer",
        ProcessConfig::read,
        |config, _: Cloud| async move {
            let kafka = Kafka::open_cluster(config.kafka)?;
            tollgate_scorer::run(config.scorer, kafka, Shutdown::on_signal()).await
        },
    )
}
