//! Wires the parts together, watches over them, and drains them in order.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;
use tollgate_log::{
    Batching, ConsumerHandle, ConsumerOptions, Distribution, Kafka, StartingPosition,
};
use tollgate_service::Shutdown;
use tollgate_service::database::Database;
use tollgate_service::health::Health;
use tollgate_service::http::{Bound, bind, serve_admin};
use tollgate_service::telemetry::metrics_handle;
use tollgate_types::Stage;

use crate::Cloud;
use crate::config::NotifierConfig;
use crate::dead_letters::LetterWriter;
use crate::delivery::{Drain, Means, SinkWorker};
use crate::delivery_log::{self, Store};
use crate::dispatch::{Dispatcher, SinkQueue};
use crate::sinks::{ConsoleOut, Sink};

/// Alerts that one question to the delivery log covers.
const BATCH_RECORDS: usize = 100;
/// What the consumer may read beyond its budget before it looks at it again, in batches.
const BEYOND_BUDGET: usize = 1_024;
const LEDGER_CONNECTIONS: u32 = 4;

/// A notifier that runs.
#[derive(Debug)]
pub struct Notifier {
    /// Where it answers probes and scrapes.
    pub admin_address: SocketAddr,
    /// Whether it can do its work, and if not, why.
    pub health: Health,
    task: JoinHandle<anyhow::Result<()>>,
}

impl Notifier {
    /// Whether it has ended, which it does not before the shutdown unless something is wrong.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.task.is_finished()
    }

    /// Waits until it is ready. False where it has ended before.
    pub async fn ready(&self) -> bool {
        while !self.health.is_ready() {
            if self.task.is_finished() {
                return false;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        true
    }

    /// Waits until it has ended: drained after the shutdown, or by an error of one of its parts.
    ///
    /// # Errors
    /// What ended it.
    pub async fn join(self) -> anyhow::Result<()> {
        self.task.await.context("the notifier has panicked")?
    }
}

/// Starts delivering alerts, and returns as soon as the settings have proved usable. The log and a PostgreSQL delivery log
/// may be away: the service is then not ready, and says why.
///
/// # Errors
/// Names the setting at fault.
pub async fn start(
    config: NotifierConfig,
    kafka: Kafka,
    shutdown: Shutdown,
    console: ConsoleOut,
    cloud: &Cloud,
) -> anyhow::Result<Notifier> {
    // What is counted before there is a recorder is lost.
    metrics_handle();
    let specs = config.validate()?;
    config.check_retention(kafka.config().retention_hours)?;
    let admin = bind("notifier.admin_listen", config.admin_listen).await?;
    let admin_address = admin.address();
    let health = Health::starting(&["log", delivery_log::COMPONENT]);
    let stop = shutdown.child();
    let late = CancellationToken::new();
    let drain = Drain {
        stop: stop.clone(),
        late: late.clone(),
    };

    let database = Database::open(
        "notifier.delivery_log_url",
        &config.delivery_log_url,
        LEDGER_CONNECTIONS,
    )
    .await?;
    database.watch("notifier delivery log");
    let (delivery_log, delivery_log_writer, store) =
        delivery_log::open(database, health.clone(), stop.clone());
    let (letters, letter_writer) =
        LetterWriter::new(kafka.clone(), kafka.producer("notifier")?, stop.clone());
    let means = Means {
        delivery_log,
        letters: letters.clone(),
        drain,
    };
    let mut workers = Vec::with_capacity(specs.len());
    for spec in specs {
        let (name, sink) = (spec.name.clone(), Sink::open(&spec, &console, cloud).await?);
        let limits = config.limits(&spec);
        let worker = SinkWorker::new(spec, sink, &limits, means.clone());
        workers.push((name, Arc::new(worker)));
    }
    drop(means);

    let (consumer, lane) = consume(&config, &kafka, &health, &stop)?;
    let mut parts = Parts::default();
    let mut queues = Vec::with_capacity(workers.len());
    for (name, worker) in workers {
        let (sender, queue) = mpsc::channel(config.budget_records.saturating_add(BEYOND_BUDGET));
        queues.push(SinkQueue {
            loads: sender,
            queued: worker.queued(),
        });
        parts.spawn(format!("sink {name}"), worker.run(queue));
    }
    let dispatcher = Dispatcher {
        lane,
        queues,
        letters,
        reads: kafka.reads(Stage::Notifier),
        stop: stop.clone(),
    };
    parts.spawn("dead letters", letter_writer.run());
    parts.spawn("delivery_log", delivery_log_writer.run());
    let days = u64::from(config.delivery_log_retention_days);
    let keeper = keep(
        store.clone(),
        Duration::from_secs(days * 86_400),
        dispatcher,
    );
    parts.spawn("dispatch", keeper);

    let service = Service {
        consumer,
        parts,
        store,
        health: health.clone(),
        stop,
        late,
    };
    let task = tokio::spawn(service.run(admin));
    Ok(Notifier {
        admin_address,
        health,
        task,
    })
}

/// Brings the delivery log's tables to what this version works with, and ends.
///
/// # Errors
/// Names the setting at fault, or says what the database answers.
pub async fn migrate(config: &NotifierConfig) -> anyhow::Result<()> {
    config.validate()?;
    let database = Database::open("notifier.delivery_log_url", &config.delivery_log_url, 1).await?;
    Ok(delivery_log::migrate(&database).await?)
}

/// Delivers alerts until `shutdown`, or until one of its parts has died.
///
/// # Errors
/// Names the setting at fault, or says what ended the service.
pub async fn run(
    config: NotifierConfig,
    kafka: Kafka,
    shutdown: Shutdown,
    console: ConsoleOut,
    cloud: &Cloud,
) -> anyhow::Result<()> {
    start(config, kafka, shutdown, console, cloud)
        .await?
        .join()
        .await
}

fn consume(
    config: &NotifierConfig,
    kafka: &Kafka,
    health: &Health,
    stop: &Shutdown,
) -> anyhow::Result<(ConsumerHandle, tollgate_log::WorkerQueue)> {
    let options = ConsumerOptions {
        stage: Stage::Notifier,
        topics: Vec::new(),
        start: StartingPosition::TrimHorizon,
        distribution: Distribution::ByPartition(1),
        batching: Batching {
            max_records: BATCH_RECORDS,
            max_bytes: 1024 * 1024,
            max_wait: Duration::ZERO,
        },
        budget_records: config.budget_records,
        budget_bytes: config.budget_bytes,
        commit_interval: Duration::from_secs(1),
        replay: None,
        histories: None,
    };
    let (consumer, mut lanes) = kafka.consume(options, health, stop)?;
    let lane = lanes.pop().context("the log has given no lane")?;
    Ok((consumer, lane))
}

/// Nothing is handed out before the delivery log has its tables.
async fn keep(store: Store, retention: Duration, dispatcher: Dispatcher) -> anyhow::Result<()> {
    if store.prepare().await.context("the delivery log")? {
        tokio::try_join!(dispatcher.run(), store.keep(retention)).map(drop)
    } else {
        dispatcher.run().await
    }
}

/// The tasks of the service, with their names.
#[derive(Debug, Default)]
struct Parts(JoinSet<anyhow::Result<()>>);

impl Parts {
    fn spawn(
        &mut self,
        name: impl Into<String>,
        part: impl Future<Output = anyhow::Result<()>> + Send + 'static,
    ) {
        let name = name.into();
        self.0.spawn(async move { part.await.context(name) });
    }

    /// Waits for the next to end. None when there is none left.
    async fn next(&mut self) -> Option<anyhow::Result<()>> {
        let ended = self.0.join_next().await?;
        Some(ended.context("a task has panicked").flatten())
    }
}

struct Service {
    consumer: ConsumerHandle,
    parts: Parts,
    store: Store,
    health: Health,
    stop: Shutdown,
    late: CancellationToken,
}

impl Service {
    async fn run(self, admin: Bound) -> anyhow::Result<()> {
        let Self {
            consumer,
            mut parts,
            store,
            health,
            stop,
            late,
        } = self;
        // Probes are answered to the end: a service that drains is alive, and says that it is not ready.
        let admin_stop = Shutdown::new(Duration::from_secs(1));
        let mut admin = tokio::spawn(serve_admin(admin, health.clone(), admin_stop.clone()));
        let mut reading = std::pin::pin!(consumer.join());
        let mut read = None;
        let mut outcome = tokio::select! {
            () = stop.begun() => Ok(()),
            ended = parts.next() => ended.unwrap_or(Ok(())),
            ended = &mut reading => {
                read = Some(());
                ended.map_err(Into::into)
            }
            ended = &mut admin => ended.context("the admin port has panicked").flatten(),
        };
        let asked = stop.is_begun();
        stop.begin();
        health.not_ready("service", "stopping");
        if let Err(error) = &outcome {
            tracing::error!(error = format!("{error:#}"), "the notifier stops");
        }

        // Half of the time is for beginning what waits, the rest for ending what was begun.
        let (half, end) = (stop.grace() / 2, stop.grace() * 9 / 10);
        let mut half = std::pin::pin!(tokio::time::sleep(half));
        let mut end = std::pin::pin!(tokio::time::sleep(end));
        loop {
            tokio::select! {
                ended = parts.next() => match ended {
                    Some(ended) => outcome = outcome.and(ended),
                    None => break,
                },
                () = &mut half, if !late.is_cancelled() => late.cancel(),
                () = &mut end => {
                    tracing::warn!("deliveries were cut off at the end of the grace period");
                    parts.0.shutdown().await;
                    break;
                }
                ended = &mut reading, if read.is_none() => {
                    read = Some(());
                    outcome = outcome.and(ended.map_err(Into::into));
                }
            }
        }
        if read.is_none() {
            outcome = outcome.and(reading.await.map_err(Into::into));
        }
        store.database.close().await;
        admin_stop.begin();
        if !admin.is_finished() {
            outcome = outcome.and(admin.await.context("the admin port has panicked").flatten());
        }
        if outcome.is_ok() && !asked {
            outcome = Err(anyhow::anyhow!(
                "a part of the notifier has ended by itself"
            ));
        }
        outcome
    }
}
