//! `tollgate dlq`: records that could not be processed, listed, redriven or dropped.

mod letters;
mod of_users;
mod remote;
mod settle;
mod show;

use std::io::{IsTerminal as _, Write};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::{Args, Parser as _, Subcommand};
use tollgate_log::{Log, Profile};
use tollgate_types::Timestamp;

use letters::{Filter, LetterId, Service};
use settle::Outcome;

pub(crate) use of_users::{Share, normal, share_of};
pub(crate) use remote::DlqServer;

use crate::all_in_one::JOURNAL;
use crate::arguments::whole;
use crate::commands::{Cli, Command, DATA, kafka_config};
use crate::running::{DataDirectory, RunningUp, no_log_here};

/// Letters stay on their topics until their retention ends; one that was redriven or dropped is marked there as
/// settled, and not shown any more.
#[derive(Debug, Args)]
pub(crate) struct DlqArgs {
    #[command(subcommand)]
    command: DlqCommand,
}

#[derive(Debug, Subcommand)]
enum DlqCommand {
    /// List open letters, oldest first in each partition
    List(ListArgs),
    /// Write open letters whole, one JSON object a line
    Export(ExportArgs),
    /// Show one letter whole: why and when it failed, headers, payload
    Show(ShowArgs),
    /// Write letters back to the topic that their service reads; those of ingest to the topic of transactions
    Redrive(RedriveArgs),
    /// Mark letters as settled without processing them
    Drop(DropArgs),
}

#[derive(Debug, Args)]
struct LogArgs {
    /// TOML file with the settings (section kafka).
    #[arg(long, env = "TOLLGATE_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Brokers; kafka.brokers where not given, and else the `tollgate up` that runs in this directory.
    #[arg(long, value_name = "HOST:PORT,…")]
    brokers: Option<String>,
    /// Prefix of the topics; kafka.topic_prefix where not given.
    #[arg(long, value_name = "TEXT")]
    topic_prefix: Option<String>,
}

/// The log whose letters a command works on.
enum Target {
    /// One that this process opens. A data directory stays locked meanwhile.
    Log(Log, Option<DataDirectory>),
    /// That of the `tollgate up` which runs in this directory: its own process runs the command.
    Running(PathBuf),
}

impl LogArgs {
    fn target(&self) -> anyhow::Result<Target> {
        let mut config = kafka_config(self.config.clone(), self.brokers.clone())?;
        if let Some(prefix) = &self.topic_prefix {
            config.topic_prefix.clone_from(prefix);
        }
        let directory = Path::new(DATA);
        if config.profile() == Profile::Embedded {
            if let Some(up) = RunningUp::find(directory)? {
                match up.brokers {
                    Some(brokers) => config.brokers = brokers,
                    None => return Ok(Target::Running(directory.join(remote::SOCKET))),
                }
            } else {
                if config.journal.is_empty() {
                    config.journal = format!("{DATA}/{JOURNAL}");
                }
                if Path::new(&config.journal).exists() {
                    let lock = DataDirectory::lock(directory.to_owned())?;
                    return Ok(Target::Log(Log::open(config)?, Some(lock)));
                }
                return Err(no_log_here(directory));
            }
        }
        Ok(Target::Log(Log::open_cluster(config)?, None))
    }
}

/// Where a command writes.
struct Output<'a> {
    out: &'a mut dyn Write,
    /// Whether it shows its progress on standard error.
    progress: bool,
}

/// Several of one kind: any of them. Of several kinds: all of them.
#[derive(Debug, Args)]
struct FilterArgs {
    /// Only letters of this service: ingest, scorer, persistence or notifier.
    #[arg(long = "stage", value_name = "SERVICE", value_parser = parse_service)]
    services: Vec<Service>,
    /// Only letters that failed in this way, such as malformed or invalid.
    #[arg(long = "kind", value_name = "KIND")]
    kinds: Vec<String>,
    /// Only letters of this user.
    #[arg(long = "user", value_name = "USER_ID")]
    users: Vec<String>,
    /// Only letters of this tenant; empty for the default tenant.
    #[arg(long, value_name = "NAME")]
    tenant: Option<String>,
    /// Only letters that failed at this time or later.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    since: Option<Timestamp>,
    /// Only letters that failed before this time.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    until: Option<Timestamp>,
}

#[derive(Debug, Args)]
struct ListArgs {
    #[command(flatten)]
    log: LogArgs,
    #[command(flatten)]
    filter: FilterArgs,
    /// One JSON object a line, instead of a table.
    #[arg(long)]
    json: bool,
    /// Show so many at most; 0 is all.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = whole::<usize>)]
    limit: usize,
}

#[derive(Debug, Args)]
struct ExportArgs {
    #[command(flatten)]
    log: LogArgs,
    #[command(flatten)]
    filter: FilterArgs,
}

#[derive(Debug, Args)]
struct ShowArgs {
    #[command(flatten)]
    log: LogArgs,
    /// The letter, as `list` names it: SERVICE/PARTITION@OFFSET.
    #[arg(value_name = "LETTER")]
    id: LetterId,
    /// Only the payload, byte for byte.
    #[arg(long)]
    raw: bool,
}

#[derive(Debug, Args)]
struct SettleArgs {
    #[command(flatten)]
    log: LogArgs,
    #[command(flatten)]
    filter: FilterArgs,
    /// Only these letters, as `list` names them: SERVICE/PARTITION@OFFSET.
    #[arg(value_name = "LETTER")]
    ids: Vec<LetterId>,
    /// Every open letter, where no filter is given.
    #[arg(long)]
    all: bool,
    /// Print what would be done, and do nothing.
    #[arg(long)]
    dry_run: bool,
}

/// Key and payload go back as they came, behind them the headers with the history of failures. What was processed
/// already is not processed twice: a redriven record passes the same idempotency as any other. Interrupted, it can be
/// run again.
#[derive(Debug, Args)]
struct RedriveArgs {
    #[command(flatten)]
    settle: SettleArgs,
    /// Letters a second; 0 is as fast as possible.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = whole::<u32>)]
    rate: u32,
}

#[derive(Debug, Args)]
struct DropArgs {
    #[command(flatten)]
    settle: SettleArgs,
}

fn parse_service(text: &str) -> Result<Service, String> {
    Service::from_name(text)
        .ok_or_else(|| format!("expected {}", Service::ALL.map(Service::name).join(", ")))
}

fn parse_time(text: &str) -> Result<Timestamp, String> {
    Timestamp::parse(text).map_err(|error| error.to_string())
}

impl FilterArgs {
    fn filter(self, ids: Vec<LetterId>) -> Filter {
        Filter {
            ids,
            services: self.services,
            kinds: self.kinds,
            users: self.users.iter().map(|user| normal(user)).collect(),
            tenant: self.tenant,
            since: self.since,
            until: self.until,
        }
    }
}

impl DlqCommand {
    const fn log(&self) -> &LogArgs {
        match self {
            Self::List(args) => &args.log,
            Self::Show(args) => &args.log,
            Self::Export(args) => &args.log,
            Self::Redrive(args) => &args.settle.log,
            Self::Drop(args) => &args.settle.log,
        }
    }
}

/// `tollgate dlq …`
pub(crate) fn run(args: DlqArgs) -> anyhow::Result<()> {
    match args.command.log().target()? {
        Target::Running(socket) => {
            let arguments = std::env::args().skip(1).collect();
            remote::run(&socket, arguments, &mut std::io::stdout().lock())
        }
        Target::Log(kafka, _directory) => {
            let mut out = std::io::stdout().lock();
            let output = Output {
                out: &mut out,
                progress: std::io::stderr().is_terminal(),
            };
            execute(args, &kafka, output)?;
            out.flush().context("standard output")
        }
    }
}

/// Runs the command of these arguments, as [`run`] does that of this process, and writes its output to `out`.
pub(crate) fn run_arguments(arguments: &[String], out: &mut dyn Write) -> anyhow::Result<()> {
    let typed = std::iter::once("tollgate".to_owned()).chain(arguments.iter().cloned());
    let Command::Dlq(args) = Cli::try_parse_from(typed)?.command else {
        anyhow::bail!("not a dlq command");
    };
    match args.command.log().target()? {
        Target::Running(socket) => remote::run(&socket, arguments.to_vec(), out),
        Target::Log(kafka, _directory) => {
            let progress = false;
            execute(args, &kafka, Output { out, progress })
        }
    }
}

fn execute(args: DlqArgs, kafka: &Log, output: Output<'_>) -> anyhow::Result<()> {
    match args.command {
        DlqCommand::List(args) => {
            let filter = args.filter.filter(Vec::new());
            show::list(kafka, &filter, args.json, args.limit, output.out)
        }
        DlqCommand::Export(args) => {
            show::export(kafka, &args.filter.filter(Vec::new()), output.out)
        }
        DlqCommand::Show(args) => show::one(kafka, args.id, args.raw, output.out),
        DlqCommand::Redrive(args) => {
            settle(args.settle, kafka, Outcome::Redriven, args.rate, output)
        }
        DlqCommand::Drop(args) => settle(args.settle, kafka, Outcome::Dropped, 0, output),
    }
}

fn settle(
    args: SettleArgs,
    kafka: &Log,
    outcome: Outcome,
    rate: u32,
    output: Output<'_>,
) -> anyhow::Result<()> {
    let filter = args.filter.filter(args.ids);
    anyhow::ensure!(
        args.all || !filter.is_empty(),
        "say which letters: by name, by --stage, --kind, --user, --since or --until, or --all of them"
    );
    settle::run(kafka, &filter, outcome, rate, args.dry_run, output)
}
