//! `tollgate imports`: what became of imported objects.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;
use comfy_table::{Table, presets};
use serde::Deserialize;
use tollgate_ingest::{ImportStatus, list_imports};
use tollgate_log::Log;
use tollgate_service::terminal::printable;

use crate::commands::{DATA, kafka_config, say};
use crate::running::{RunningUp, no_log_here};

/// Every object that an event named: whether it is read, how many of its rows were accepted, rejected and
/// older than the history of their users (late), why it failed. Rejected rows are dead letters: `tollgate dlq list`. Without
/// brokers in the settings, the `tollgate up` that runs in this directory is asked.
#[derive(Debug, Args)]
pub(crate) struct ImportsArgs {
    /// Only this import, with all its members.
    #[arg(value_name = "ID")]
    id: Option<String>,
    /// TOML file with the settings (section kafka).
    #[arg(long, env = "TOLLGATE_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Brokers; kafka.brokers where not given, and else the `tollgate up` that runs in this directory.
    #[arg(long, value_name = "HOST:PORT,…")]
    brokers: Option<String>,
    /// One JSON object a line, instead of a table.
    #[arg(long)]
    json: bool,
}

/// The answer of `GET /imports` of ingest's admin port.
#[derive(Deserialize)]
struct Answer {
    imports: Vec<ImportStatus>,
}

pub(crate) async fn run(args: ImportsArgs) -> anyhow::Result<()> {
    let mut imports = read(args.config, args.brokers).await?;
    if let Some(id) = &args.id {
        imports.retain(|import| import.id == *id);
        anyhow::ensure!(!imports.is_empty(), "there is no import {id}");
    }
    if args.json {
        for import in &imports {
            say(format_args!("{}\n", serde_json::to_string(import)?))?;
        }
        return Ok(());
    }
    match (&args.id, imports.as_slice()) {
        (Some(_), [import]) => say(details(import)),
        (_, []) => say("no imports\n"),
        (_, imports) => say(format_args!("{}\n", table(imports))),
    }
}

async fn read(
    config: Option<PathBuf>,
    brokers: Option<String>,
) -> anyhow::Result<Vec<ImportStatus>> {
    let kafka = kafka_config(config, brokers)?;
    if kafka.brokers.is_empty() {
        let directory = Path::new(DATA);
        let up = RunningUp::find(directory)?.ok_or_else(|| no_log_here(directory))?;
        let url = format!("{}/imports", up.admin.ingest);
        let client = reqwest::Client::builder().no_proxy().build()?;
        let answer = client.get(&url).send().await.with_context(|| url.clone())?;
        let status = answer.status();
        let body = answer.text().await.with_context(|| url.clone())?;
        anyhow::ensure!(status.is_success(), "{url} answers {status}: {body}");
        let answer: Answer = serde_json::from_str(&body).with_context(|| url.clone())?;
        return Ok(answer.imports);
    }
    tokio::task::spawn_blocking(move || list_imports(&Log::open_cluster(kafka)?)).await?
}

fn table(imports: &[ImportStatus]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED).set_header([
        "import", "state", "bucket", "object", "rows", "accepted", "rejected", "late", "bytes",
        "reason",
    ]);
    for import in imports {
        table.add_row([
            printable(&import.id).into_owned(),
            import.state.name().to_owned(),
            printable(&import.bucket).into_owned(),
            printable(&import.object).into_owned(),
            import.rows.to_string(),
            import.accepted.to_string(),
            import.rejected.to_string(),
            import.late.to_string(),
            format!("{} of {}", import.bytes, import.size),
            printable(import.reason.as_deref().unwrap_or_default()).into_owned(),
        ]);
    }
    table
}

fn details(import: &ImportStatus) -> String {
    let mut lines = String::new();
    for (name, value) in [
        ("import", import.id.as_str()),
        ("state", import.state.name()),
        ("bucket", &import.bucket),
        ("object", &import.object),
        ("version", import.version.as_deref().unwrap_or_default()),
        ("event", &import.event_id),
        ("rows", &import.rows.to_string()),
        ("accepted", &import.accepted.to_string()),
        ("rejected", &import.rejected.to_string()),
        ("late", &import.late.to_string()),
        ("bytes", &format!("{} of {}", import.bytes, import.size)),
        ("reason", import.reason.as_deref().unwrap_or_default()),
    ] {
        if !value.is_empty() {
            lines += &format!("{name:<9} {}\n", printable(value));
        }
    }
    lines
}
