//! The scorer as a process of its own.

#[cfg(feature = "oci")]
use tollgate_oci::Cloud;
use tollgate_runtime::Shutdown;
use tollgate_runtime::cli::run_service;
#[cfg(not(feature = "oci"))]
use tollgate_runtime::cloud::NoCloud as Cloud;
use tollgate_runtime::kafka::Kafka;
use tollgate_scorer::ProcessConfig;

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
