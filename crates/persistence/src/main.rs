//! Persistence as a process of its own.

use tollgate_persistence::ProcessConfig;
use tollgate_runtime::Shutdown;
use tollgate_runtime::cli::run_service;
use tollgate_runtime::kafka::Kafka;

fn main() -> anyhow::Result<()> {
    run_service(ProcessConfig::read, |config| async move {
        let kafka = Kafka::open_cluster(config.kafka)?;
        tollgate_persistence::run(config.persistence, kafka, Shutdown::on_signal()).await
    })
}
