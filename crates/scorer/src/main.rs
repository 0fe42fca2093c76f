//! The program `tollgate-scorer`.

use tollgate_service::cli::ServiceArgs;

fn main() -> anyhow::Result<()> {
    tollgate_scorer::run_process(&ServiceArgs::from_command_line())
}
