//! The command line of Tollgate.

mod all_in_one;
mod archive;
mod commands;
mod demo;
mod dlq;
mod load;
mod receive;
mod score;

use std::process::ExitCode;

use clap::Parser as _;

use commands::{Cli, Command};

fn main() -> ExitCode {
    let cli = Cli::parse();
    match cli.command.run() {
        Ok(code) => code,
        // Whoever read the output has what it wanted, as `head` has.
        Err(error) if is_broken_pipe(&error) => ExitCode::from(BROKEN_PIPE),
        Err(error) => {
            report(&error);
            ExitCode::FAILURE
        }
    }
}

/// What a shell says of a program that SIGPIPE has ended.
const BROKEN_PIPE: u8 = 141;

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<std::io::Error>())
        .any(|cause| cause.kind() == std::io::ErrorKind::BrokenPipe)
}

#[expect(
    clippy::print_stderr,
    reason = "this is where a command says why it failed"
)]
fn report(error: &anyhow::Error) {
    eprintln!("tollgate: {error:#}");
}

impl Command {
    fn run(self) -> anyhow::Result<ExitCode> {
        match self {
            Self::Demo(args) => commands::block_on(demo::run(args))?,
            Self::Up(args) => commands::up(&args)?,
            Self::Score(args) => return score::run(&args),
            Self::Load(args) => commands::block_on(load::run(args))?,
            Self::Topics(args) => commands::block_on(commands::topics(args))?,
            Self::Dlq(args) => dlq::run(args)?,
            Self::Migrate(args) => commands::block_on(commands::migrate(args))?,
            Self::Receive(args) => commands::block_on(receive::run(args))?,
            Self::Key(args) => commands::key(&args),
        }
        Ok(ExitCode::SUCCESS)
    }
}
