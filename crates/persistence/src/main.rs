//! The program `tollgate-persistence`.

use tollgate_service::cli::ServiceArgs;

fn main() -> anyhow::Result<()> {
    tollgate_persistence::run_process(&ServiceArgs::from_command_line())
}
