//! The program `tollgate-ingest`.

use tollgate_service::cli::ServiceArgs;

fn main() -> anyhow::Result<()> {
    tollgate_ingest::run_process(&ServiceArgs::from_command_line())
}
