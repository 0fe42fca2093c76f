//! `tollgate user`: the data of one user, exported or erased, wherever Tollgate keeps it.
//!
//! The log cannot be changed: what it holds of a user is gone when its retention ends, which the command says with a date.
//! The store leaves out what is read from the log again.

mod lines;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use chrono::{SecondsFormat, TimeDelta, Utc};
use clap::{Args, Subcommand};
use tollgate_log::KafkaConfig;
use tollgate_notifier::{NotifierConfig, SinkKind};
use tollgate_persistence::audit::{AuditEvent, AuditLog, AuditMode};
use tollgate_persistence::{PersistenceConfig, UserData};
use tollgate_service::terminal::printable;
use tollgate_types::{Tenant, stored_id};

use crate::all_in_one::Configs;
use crate::archive::DEAD_LETTERS;
use crate::commands::{DATA, block_on, settings};
use crate::dlq::{self, normal};
use lines::{LineShare, Whose};

/// What the store, files of alerts and dead letters hold of a user. The settings are those of the services: run the
/// command where they are, or where `tollgate up` runs.
#[derive(Debug, Args)]
pub(crate) struct UserArgs {
    #[command(subcommand)]
    command: UserCommand,
}

#[derive(Debug, Subcommand)]
enum UserCommand {
    /// Write everything as JSON lines: {"source", "data"}. The exit status is 3 if nothing is kept about the user
    Export(WhoseArgs),
    /// Delete it, and keep the store from reading it from the log again
    Erase(EraseArgs),
}

#[derive(Debug, Args)]
struct WhoseArgs {
    /// The user.
    #[arg(value_name = "USER_ID")]
    user_id: String,
    /// The tenant of the user; the default tenant where not given.
    #[arg(long, value_name = "NAME", value_parser = parse_tenant)]
    tenant: Option<String>,
    /// TOML file with the settings.
    #[arg(long, env = "TOLLGATE_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
}

/// The exit status is 0 when everything was erased. Interrupted or failed, it can be run again.
#[derive(Debug, Args)]
#[command(group(clap::ArgGroup::new("how").args(["dry_run", "yes"]).required(true)))]
struct EraseArgs {
    #[command(flatten)]
    whose: WhoseArgs,
    /// Count what would be erased, and change nothing.
    #[arg(long)]
    dry_run: bool,
    /// Erase it.
    #[arg(long)]
    yes: bool,
}

fn parse_tenant(text: &str) -> Result<String, String> {
    Tenant::parse(text)
        .map(|tenant| tenant.name().to_owned())
        .map_err(|error| error.to_string())
}

/// The exit status of an export that found nothing.
const NOTHING_FOUND: u8 = 3;

/// Counts what is written.
struct Counted<W> {
    out: W,
    bytes: usize,
}

impl<W: Write> Write for Counted<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.bytes += written;
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.out.flush()
    }
}

/// Where the data of a user is.
struct Places {
    /// The id as it is used.
    user_id: String,
    /// The same, and what was typed: a rejected item has its id as it was sent.
    spellings: Vec<String>,
    /// Empty for the default tenant.
    tenant: String,
    kafka: KafkaConfig,
    persistence: PersistenceConfig,
    /// Files of alerts and of archived dead letters.
    files: Vec<PathBuf>,
    /// Options of the commands on dead letters.
    config: Option<PathBuf>,
    has_log: bool,
}

impl Places {
    fn find(whose: WhoseArgs) -> anyhow::Result<Self> {
        let mut settings = settings(whose.config.clone())?;
        let in_directory = !settings.is_set("persistence.database_url");
        if in_directory {
            anyhow::ensure!(
                Path::new(DATA).is_dir(),
                "persistence.database_url is not set, and {DATA} is not in this directory: run the command where `tollgate \
                 up` runs, or with the settings of the services"
            );
            Configs::set_defaults(&mut settings, DATA)?;
        }
        let kafka: KafkaConfig = settings.section("kafka")?;
        let persistence = PersistenceConfig::read(&settings)?;
        let user_id = stored_id(&whose.user_id, persistence.user_id_case);
        let mut spellings = vec![user_id.clone(), normal(&whose.user_id)];
        spellings.dedup();
        let notifier: NotifierConfig = settings.section("notifier")?;
        let mut files = Vec::new();
        if settings.is_set("notifier.sinks") {
            for sink in notifier.validate()? {
                if let SinkKind::File(path) = sink.kind {
                    files.push(path);
                }
            }
        }
        if in_directory {
            files.push(Path::new(DATA).join(DEAD_LETTERS));
        }
        // A pipe or a terminal holds nothing.
        files.retain(|path| path.is_file());
        Ok(Self {
            user_id,
            spellings,
            tenant: whose.tenant.unwrap_or_default(),
            has_log: in_directory || !kafka.brokers.is_empty(),
            kafka,
            persistence,
            files,
            config: whose.config,
        })
    }

    /// The user and the tenant, for messages.
    fn named(&self) -> String {
        let user = format!("the user {:?}", self.user_id);
        match self.tenant.as_str() {
            "" => format!("{user} of the default tenant"),
            tenant => format!("{user} of the tenant {tenant}"),
        }
    }

    fn whose(&self) -> Whose<'_> {
        Whose {
            tenant: &self.tenant,
            users: &self.spellings,
        }
    }

    /// Runs a command on the dead letters of the user.
    fn letters(&self, command: &str, more: &[&str], out: &mut dyn Write) -> anyhow::Result<()> {
        let mut arguments = vec!["dlq".to_owned(), command.to_owned()];
        arguments.extend(self.spellings.iter().map(|user| format!("--user={user}")));
        arguments.push(format!("--tenant={}", self.tenant));
        if let Some(config) = &self.config {
            arguments.push(format!("--config={}", config.display()));
        }
        arguments.extend(more.iter().map(|&argument| argument.to_owned()));
        dlq::run_arguments(&arguments, out).context("the dead letters")
    }
}

/// The user of the operating system who runs the command.
fn operator() -> String {
    std::env::var("SUDO_USER")
        .or_else(|_| std::env::var("USER"))
        .unwrap_or_else(|_| "unknown".to_owned())
}

/// Appends an entry to the audit of the store, unless it is switched off.
async fn audit(
    places: &Places,
    action: &str,
    whose: (&str, &str),
    rows: u64,
) -> anyhow::Result<()> {
    if places.persistence.audit.mode == AuditMode::Off {
        return Ok(());
    }
    let event = AuditEvent {
        time: tollgate_service::now(),
        caller: operator(),
        tenant: places.tenant.clone(),
        peer: String::new(),
        action: action.to_owned(),
        asked: vec![(whose.0.to_owned(), whose.1.to_owned())],
        status: 200,
        rows,
    };
    let log = AuditLog::open(&places.persistence).await?;
    log.migrate().await?;
    let appended = log.append(&[event]).await;
    log.close().await;
    appended.context("the audit")?;
    Ok(())
}

/// `tollgate user …`
///
/// # Errors
/// What could not be read or erased. Everything before it was.
pub(crate) fn run(args: UserArgs) -> anyhow::Result<ExitCode> {
    let mut out = std::io::stdout().lock();
    match args.command {
        UserCommand::Export(whose) => {
            let places = Places::find(whose)?;
            let mut out = Counted { out, bytes: 0 };
            export(&places, &mut out)?;
            out.flush().context("standard output")?;
            if out.bytes == 0 {
                writeln!(
                    std::io::stderr(),
                    "nothing is kept about {}",
                    places.named()
                )?;
                return Ok(ExitCode::from(NOTHING_FOUND));
            }
            return Ok(ExitCode::SUCCESS);
        }
        UserCommand::Erase(args) => {
            let dry_run = args.dry_run || !args.yes;
            erase(&Places::find(args.whose)?, dry_run, &mut out)?;
        }
    }
    out.flush().context("standard output")?;
    Ok(ExitCode::SUCCESS)
}

fn export(places: &Places, out: &mut dyn Write) -> anyhow::Result<()> {
    block_on(async {
        let data = UserData::open(&places.persistence).await?;
        let user = (places.tenant.as_str(), places.user_id.as_str());
        let rows = data.count(user.0, user.1).await?;
        // Before anything is written out: an export that nobody knows of must not exist.
        audit(places, "user export", ("user_id", user.1), rows).await?;
        data.each(user.0, user.1, |decision| {
            out.write_all(b"{\"source\":\"store\",\"data\":")?;
            out.write_all(decision)?;
            Ok(out.write_all(b"}\n")?)
        })
        .await
    })
    .context("the store")?;
    for path in &places.files {
        let source = serde_json::to_string(&path.display().to_string())?;
        lines::each(path, |line| {
            let share = places.whose().share(line);
            let theirs = match &share {
                LineShare::None => return Ok(()),
                LineShare::Whole => line,
                LineShare::Part { theirs, .. } => theirs,
            };
            write!(out, "{{\"source\":{source},\"data\":")?;
            out.write_all(theirs)?;
            Ok(out.write_all(b"}\n")?)
        })?;
    }
    if places.has_log {
        places.letters("export", &[], out)?;
    }
    Ok(())
}

fn counted(count: u64, what: &str) -> String {
    let end = if count == 1 { "" } else { "s" };
    format!("{count} {what}{end}")
}

fn erase(places: &Places, dry_run: bool, out: &mut dyn Write) -> anyhow::Result<()> {
    let verb = if dry_run { "would be erased" } else { "erased" };
    let (rows, hash) = block_on(async {
        let data = UserData::open(&places.persistence).await?;
        if dry_run {
            let rows = data.count(&places.tenant, &places.user_id).await?;
            return Ok((rows, None));
        }
        let erased = data.erase(&places.tenant, &places.user_id).await?;
        // The hash, not the id: the audit cannot be erased.
        let whose = ("user_hash", erased.user_hash.as_str());
        audit(places, "user erase", whose, erased.rows).await?;
        Ok((erased.rows, Some(erased.user_hash)))
    })
    .context("the store")?;
    let tenant = match places.tenant.as_str() {
        "" => "the default tenant".to_owned(),
        name => format!("the tenant {name}"),
    };
    writeln!(out, "user {} of {tenant}", printable(&places.user_id))?;
    writeln!(out, "store: {} {verb}", counted(rows, "decision"))?;
    for path in &places.files {
        let count = if dry_run {
            let mut count = 0;
            lines::each(path, |line| {
                count += u64::from(places.whose().share(line) != LineShare::None);
                Ok(())
            })?;
            count
        } else {
            lines::erase(path, &places.whose())?
        };
        let lines = counted(count, "line");
        writeln!(out, "{}: {lines} {verb}", path.display())?;
    }
    if places.has_log {
        write!(out, "dead letters: ")?;
        let more: &[&str] = if dry_run { &["--dry-run"] } else { &[] };
        places.letters("drop", more, out)?;
    }
    let hours = i64::from(places.kafka.retention_hours);
    let until = (Utc::now() + TimeDelta::hours(hours)).to_rfc3339_opts(SecondsFormat::Secs, true);
    writeln!(
        out,
        "a dead letter of several users was dropped for all of them, and stays in the archive without this one\n\
         left until {until} at the latest, when the retention of {hours} hours ends (kafka.retention_hours; retention that \
         was set on the brokers may be longer):\n  \
         the log, dropped dead letters, snapshots and histories of the scorer\n\
         left for notifier.delivery_log_retention_days:\n  \
         ids and times in the delivery log\n\
         not erased by this command:\n  \
         standard output of `up` and of sinks of kind console, which print alerts: look where it went (a file, the logs of \
         the container or of the system)\n  \
         files of alerts that were moved or rotated\n  \
         what was sent to webhooks and notifications\n  \
         backups"
    )?;
    if let Some(hash) = hash {
        let at = Utc::now().to_rfc3339_opts(SecondsFormat::Secs, true);
        let record = serde_json::json!({
            "event": "user_erased", "at": at, "by": operator(), "tenant": places.tenant, "user_hash": hash, "decisions": rows,
        });
        writeln!(out, "record: {record}")?;
    }
    Ok(())
}
