//! The four services in one process. They share nothing but topics.

use std::fmt::Write as _;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use serde::Serialize;
use tollgate_ingest::IngestConfig;
use tollgate_log::{KafkaConfig, Log, Profile};
use tollgate_notifier::{Cloud, ConsoleOut, NotifierConfig, SinkKind};
use tollgate_persistence::PersistenceConfig;
use tollgate_scorer::ScorerConfig;
use tollgate_service::Shutdown;
use tollgate_service::cloud::Cloud as _;
use tollgate_service::config::Settings;
use tollgate_service::http::TlsConfig;
use tollgate_service::supervisor::RunningService;
use tollgate_service::telemetry::TelemetryConfig;

use crate::archive::{DEAD_LETTERS, DeadLetterArchive};
use crate::card_key;
use crate::dlq::DlqServer;
use crate::running::{AdminUrls, DataDirectory, RunningUp, local_url};

/// The journal of the embedded log in the data directory of `up`.
pub(crate) const JOURNAL: &str = "journal.db";

/// The store in the data directory of `up`.
const STORE: &str = "tollgate.db";

/// Every section.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Configs {
    pub(crate) kafka: KafkaConfig,
    pub(crate) ingest: IngestConfig,
    pub(crate) scorer: ScorerConfig,
    pub(crate) persistence: PersistenceConfig,
    pub(crate) notifier: NotifierConfig,
    pub(crate) telemetry: TelemetryConfig,
    pub(crate) tls: TlsConfig,
    pub(crate) oci: Cloud,
    /// The data directory: everything that was not configured is kept here.
    #[serde(skip)]
    directory: PathBuf,
    /// No key for the tokens of card numbers is configured: that of the data directory is used.
    #[serde(skip)]
    keeps_card_key: bool,
}

impl Configs {
    /// Keeps everything that was not configured under one directory.
    pub(crate) fn set_defaults(settings: &mut Settings, directory: &str) -> anyhow::Result<()> {
        let sinks = format!(
            r#"[{{"kind": "console"}}, {{"kind": "file", "path": "{directory}/alerts.ndjson"}}]"#
        );
        for (setting, text) in [
            (
                "persistence.database_url",
                format!("sqlite://{directory}/{STORE}"),
            ),
            (
                "notifier.delivery_log_url",
                format!("sqlite://{directory}/notifier.db"),
            ),
            ("notifier.sinks", sinks),
            ("telemetry.log_format", "text".to_owned()),
            ("telemetry.log", "warn".to_owned()),
        ] {
            if !settings.is_set(setting) {
                settings.set_path(setting, &text)?;
            }
        }
        Ok(())
    }

    /// Reads and checks every section.
    pub(crate) fn read(settings: &Settings, directory: &str) -> anyhow::Result<Self> {
        let mut ingest: IngestConfig = settings.section("ingest")?;
        let mut scorer: ScorerConfig = settings.section("scorer")?;
        let keeps_card_key = ingest.card_token_key.is_empty();
        if keeps_card_key {
            // Until the data directory is locked.
            ingest.card_token_key = card_key::new()?;
        }
        accept_alike(settings, &ingest, &mut scorer);
        let mut configs = Self {
            kafka: settings.section("kafka")?,
            ingest,
            scorer,
            persistence: PersistenceConfig::read(settings)?,
            notifier: settings.section("notifier")?,
            telemetry: settings.section("telemetry")?,
            tls: TlsConfig::read(settings)?,
            oci: Cloud::read(settings)?,
            directory: PathBuf::from(directory),
            keeps_card_key,
        };
        configs.ingest.tls = configs.tls.clone();
        configs.scorer.tls = configs.tls.clone();
        configs.persistence.tls = configs.tls.clone();
        configs.notifier.tls = configs.tls.clone();
        configs.telemetry.validate()?;
        configs.kafka.validate_for_service()?;
        configs.ingest.validate(&configs.kafka)?;
        configs.scorer.validate()?;
        configs.scorer.validate_record_size(&configs.kafka)?;
        let scored = configs.scorer.max_transaction_bytes;
        configs.ingest.validate_scored_size(scored)?;
        let since = configs.scorer.earliest_timestamp;
        configs.ingest.validate_scored_since(since)?;
        configs.persistence.validate()?;
        configs.notifier.validate()?;
        Ok(configs)
    }

    /// Whether no other machine sends payments to these services, and nothing leaves this one.
    fn is_local(&self) -> anyhow::Result<bool> {
        let kept_here = |kind: &SinkKind| match kind {
            SinkKind::Console | SinkKind::File(_) => true,
            SinkKind::Webhook(_) | SinkKind::Oci(_) => false,
        };
        let sinks = self.notifier.validate()?;
        Ok(self.ingest.listen.ip().is_loopback()
            && self
                .persistence
                .database_url
                .expose()
                .starts_with("sqlite:")
            && sinks.iter().all(|sink| kept_here(&sink.kind)))
    }
}

/// What is not set for the scorer is as for ingest: in one process, one setting is enough.
fn accept_alike(settings: &Settings, ingest: &IngestConfig, scorer: &mut ScorerConfig) {
    let is_set = |name: &str| settings.is_set(&format!("scorer.{name}"));
    if !is_set("card_data") {
        scorer.card_data = ingest.card_data;
    }
    if !is_set("card_token_key") {
        scorer.card_token_key = ingest.card_token_key.clone();
    }
    if !is_set("card_data_ids") {
        scorer.card_data_ids = ingest.card_data_ids;
    }
    if !is_set("card_data_exempt") {
        scorer.card_data_exempt.clone_from(&ingest.card_data_exempt);
    }
    if !is_set("earliest_timestamp") {
        scorer.earliest_timestamp = ingest.earliest_timestamp;
    }
}

/// Whether there is a store without its journal. A path that cannot be used is none that is missing: opening it fails.
fn lacks_journal(config: &KafkaConfig, store: &Path) -> bool {
    let is_absent = |path: &Path| match std::fs::metadata(path) {
        Ok(found) => found.len() == 0,
        Err(error) => error.kind() == ErrorKind::NotFound,
    };
    config.profile() == Profile::Embedded
        && !config.journal.is_empty()
        && is_absent(Path::new(&config.journal))
        && !is_absent(store)
}

/// Opens the log. A store without its journal has decisions of which the scorer knows nothing.
fn open_log(config: KafkaConfig, store: &Path) -> anyhow::Result<Log> {
    let journal = lacks_journal(&config, store).then(|| config.journal.clone());
    let log = Log::open(config)?;
    if let Some(journal) = journal {
        tracing::warn!(
            journal,
            store = %store.display(),
            "the journal is missing beside a store: histories begin empty, transactions that were decided before are not \
             recognised as duplicates, and what was accepted and not decided is lost. Stop, and put the journal back if you \
             have it"
        );
    }
    Ok(log)
}

/// The running services.
pub(crate) struct AllInOne {
    pub(crate) ingest: RunningService,
    pub(crate) scorer: RunningService,
    pub(crate) persistence: RunningService,
    pub(crate) notifier: RunningService,
    pub(crate) kafka: Log,
    archive: Option<DeadLetterArchive>,
    dlq: Option<DlqServer>,
    upstream: Shutdown,
    downstream: Shutdown,
    /// As in `up.json`.
    local: bool,
    /// Locked as long as the services run.
    directory: DataDirectory,
}

impl AllInOne {
    /// Starts them.
    pub(crate) async fn start(mut configs: Configs, shutdown: &Shutdown) -> anyhow::Result<Self> {
        let mut directory = DataDirectory::lock(configs.directory.clone())?;
        if configs.keeps_card_key {
            let key = card_key::kept_in(directory.path())?;
            if configs.scorer.card_token_key == configs.ingest.card_token_key {
                configs.scorer.card_token_key = key.clone();
            }
            configs.ingest.card_token_key = key;
        }
        let embedded = configs.kafka.profile() == Profile::Embedded;
        let local = embedded && configs.is_local()?;
        let kafka = open_log(configs.kafka, &directory.join(STORE))?;
        // Readers stop after writers, so that every accepted transaction is decided, stored and delivered.
        let upstream = shutdown.child();
        let downstream = Shutdown::new(shutdown.grace());
        let archive = if embedded {
            let path = directory.join(DEAD_LETTERS);
            Some(DeadLetterArchive::start(&kafka, path, downstream.clone())?)
        } else {
            None
        };
        let persistence =
            tollgate_persistence::start(configs.persistence, kafka.clone(), downstream.clone())
                .await?;
        let notifier = tollgate_notifier::start(
            configs.notifier,
            kafka.clone(),
            downstream.clone(),
            ConsoleOut::default(),
            &configs.oci,
        )
        .await?;
        let scorer =
            tollgate_scorer::start(configs.scorer, kafka.clone(), downstream.clone()).await?;
        // Last: until here nothing can be accepted, and a start that fails leaves nothing behind.
        let ingest =
            tollgate_ingest::start(configs.ingest, kafka.clone(), upstream.clone()).await?;
        directory.keep();
        Ok(Self {
            ingest,
            scorer,
            persistence,
            notifier,
            kafka,
            archive,
            dlq: None,
            upstream,
            downstream,
            local,
            directory,
        })
    }

    /// Writes the addresses to `up.json`, by which other commands find this process, and serves `tollgate dlq` where
    /// other processes cannot reach the log. Both end with this process.
    ///
    /// # Errors
    /// Where the file or the socket cannot be made.
    pub(crate) fn publish(&mut self) -> anyhow::Result<()> {
        if self.kafka.embedded().is_some() {
            let path = self.directory.path();
            let server = DlqServer::start(path, self.kafka.clone(), self.upstream.clone())?;
            self.dlq = Some(server);
        }
        let admin =
            |service: &RunningService| local_url(service.admin_scheme, service.admin_address);
        let api = |service: &RunningService| {
            let url = service
                .address
                .map(|address| local_url(service.scheme, address));
            url.unwrap_or_default()
        };
        self.directory.publish(&RunningUp {
            pid: std::process::id(),
            ingest: api(&self.ingest),
            persistence: api(&self.persistence),
            admin: AdminUrls {
                ingest: admin(&self.ingest),
                scorer: admin(&self.scorer),
                persistence: admin(&self.persistence),
                notifier: admin(&self.notifier),
            },
            local: self.local,
            // The embedded log cannot be reached by another process.
            brokers: (self.kafka.embedded().is_none()).then(|| self.kafka.brokers()),
        })
    }

    fn services(&self) -> [&RunningService; 4] {
        [
            &self.ingest,
            &self.scorer,
            &self.persistence,
            &self.notifier,
        ]
    }

    /// Waits until every service is ready. False: the shutdown came first, or a service has ended.
    pub(crate) async fn until_ready(&self, shutdown: &Shutdown) -> bool {
        for service in self.services() {
            let ready = tokio::select! {
                ready = service.ready() => ready,
                () = shutdown.begun() => false,
            };
            if !ready {
                return false;
            }
        }
        true
    }

    /// A line for each address.
    pub(crate) fn addresses(&self) -> String {
        let mut lines = String::new();
        // Writing to memory cannot fail.
        for service in self.services() {
            if let Some(url) = service.url() {
                let _ = writeln!(lines, "{}: {url}", service.name);
            }
        }
        for service in self.services() {
            let _ = writeln!(lines, "{} admin: {}", service.name, service.admin_url());
        }
        if self.kafka.embedded().is_none() {
            let _ = writeln!(lines, "log: {}", self.kafka.brokers());
        }
        lines
    }

    /// Waits for the shutdown, or for a service that ends by itself; then stops the others, writers first.
    pub(crate) async fn join(self) -> anyhow::Result<()> {
        let Self {
            ingest,
            scorer,
            persistence,
            notifier,
            kafka,
            archive,
            dlq,
            upstream,
            downstream,
            local: _,
            directory: _directory,
        } = self;
        let mut ingest = std::pin::pin!(ingest.join());
        let mut scorer = std::pin::pin!(scorer.join());
        let mut persistence = std::pin::pin!(persistence.join());
        let mut notifier = std::pin::pin!(notifier.join());
        let early = tokio::select! {
            result = &mut ingest => ("ingest", result),
            result = &mut scorer => ("scorer", result),
            result = &mut persistence => ("persistence", result),
            result = &mut notifier => ("notifier", result),
        };
        upstream.begin();
        if early.0 != "ingest" {
            downstream.begin();
            return early.1.with_context(|| format!("{} has ended", early.0));
        }
        if let Some(dlq) = dlq {
            dlq.join().await;
        }
        if early.1.is_ok() {
            drain(&kafka, upstream.grace()).await;
        }
        downstream.begin();
        let (scorer, persistence, notifier) = tokio::join!(scorer, persistence, notifier);
        if let Some(archive) = archive {
            archive.join().await?;
        }
        early.1.and(scorer).and(persistence).and(notifier)
    }
}

/// A log in memory ends with the process: waits until every accepted transaction is decided, stored and delivered. What
/// a journal holds is processed after the next start.
async fn drain(kafka: &Log, grace: Duration) {
    let Some(log) = kafka.embedded().filter(|log| !log.is_durable()) else {
        return;
    };
    let topics = kafka.topics();
    let uncommitted = || {
        [&topics.transactions, &topics.decisions, &topics.alerts]
            .into_iter()
            .map(|topic| log.uncommitted(topic))
            .sum::<usize>()
    };
    let deadline = tokio::time::Instant::now() + grace;
    while uncommitted() > 0 {
        if tokio::time::Instant::now() >= deadline {
            tracing::warn!(
                records = uncommitted(),
                "the embedded log has records that were not processed within the grace period; they are lost"
            );
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
