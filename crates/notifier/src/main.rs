//! The program `tollgate-notifier`.

use tollgate_service::cli::ServiceArgs;

fn main() -> anyhow::Result<()> {
    tollgate_notifier::run_process(&ServiceArgs::from_command_line())
}
