//! The exit statuses of every command, in one place: `--help` and the README say the same.

use clap::{Command, CommandFactory as _, FromArgMatches as _};

use crate::commands::Cli;

/// The command line has wrong arguments; clap uses the same number.
pub(crate) const USAGE: u8 = 2;
/// `score` has rejected lines, and --rejects was not given.
pub(crate) const REJECTED: u8 = 3;
/// The reader of standard output has ended: what a shell reports for a program ended by SIGPIPE.
pub(crate) const BROKEN_PIPE: u8 = 141;

/// Statuses of a command that mean more than "failed": the command, as it is typed, and what the statuses mean.
const OWN: [(&str, &str); 10] = [
    (
        "up",
        "0 after SIGTERM or SIGINT; 1 it could not start, or a service has failed",
    ),
    (
        "score",
        "0 every line was scored, or --rejects has those that were not; 1 failed; 3 lines were rejected and --rejects was \
         not given",
    ),
    (
        "load",
        "0 every transaction was accepted; 1 one was not, or it could not begin",
    ),
    (
        "dlq redrive",
        "0 all that were meant are redriven; 1 failed, or some cannot be redriven, which are named",
    ),
    (
        "dlq show",
        "0 shown; 1 failed, or there is no such open letter",
    ),
    (
        "user erase",
        "0 everything was erased; 1 failed: run it again",
    ),
    (
        "imports",
        "0 listed, also where imports have failed; 1 there is no such import, or the log cannot be read",
    ),
    (
        "audit verify",
        "0 nothing was changed; 1 it was changed, or cannot be read",
    ),
    (
        "policy check",
        "0 no faults; 1 failed; 4 the document has faults, which are printed",
    ),
    (
        "receive",
        "0 after SIGTERM or SIGINT; 1 it could not listen",
    ),
];
const SERVICES: [&str; 4] = ["ingest", "scorer", "persistence", "notifier"];
const SERVICE: &str = "0 after SIGTERM or SIGINT; 1 it could not start, or has failed";
const USUAL: &str = "0 done; 1 failed, with the reason on standard error";

/// Reads the command line; ends the process where it is wrong or asks for help.
pub(crate) fn parse() -> Cli {
    let matches = command().get_matches();
    Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit())
}

/// The command line with the statuses in each help text.
fn command() -> Command {
    with_statuses(Cli::command(), "")
}

fn with_statuses(command: Command, path: &str) -> Command {
    let command = command.mut_subcommands(|sub| {
        let name = format!("{path} {}", sub.get_name());
        with_statuses(sub, name.trim_start())
    });
    let after = command
        .get_after_help()
        .map(ToString::to_string)
        // That of a service's own program.
        .filter(|help| !help.contains("Exit status"))
        .map(|help| format!("{help}\n\n"))
        .unwrap_or_default();
    let statuses = meaning(path);
    command.after_help(format!(
        "{after}Exit status: {statuses}; {USAGE} wrong arguments; {BROKEN_PIPE} the reader of the output has ended"
    ))
}

fn meaning(path: &str) -> &'static str {
    if SERVICES.contains(&path) {
        return SERVICE;
    }
    let own = OWN.iter().find(|(command, _)| *command == path);
    own.map_or(USUAL, |(_, meaning)| meaning)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(command: &Command, path: &str, found: &mut Vec<(String, String)>) {
        let mut command = command.clone();
        found.push((path.to_owned(), command.render_long_help().to_string()));
        let subs = command.get_subcommands();
        for sub in subs.filter(|sub| sub.get_name() != "help") {
            let name = format!("{path} {}", sub.get_name());
            paths(sub, name.trim_start(), found);
        }
    }

    #[test]
    fn the_help_of_every_command_has_its_exit_statuses() {
        let mut all = Vec::new();
        paths(&command(), "", &mut all);
        for (path, help) in &all {
            assert!(help.contains("Exit status: 0 "), "{path}: {help}");
        }
        for (command, meaning) in OWN {
            let found = all.iter().find(|(path, _)| path == command);
            let (_, help) = found.unwrap_or_else(|| panic!("there is no command {command}"));
            let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
            assert!(words(help).contains(&words(meaning)), "{help}");
        }
    }
}
