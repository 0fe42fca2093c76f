//! `tollgate audit`: checks and exports the audit of who read, exported or erased personal data.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::{Args, Subcommand};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tollgate_persistence::PersistenceConfig;
use tollgate_persistence::audit::{AuditLog, Head, Link, Verifier};

use crate::all_in_one::Configs;
use crate::commands::{DATA, say, settings};

/// The audit is in the store of persistence: each read of personal data, with the caller's key, in a chain of hashes.
#[derive(Debug, Args)]
pub(crate) struct AuditArgs {
    #[command(subcommand)]
    command: AuditCommand,
}

#[derive(Debug, Subcommand)]
enum AuditCommand {
    /// Check that no entry was changed, removed or inserted, and print the head of the chain
    Verify(VerifyArgs),
    /// Print every entry with its number and hash, one JSON object a line
    Export(ExportArgs),
}

/// Without --head, an end that was cut off is not noticed. Persistence logs the head once a minute while there are new
/// entries (`the head of the audit`): take it from there, or from the output of an earlier `verify`.
#[derive(Debug, Args)]
struct VerifyArgs {
    /// A file of `tollgate audit export`, or `store` for the one of persistence.database_url.
    #[arg(value_name = "FILE|store")]
    source: String,
    /// A head that the chain had reached: its end must not be before it.
    #[arg(long, value_name = "NUMBER:HASH")]
    head: Option<Head>,
    /// TOML file with the settings (persistence.database_url, persistence.audit.key); without it the store of `up` in this directory.
    #[arg(long, env = "TOLLGATE_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct ExportArgs {
    /// TOML file with the settings (persistence.database_url).
    #[arg(long, env = "TOLLGATE_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
}

/// A line of an export. The entry is the text that was hashed, so it is not written anew.
#[derive(Serialize, Deserialize)]
struct Line<'a> {
    head: String,
    #[serde(borrow)]
    entry: &'a RawValue,
}

pub(crate) async fn run(args: AuditArgs) -> anyhow::Result<()> {
    match args.command {
        AuditCommand::Verify(args) => verify(args).await,
        AuditCommand::Export(args) => export(args).await,
    }
}

async fn verify(args: VerifyArgs) -> anyhow::Result<()> {
    let config = persistence(args.config)?;
    let head = if args.source == "store" {
        let log = AuditLog::open(&config).await?;
        let verified = log.verify(args.head).await;
        log.close().await;
        verified?
    } else {
        let key = config.audit.key.expose().as_bytes();
        verify_file(Path::new(&args.source), Verifier::new(key, args.head))?
    };
    say(format_args!(
        "up to entry {}, none changed, removed or inserted; head {head}\n",
        head.seq
    ))
}

fn verify_file(path: &Path, mut verifier: Verifier) -> anyhow::Result<Head> {
    let file = File::open(path).with_context(|| path.display().to_string())?;
    for (number, line) in (1..).zip(BufReader::new(file).lines()) {
        let line = line.with_context(|| path.display().to_string())?;
        let place = || format!("{}, line {number}", path.display());
        verifier
            .check(&link(&line).with_context(place)?)
            .with_context(place)?;
    }
    Ok(verifier.finish()?)
}

fn link(line: &str) -> anyhow::Result<Link> {
    let line: Line<'_> = serde_json::from_str(line).context("is no line of an export")?;
    Ok(Link {
        head: line.head.parse().map_err(anyhow::Error::msg)?,
        entry: line.entry.get().to_owned(),
    })
}

async fn export(args: ExportArgs) -> anyhow::Result<()> {
    let log = AuditLog::open(&persistence(args.config)?).await?;
    let read = async {
        log.ensure_on().await?;
        log.read(write).await
    };
    let read = read.await;
    log.close().await;
    read
}

fn write(link: &Link) -> anyhow::Result<()> {
    // An entry that somebody wrote over may not be JSON.
    let entry: &RawValue = serde_json::from_str(&link.entry)
        .with_context(|| format!("entry {} is not JSON", link.head.seq))?;
    let line = Line {
        head: link.head.to_string(),
        entry,
    };
    say(format_args!("{}\n", serde_json::to_string(&line)?))
}

fn persistence(config: Option<PathBuf>) -> anyhow::Result<PersistenceConfig> {
    let mut settings = settings(config)?;
    // As `tollgate up` in this directory.
    Configs::set_defaults(&mut settings, DATA)?;
    let config = PersistenceConfig::read(&settings)?;
    config.validate()?;
    // Opening it would create it.
    if let Some(file) = config.database_url.expose().strip_prefix("sqlite://") {
        let file = file.split('?').next().unwrap_or_default();
        anyhow::ensure!(
            Path::new(file).exists(),
            "persistence.database_url: there is no file {file}"
        );
    }
    Ok(config)
}
