//! Persistence as a process of its own.

use tollgate_log::Kafka;
#[cfg(feature = "oci")]
use tollgate_oci::Cloud;
use tollgate_persistence::ProcessConfig;
use tollgate_service::Shutdown;
use tollgate_service::cli::run_service;
#[cfg(not(feature = "oci"))]
use tollgate_service::cloud::NoCloud as Cloud;

fn main() -> anyhow::Result<()> {
    run_service(
        "persistence",
        ProcessConfig::read,
        |config, _: Cloud| async move {
            let kafka = Kafka::open_cluster(config.kafka)?;
            tollgate_persistence::run(config.persistence, kafka, Shutdown::on_signal()).await
        },
    )
}
