//! The command line of Tollgate.

mod all_in_one;
mod archive;
mod arguments;
mod audit;
mod card_key;
mod commands;
mod control;
mod demo;
mod dlq;
mod exit_status;
mod imports;
mod load;
mod policy;
mod receive;
mod running;
mod score;
mod user;

use std::process::ExitCode;

use commands::Command;
use exit_status::BROKEN_PIPE;
use tollgate_service::terminal::printable_lines;

fn main() -> ExitCode {
    tollgate_service::cli::keep_files_private();
    let cli = exit_status::parse();
    match cli.command.run() {
        Ok(code) => code,
        // The reader of the output has ended, as `head` does when it has enough lines.
        Err(error) if is_broken_pipe(&error) => ExitCode::from(BROKEN_PIPE),
        Err(error) => {
            report(&error);
            ExitCode::FAILURE
        }
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<std::io::Error>())
        .any(|cause| cause.kind() == std::io::ErrorKind::BrokenPipe)
}

#[expect(
    clippy::print_stderr,
    reason = "the error of a command goes to standard error"
)]
fn report(error: &anyhow::Error) {
    // It may quote the answer of a server, or a name from data.
    let text = format!("{error:#}");
    eprintln!("tollgate: {}", printable_lines(&text));
}

impl Command {
    fn run(self) -> anyhow::Result<ExitCode> {
        match self {
            Self::Demo(args) => commands::block_on(demo::run(args))?,
            Self::Up(args) => commands::up(&args)?,
            Self::Score(args) => return score::run(&args),
            Self::Policy(args) => return policy::run(&args),
            Self::Ingest(args) => tollgate_ingest::run_process(&args)?,
            Self::Scorer(args) => tollgate_scorer::run_process(&args)?,
            Self::Persistence(args) => tollgate_persistence::run_process(&args)?,
            Self::Notifier(args) => tollgate_notifier::run_process(&args)?,
            Self::Load(args) => commands::block_on(load::run(args))?,
            Self::Topics(args) => commands::block_on(commands::topics(args))?,
            Self::Dlq(args) => dlq::run(args)?,
            Self::User(args) => return user::run(args),
            Self::Imports(args) => commands::block_on(imports::run(args))?,
            Self::Migrate(args) => commands::block_on(commands::migrate(args))?,
            Self::Receive(args) => commands::block_on(receive::run(args))?,
            Self::Key(args) => commands::key(&args)?,
            Self::Audit(args) => commands::block_on(audit::run(args))?,
        }
        Ok(ExitCode::SUCCESS)
    }
}
