//! `tollgate demo`: a sample through the whole pipeline in this process, and a summary.

mod input;
mod progress;
mod replay;
mod report;
mod scenes;

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use serde::Deserialize;
use tollgate_service::Shutdown;
use tollgate_service::config::Settings;
use tollgate_service::supervisor::RunningService;
use tollgate_service::telemetry::Telemetry;

use crate::all_in_one::{AllInOne, Configs};
use crate::commands::{DemoArgs, say};
use input::Input;
use progress::Progress;
use replay::Replay;

/// How long the pipeline may take to decide and store everything that it has accepted.
const WORK_OFF: Duration = Duration::from_secs(60);

/// Decisions by status, as the read API counts them.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(default)]
pub(crate) struct ByStatus {
    pub(crate) approved: u64,
    pub(crate) review: u64,
    pub(crate) blocked: u64,
}

impl ByStatus {
    const fn total(self) -> u64 {
        self.approved + self.review + self.blocked
    }

    const fn alerts(self) -> u64 {
        self.review + self.blocked
    }
}

pub(crate) async fn run(args: DemoArgs) -> anyhow::Result<()> {
    let input = match &args.input {
        Some(path) => Input::file(path)?,
        None => Input::sample()?,
    };
    let directory = std::env::temp_dir().join(format!("tollgate-demo-{}", std::process::id()));
    let settings = settings(&directory)?;
    let configs = Configs::read(&settings, &directory.to_string_lossy())?;
    let thresholds = configs.scorer.rules.status.clone();
    let telemetry = Telemetry::start("tollgate", &configs.telemetry)?;
    let shutdown = Shutdown::on_signal();
    let started = Instant::now();
    let running = AllInOne::start(configs, &shutdown).await?;
    if !running.until_ready(&shutdown).await {
        return running.join().await;
    }
    say(format_args!(
        "Four services are up in this process after {:.1} s:\n\n{}\n",
        started.elapsed().as_secs_f64(),
        running.addresses()
    ))?;
    say(format_args!(
        "Replaying {} ({} transactions) over HTTP …\n\n",
        input.what,
        input.lines.len()
    ))?;

    let api = Api::new(&running)?;
    let progress = Progress::new(input.lines.len() as u64);
    let replay = Replay::run(&api, &input.lines, args.rate, &progress, &shutdown).await?;
    let decided = api
        .until_stored(replay.accepted, &progress, &shutdown)
        .await?;
    let alerts = until_written(
        &directory.join("alerts.ndjson"),
        decided.alerts(),
        &shutdown,
    )
    .await;
    progress.finish();
    let took = replay.started.elapsed();

    say(report::alerts(&alerts))?;
    let caught = report::Caught::of(&input.frauds, &alerts);
    say(report::Summary {
        replay: &replay,
        decided,
        took,
        caught: &caught,
        thresholds: &thresholds,
    })?;
    // As it was called, so that the lines can be copied.
    let program = std::env::args().next();
    let program = program.as_deref().unwrap_or("tollgate");
    say(report::where_to_look_next(&directory, program))?;
    shutdown.begin();
    let ended = running.join().await;
    telemetry.stop().await;
    ended
}

/// The embedded defaults in a directory of this run's own; an address that is in use is replaced by a free one.
fn settings(directory: &Path) -> anyhow::Result<Settings> {
    let mut settings = Settings::load(None, std::env::vars())?;
    let path = directory
        .to_str()
        .context("the directory for temporary files has a name that is no text")?;
    if !settings.is_set("notifier.sinks") {
        settings.set_path(
            "notifier.sinks",
            &format!(r#"[{{"kind": "file", "path": "{path}/alerts.ndjson"}}]"#),
        )?;
    }
    Configs::set_defaults(&mut settings, path)?;
    let addresses = [
        ("ingest.listen", 8080),
        ("persistence.listen", 8082),
        ("ingest.admin_listen", 9101),
        ("scorer.admin_listen", 9102),
        ("persistence.admin_listen", 9103),
        ("notifier.admin_listen", 9104),
    ];
    for (setting, port) in addresses {
        if !settings.is_set(setting) && TcpListener::bind(("127.0.0.1", port)).is_err() {
            settings.set_path(setting, "127.0.0.1:0")?;
        }
    }
    Ok(settings)
}

/// The pipeline's two HTTP APIs.
pub(crate) struct Api {
    client: reqwest::Client,
    pub(crate) transactions: String,
    stats: String,
}

impl Api {
    fn new(running: &AllInOne) -> anyhow::Result<Self> {
        let url = |service: &RunningService, path: &str| {
            let address = service.address.context("the service has no API")?;
            anyhow::Ok(format!("http://{address}{path}"))
        };
        Ok(Self {
            client: reqwest::Client::builder()
                .no_proxy()
                .timeout(Duration::from_secs(35))
                .build()?,
            transactions: url(&running.ingest, "/v1/transactions")?,
            stats: url(&running.persistence, "/v1/stats")?,
        })
    }

    /// Decisions stored so far.
    pub(crate) async fn decided(&self) -> anyhow::Result<ByStatus> {
        #[derive(Deserialize)]
        struct Stats {
            by_status: ByStatus,
        }
        let answer = self
            .client
            .get(&self.stats)
            .send()
            .await?
            .error_for_status()?;
        let stats: Stats = serde_json::from_slice(&answer.bytes().await?)?;
        Ok(stats.by_status)
    }

    /// Waits until everything that was accepted is decided and stored. Duplicates have one row, so no growth for a
    /// second ends the wait too.
    async fn until_stored(
        &self,
        accepted: u64,
        progress: &Progress,
        shutdown: &Shutdown,
    ) -> anyhow::Result<ByStatus> {
        let deadline = Instant::now() + WORK_OFF;
        let (mut last, mut grew) = (ByStatus::default(), Instant::now());
        loop {
            let decided = self.decided().await?;
            progress.decided(decided);
            if decided.total() > last.total() {
                (last, grew) = (decided, Instant::now());
            }
            let quiet = last.total() > 0 && grew.elapsed() > Duration::from_secs(3);
            if decided.total() >= accepted || quiet || shutdown.is_begun() {
                return Ok(decided);
            }
            anyhow::ensure!(
                Instant::now() < deadline,
                "{} of {accepted} transactions were decided within {} s",
                decided.total(),
                WORK_OFF.as_secs()
            );
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
    }
}

/// The alerts in the sink's file, once so many are there.
async fn until_written(path: &PathBuf, expected: u64, shutdown: &Shutdown) -> Vec<String> {
    let deadline = Instant::now() + WORK_OFF;
    loop {
        let text = tokio::fs::read_to_string(path).await.unwrap_or_default();
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        let lines: Vec<String> = whole.lines().map(str::to_owned).collect();
        if lines.len() as u64 >= expected || Instant::now() >= deadline || shutdown.is_begun() {
            return lines;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
}
