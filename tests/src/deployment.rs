//! The services as they run in production, each a process of its own, on a log and a store of the test's own.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use tempfile::TempDir;
use tollgate_types::{Decision, Stage};

use crate::kafka::TestLog;
use crate::postgres::TestStore;
use crate::process::Service;
use crate::wait;

/// How long a service may take to be ready.
const READY: Duration = Duration::from_secs(60);

/// A log, a store and a folder, and how services are started on them.
#[derive(Debug)]
pub struct Deployment {
    /// The log.
    pub log: TestLog,
    /// The store.
    pub store: TestStore,
    dir: TempDir,
    further: Vec<(String, String)>,
}

impl Deployment {
    /// Makes log and store; starts nothing.
    ///
    /// # Errors
    /// Where Kafka or PostgreSQL is not there.
    pub async fn create(test: &str, partitions: u16) -> anyhow::Result<Self> {
        Ok(Self {
            log: TestLog::create(test, partitions).await?,
            store: TestStore::create(test).await?,
            dir: tempfile::tempdir()?,
            further: Vec::new(),
        })
    }

    /// A folder of the test's own, gone with it.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// One more setting of every service that is started from here on: `SCORER__MODE`, `batch`.
    /// The last value counts.
    pub fn set(&mut self, name: &str, value: impl Into<String>) {
        self.further
            .push((format!("TOLLGATE_{name}"), value.into()));
    }

    /// One more variable of every service that is started from here on, which is no setting.
    pub fn environment(&mut self, name: &str, value: impl std::fmt::Display) {
        self.further.push((name.to_owned(), value.to_string()));
    }

    /// Starts one service: `ingest`, `scorer`, `persistence` or `notifier`. It may not be ready yet.
    ///
    /// # Errors
    /// Where it does not start.
    pub fn spawn(&self, service: &str) -> anyhow::Result<Service> {
        Service::spawn(&format!("tollgate-{service}"), &self.settings(service))
    }

    /// As [`Deployment::spawn`], with its log appended to a file.
    ///
    /// # Errors
    /// Where it does not start.
    pub fn spawn_logging(&self, service: &str, log: &Path) -> anyhow::Result<Service> {
        let name = format!("tollgate-{service}");
        Service::spawn_logging(&name, &self.settings(service), Some(log))
    }

    fn settings(&self, service: &str) -> Vec<(String, String)> {
        let mut settings = self.log.settings();
        let mut set =
            |name: &str, value: &str| settings.push((format!("TOLLGATE_{name}"), value.to_owned()));
        set(
            &format!("{}__ADMIN_LISTEN", service.to_uppercase()),
            "127.0.0.1:0",
        );
        match service {
            "ingest" => set("INGEST__LISTEN", "127.0.0.1:0"),
            "persistence" => {
                set("PERSISTENCE__LISTEN", "127.0.0.1:0");
                set("PERSISTENCE__DATABASE_URL", self.store.url());
            }
            "notifier" => {
                let sink = serde_json::json!([{ "kind": "file", "path": self.alerts_file() }]);
                set("NOTIFIER__SINKS", &sink.to_string());
                set("NOTIFIER__DELIVERY_LOG_URL", self.store.url());
            }
            _ => {}
        }
        settings.extend_from_slice(&self.further);
        settings
    }

    /// Starts one service and waits until it is ready.
    ///
    /// # Errors
    /// Where it does not become ready.
    pub async fn start(&self, service: &str) -> anyhow::Result<Service> {
        let mut started = self.spawn(service)?;
        started.ready(READY).await?;
        Ok(started)
    }

    fn alerts_file(&self) -> PathBuf {
        self.dir.path().join("alerts.ndjson")
    }

    /// Waits until a stage has done, and committed, everything that is on its topic.
    ///
    /// # Errors
    /// Where it has not within `limit`.
    pub async fn caught_up(&self, stage: Stage, limit: Duration) -> anyhow::Result<()> {
        let mut last = 0;
        let what = format!("everything done by {stage}");
        let waited = wait::until(limit, &what, async || {
            last = self.log.lag(stage)?;
            Ok((last == 0).then_some(()))
        });
        let result = waited.await;
        result.with_context(|| format!("{stage} lags by {last} records"))
    }

    /// Decisions that the file sink of the notifier has got: one text each.
    ///
    /// # Errors
    /// Where a line is no decision.
    pub fn alerts(&self) -> anyhow::Result<Vec<String>> {
        let text = match std::fs::read_to_string(self.alerts_file()) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(error.into()),
        };
        let lines = text.lines().map(|line| {
            Decision::parse(line.as_bytes()).with_context(|| format!("not a decision: {line}"))?;
            Ok(line.to_owned())
        });
        lines.collect()
    }
}
