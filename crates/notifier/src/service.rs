//! Wires the service: the consumer, the dispatcher, a worker for each sink, and the writers. The supervisor starts,
//! watches and drains them.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tollgate_log::{
    Batching, ConsumerHandle, ConsumerOptions, Distribution, Log, StartingPosition,
};
use tollgate_service::Shutdown;
use tollgate_service::database::Database;
use tollgate_service::health::Health;
use tollgate_service::http::bind;
use tollgate_service::supervisor::{RunningService, Supervisor};
use tollgate_service::telemetry::metrics_handle;
use tollgate_types::Stage;

use crate::Cloud;
use crate::config::NotifierConfig;
use crate::dead_letters::LetterWriter;
use crate::delivery::{Drain, Shared, SinkWorker};
use crate::delivery_log::{self, Store};
use crate::dispatch::{Dispatcher, SinkQueue};
use crate::sinks::{ConsoleOut, Sink};

/// Most records of a batch: its alerts are looked up in the delivery log together.
const BATCH_RECORDS: usize = 100;
/// Batches that the consumer may read beyond its budget before it checks the budget again.
const BEYOND_BUDGET: usize = 1_024;
/// Connections to the database of the delivery log.
const CONNECTIONS: u32 = 4;

/// Starts delivering alerts, and returns as soon as the settings have been checked. The log and a PostgreSQL delivery log
/// may be down: then the service is not ready, and `/readyz` holds the reason.
///
/// # Errors
/// Names the invalid setting.
pub async fn start(
    config: NotifierConfig,
    kafka: Log,
    shutdown: Shutdown,
    console: ConsoleOut,
    cloud: &Cloud,
) -> anyhow::Result<RunningService> {
    // Counts made before there is a recorder are lost.
    metrics_handle();
    let specs = config.validate()?;
    config.check_retention(kafka.config().retention_hours)?;
    let admin = bind("notifier.admin_listen", config.admin_listen)
        .await?
        .with_tls(&config.tls.of_admin())
        .await?;
    let health = Health::starting(&["log", delivery_log::COMPONENT]);
    let mut supervisor = Supervisor::new("notifier", health.clone(), &shutdown, admin);
    let stop = supervisor.shutdown().clone();
    // In the first half of the grace period alerts that wait are still begun; the rest is for completing those in flight.
    let late = CancellationToken::new();
    supervisor.begin_second_phase(stop.grace() / 2, late.clone());
    supervisor.set_drain_timeout(stop.grace() * 9 / 10);

    let url = &config.delivery_log_url;
    let database = Database::open("notifier.delivery_log_url", url, CONNECTIONS).await?;
    database.watch("notifier delivery log");
    let (delivery_log, delivery_log_writer, store) =
        delivery_log::open(database, health.clone(), stop.clone());
    let (letters, letter_writer) =
        LetterWriter::new(kafka.clone(), kafka.producer("notifier")?, stop.clone());
    let shared = Shared {
        delivery_log,
        letters: letters.clone(),
        drain: Drain {
            stop: stop.clone(),
            late,
        },
    };
    let mut workers = Vec::with_capacity(specs.len());
    for spec in specs {
        let (name, sink) = (spec.name.clone(), Sink::open(&spec, &console, cloud).await?);
        let dependency = config.dependency_config(&spec);
        let worker = SinkWorker::new(spec, sink, &dependency, shared.clone());
        workers.push((name, Arc::new(worker)));
    }
    // The delivery log's writer ends when the last of its users has.
    drop(shared);

    let (consumer, queue) = consume(&config, &kafka, &health, &stop)?;
    supervisor.spawn_support("the consumer", async move { Ok(consumer.join().await?) });
    let mut queues = Vec::with_capacity(workers.len());
    for (name, worker) in workers {
        let (sender, queue) = mpsc::channel(config.budget_records.saturating_add(BEYOND_BUDGET));
        queues.push(SinkQueue {
            guards: sender,
            queued: worker.queued(),
        });
        supervisor.spawn(format!("sink {name}"), worker.run(queue));
    }
    let dispatcher = Dispatcher {
        queue,
        queues,
        letters,
        log: kafka.clone(),
        reads: kafka.reads(Stage::Notifier),
        stop,
    };
    supervisor.spawn("the dead-letter writer", letter_writer.run());
    supervisor.spawn("the delivery log", delivery_log_writer.run());
    let days = u64::from(config.delivery_log_retention_days);
    let retention = Duration::from_secs(days * 86_400);
    supervisor.spawn(
        "the dispatcher",
        dispatch(store.clone(), retention, dispatcher),
    );
    Ok(supervisor.start(async move |_| {
        store.database.close().await;
        Ok(())
    }))
}

/// Brings the tables of the delivery log to the schema of this version, and ends.
///
/// # Errors
/// Names the invalid setting, or holds the database's error.
pub async fn migrate(config: &NotifierConfig) -> anyhow::Result<()> {
    config.validate()?;
    let database = Database::open("notifier.delivery_log_url", &config.delivery_log_url, 1).await?;
    Ok(delivery_log::migrate(&database).await?)
}

/// Starts, prints its admin address on standard output, and delivers alerts until it has ended.
///
/// # Errors
/// Names the invalid setting, or holds what ended the service.
pub async fn run(
    config: NotifierConfig,
    kafka: Log,
    shutdown: Shutdown,
    console: ConsoleOut,
    cloud: &Cloud,
) -> anyhow::Result<()> {
    let service = start(config, kafka, shutdown, console, cloud).await?;
    service.announce_and_join().await
}

fn consume(
    config: &NotifierConfig,
    kafka: &Log,
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
    let (consumer, mut queues) = kafka.consume(options, health, stop)?;
    let queue = queues.pop().context("the consumer has no worker queue")?;
    Ok((consumer, queue))
}

/// Dispatches alerts once the delivery log has its tables, and deletes its old rows.
async fn dispatch(store: Store, retention: Duration, dispatcher: Dispatcher) -> anyhow::Result<()> {
    if store.prepare().await.context("the delivery log")? {
        tokio::try_join!(dispatcher.run(), store.maintain(retention)).map(drop)
    } else {
        dispatcher.run().await
    }
}
