//! The scorer as a process of its own.

use tollgate_runtime::Shutdown;
use tollgate_runtime::cli::run_service;
use tollgate_runtime::kafka::Kafka;
use tollgate_scorer::ProcessConfig;

fn main() -> anyhow::Result<()> {
    run_service(ProcessConfig::read, |config| async move {
        let kafka = Kafka::open_cluster(config.kafka)?;
        tollgate_scorer::run(config.scorer, kafka, Shutdown::on_signal()).await
    })
}
