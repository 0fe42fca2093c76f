//! `tollgate policy`: checks policy documents, and shows their faults as a compiler does.

use std::fs::File;
use std::io::{self, Read, Write};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use tollgate_policy::{Fault, Mode, Policy, Report, check};
use tollgate_service::terminal::{printable, printable_lines};

/// Exit code for arguments that cannot be used, as clap has it.
const UNUSABLE: u8 = 2;
/// Exit code of a document that does not check.
const FAULTY: u8 = 4;
/// The most bytes of a document: what one change of the control topic holds.
const MOST_BYTES: u64 = 900_000;
/// How much of a line is shown around a fault, in characters.
const SHOWN_BEFORE: usize = 70;
const SHOWN_AFTER: usize = 40;

/// A policy is one TOML document with everything that decides: thresholds, lists, features, rules. The language of its
/// conditions is described in crates/policy/README.md.
#[derive(Debug, Args)]
pub(crate) struct PolicyArgs {
    #[command(subcommand)]
    command: PolicyCommand,
}

#[derive(Debug, Subcommand)]
enum PolicyCommand {
    /// Check a document: every fault with its line and column, or the hash that identifies it
    Check(CheckArgs),
}

/// Nothing is written. The exit status is 0 for a document without faults, 4 for one with faults, 2 for a file that cannot
/// be read. Warnings do not change it.
#[derive(Debug, Args)]
struct CheckArgs {
    /// The document; - is standard input.
    #[arg(value_name = "FILE|-")]
    file: String,
    /// Print the faults as a JSON array of {"line", "column", "kind", "message"}; it is empty if there are none.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &PolicyArgs) -> anyhow::Result<ExitCode> {
    match &args.command {
        PolicyCommand::Check(args) => check_file(args),
    }
}

#[expect(clippy::print_stderr, reason = "this is the command's output")]
fn check_file(args: &CheckArgs) -> anyhow::Result<ExitCode> {
    let source = match read(&args.file) {
        Ok(source) => source,
        Err(error) => {
            let text = format!("{error:#}");
            eprintln!("tollgate: {}", printable_lines(&text));
            return Ok(ExitCode::from(UNUSABLE));
        }
    };
    let report = check(&source);
    let name = match args.file.as_str() {
        "-" => "standard input",
        file => file,
    };
    let mut output = io::stdout().lock();
    if args.json {
        serde_json::to_writer(&mut output, &report.faults)?;
        writeln!(output)?;
        write_faults(
            &mut io::stderr().lock(),
            name,
            &source,
            &report.warnings,
            "warning: ",
        )?;
    } else {
        write_report(&mut output, name, &source, &report)?;
    }
    Ok(match report.policy {
        Some(_) => ExitCode::SUCCESS,
        None => ExitCode::from(FAULTY),
    })
}

fn read(file: &str) -> anyhow::Result<String> {
    let input: Box<dyn Read> = match file {
        "-" => Box::new(io::stdin()),
        file => Box::new(File::open(file).with_context(|| format!("cannot read {file}"))?),
    };
    let mut bytes = Vec::new();
    input
        .take(MOST_BYTES + 1)
        .read_to_end(&mut bytes)
        .with_context(|| format!("cannot read {file}"))?;
    anyhow::ensure!(
        u64::try_from(bytes.len())? <= MOST_BYTES,
        "{file}: a policy has at most {MOST_BYTES} bytes; long lists of values belong into lists"
    );
    String::from_utf8(bytes).with_context(|| format!("{file}: not UTF-8"))
}

fn write_report(
    output: &mut impl Write,
    name: &str,
    source: &str,
    report: &Report,
) -> io::Result<()> {
    write_faults(output, name, source, &report.faults, "")?;
    write_faults(output, name, source, &report.warnings, "warning: ")?;
    let name = printable(name);
    let warnings = match report.warnings.len() {
        0 => String::new(),
        count => format!(", {}", counted(count, "warning")),
    };
    match &report.policy {
        Some(policy) => {
            writeln!(output, "{name}: no faults{warnings}")?;
            write_summary(output, policy)
        }
        None => writeln!(
            output,
            "{name}: {}{warnings}",
            counted(report.faults.len(), "fault")
        ),
    }
}

/// Each with the line that it is in, and a caret below its place.
fn write_faults(
    output: &mut impl Write,
    name: &str,
    source: &str,
    faults: &[Fault],
    prefix: &str,
) -> io::Result<()> {
    let lines: Vec<&str> = source.lines().collect();
    let width = faults
        .iter()
        .map(|fault| fault.line.to_string().len())
        .max()
        .unwrap_or(0);
    for fault in faults {
        writeln!(
            output,
            "{}:{}:{}: {prefix}{}: {}",
            printable(name),
            fault.line,
            fault.column,
            fault.kind.name(),
            printable(&fault.message),
        )?;
        let Some(line) = lines.get(fault.line - 1) else {
            continue;
        };
        // A tab counts as one character, and is shown as one.
        let line: Vec<char> = line
            .chars()
            .map(|c| if c == '\t' { ' ' } else { c })
            .collect();
        let at = (fault.column - 1).min(line.len());
        let from = at.saturating_sub(SHOWN_BEFORE);
        let to = (at + SHOWN_AFTER).min(line.len());
        let part = |range: std::ops::Range<usize>| {
            let text: String = line[range].iter().collect();
            printable(&text).into_owned()
        };
        let (cut, rest) = (
            if from > 0 { "…" } else { "" },
            if to < line.len() { "…" } else { "" },
        );
        let before = format!("{cut}{}", part(from..at));
        let margin = before.chars().count();
        writeln!(
            output,
            " {:>width$} | {before}{}{rest}",
            fault.line,
            part(at..to)
        )?;
        writeln!(output, " {:width$} | {:margin$}^", "", "")?;
    }
    Ok(())
}

fn write_summary(output: &mut impl Write, policy: &Policy) -> io::Result<()> {
    let with = |mode: Mode| policy.rules.iter().filter(|rule| rule.mode == mode).count();
    writeln!(output, "  name      {}", printable(&policy.name))?;
    writeln!(output, "  hash      {}", policy.hash)?;
    writeln!(
        output,
        "  rules     {} ({} live, {} in shadow, {} off)",
        policy.rules.len(),
        with(Mode::Live),
        with(Mode::Shadow),
        with(Mode::Off),
    )?;
    writeln!(output, "  features  {}", policy.features.len())?;
    writeln!(output, "  lists     {}", policy.lists.len())?;
    writeln!(
        output,
        "  window    {} at the longest, with the built-in indicators",
        window(policy.longest_window)
    )
}

/// Seconds in the largest unit in which they are whole.
fn window(seconds: u64) -> String {
    let units = [(86_400, "d"), (3_600, "h"), (60, "m")];
    match units
        .iter()
        .find(|(length, _)| seconds.is_multiple_of(*length))
    {
        Some((length, unit)) => format!("{}{unit}", seconds / length),
        None => format!("{seconds}s"),
    }
}

fn counted(count: usize, what: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {what}{plural}")
}
