//! The command line of Tollgate.

mod all_in_one;
mod archive;
mod commands;
mod demo;
mod load;
mod score;

use std::process::ExitCode;

use clap::Parser as _;

use commands::{Cli, Command};

fn main() -> ExitCode {
    let cli = Cli::parse();
    match cli.command.run() {
        Ok(code) => code,
        Err(error) => {
            report(&error);
            ExitCode::FAILURE
        }
    }
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
            Self::Key(args) => commands::key(&args),
        }
        Ok(ExitCode::SUCCESS)
    }
}
