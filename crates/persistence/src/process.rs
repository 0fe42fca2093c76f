//! Persistence as a process of its own: the program `tollgate-persistence`, and `tollgate persistence`.

use tollgate_log::Log;
#[cfg(feature = "oci")]
use tollgate_oci::Cloud;
use tollgate_service::Shutdown;
use tollgate_service::cli::{ServiceArgs, run_service};
#[cfg(not(feature = "oci"))]
use tollgate_service::cloud::NoCloud as Cloud;

use crate::ProcessConfig;

/// Runs the service until SIGTERM, or prints its settings.
///
/// # Errors
/// Names the setting at fault, or what ended the service.
pub fn run_process(args: &ServiceArgs) -> anyhow::Result<()> {
    run_service(
        "persistence",
        args,
        ProcessConfig::read,
        |config, _: Cloud| async move {
            let kafka = Log::open_for_service(config.kafka)?;
            crate::run(config.persistence, kafka, Shutdown::on_signal()).await
        },
    )
}
