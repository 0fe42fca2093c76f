//! The scorer as a service: starts the consumer and its workers. The supervisor stops the service if one of them ends.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::sync::{mpsc, oneshot};
use tollgate_engine::ACCEPTED_AGE_HOURS;
use tollgate_log::{
    BarrierInterval, Batching, ConsumerOptions, DeliveryFailure, Distribution, Histories, Log,
    Producer, SNAPSHOT_GRACE,
};
use tollgate_service::Shutdown;
use tollgate_service::health::Health;
use tollgate_service::http::bind;
use tollgate_service::supervisor::{RunningService, Supervisor};
use tollgate_types::Stage;

use crate::config::{Mode, ScorerConfig};
use crate::snapshot::{Kept, Snapshots};
use crate::worker::{Worker, WorkerSettings};

/// Records read at once by a worker in the modes that do not wait for a batch to fill.
const MAX_RECORDS: usize = 512;
const MAX_BYTES: usize = 512 * 1024;
/// What the steps of a shutdown may take beyond their own limits before the scorer is aborted.
const DRAIN_SLACK: Duration = Duration::from_secs(2);

/// Starts the scorer. It reads once its topics exist.
///
/// # Errors
/// Names the invalid setting, or the address that is taken.
pub async fn start(
    config: ScorerConfig,
    kafka: Log,
    shutdown: Shutdown,
) -> anyhow::Result<RunningService> {
    config.validate()?;
    let admin = bind("scorer.admin_listen", config.admin_listen)
        .await?
        .with_tls(&config.tls.of_admin())
        .await?;
    let health = Health::starting(&["topics", "log"]);
    let mut supervisor = Supervisor::new("scorer", health.clone(), &shutdown, admin);
    let shutdown = supervisor.shutdown().clone();
    // Scoring drains for the grace period; then snapshots are written, before and after the last commit; then the producer
    // flushes, for a grace period again.
    supervisor.set_drain_timeout(shutdown.grace() * 2 + SNAPSHOT_GRACE * 2 + DRAIN_SLACK);
    supervisor.spawn("scoring", work(config, kafka, health, shutdown));
    Ok(supervisor.start(async |_| Ok(())))
}

/// Starts, prints its admin address on standard output, and runs until it has ended.
///
/// # Errors
/// What ended it.
pub async fn run(config: ScorerConfig, kafka: Log, shutdown: Shutdown) -> anyhow::Result<()> {
    let service = start(config, kafka, shutdown).await?;
    service.announce_and_join().await
}

async fn work(
    config: ScorerConfig,
    kafka: Log,
    health: Health,
    shutdown: Shutdown,
) -> anyhow::Result<()> {
    let topics = kafka.topics();
    let written = [
        topics.transactions.as_str(),
        &topics.decisions,
        &topics.alerts,
        &topics.transactions_dlq,
    ];
    if !kafka.wait_for_topics(&written, &health, &shutdown).await {
        return Ok(());
    }
    warn_without_key(&config, &health);
    // A log in memory ends with its process, and a snapshot of its histories could never be used.
    let in_memory = kafka.embedded().is_some_and(|log| !log.is_durable());
    let snapshots = if config.snapshots.is_empty() || in_memory {
        None
    } else {
        match open_snapshots(&config, &topics.transactions, &health, &shutdown).await {
            None => return Ok(()),
            snapshots => snapshots,
        }
    };
    let producer = kafka.patient_producer("scorer")?;
    let (consumer, lanes) =
        kafka.consume(options(&config, snapshots.as_ref()), &health, &shutdown)?;
    let (failures, mut failed) = mpsc::unbounded_channel();
    let settings = Arc::new(WorkerSettings::new(
        config,
        health,
        kafka.clone(),
        producer.clone(),
        shutdown.clone(),
        failures,
        snapshots,
    )?);
    let mut workers = Vec::new();
    for (index, lane) in lanes.into_iter().enumerate() {
        let (done, ended) = oneshot::channel();
        let worker = Worker::new(Arc::clone(&settings), index);
        std::thread::Builder::new()
            .name(format!("scorer-{index}"))
            .spawn(move || {
                // Nobody listens any more only where another worker has failed first.
                let _ = done.send(worker.run(lane));
            })?;
        workers.push(ended);
    }
    drop(settings);
    let workers = async {
        for worker in workers {
            worker.await.context("a worker has panicked")??;
        }
        anyhow::Ok(())
    };
    tokio::select! {
        Some(failure) = failed.recv() => Err(anyhow::Error::new::<DeliveryFailure>(failure)),
        result = workers => result,
    }?;
    consumer.join().await?;
    flush(producer, shutdown.grace()).await
}

/// Without a key of its own, what a snapshot is protected by lies beside it.
fn warn_without_key(config: &ScorerConfig, health: &Health) {
    let is_kept = !config.snapshots.is_empty() && !config.snapshots.starts_with("memory:");
    let warning = "scorer.snapshot_key is not set: whoever can read and write the store of snapshots can forge the \
                   histories of users, since hash.key lies beside them";
    let warning = (is_kept && config.snapshot_key.is_empty()).then(|| warning.to_owned());
    health.warn("snapshot_key", warning);
}

/// Opens the snapshots as soon as their store answers. `None`: the shutdown came first.
async fn open_snapshots(
    config: &ScorerConfig,
    topic: &str,
    health: &Health,
    shutdown: &Shutdown,
) -> Option<Arc<Snapshots>> {
    while !shutdown.is_begun() {
        match Snapshots::open(config, topic).await {
            Ok(snapshots) => {
                health.ready("snapshots");
                return Some(Arc::new(snapshots));
            }
            Err(error) => {
                let reason = format!("{error:#}");
                if health.reasons().get("snapshots") != Some(&reason) {
                    tracing::warn!(
                        reason,
                        "nothing is decided before the snapshots' store is there"
                    );
                }
                health.not_ready("snapshots", reason);
            }
        }
        tokio::select! {
            () = tokio::time::sleep(Duration::from_secs(1)) => {}
            () = shutdown.begun() => {}
        }
    }
    None
}

async fn flush(producer: Producer, grace: Duration) -> anyhow::Result<()> {
    Ok(tokio::task::spawn_blocking(move || producer.flush(grace)).await??)
}

fn options(config: &ScorerConfig, snapshots: Option<&Arc<Snapshots>>) -> ConsumerOptions {
    let (distribution, batching) = match config.mode {
        Mode::Ordered => (Distribution::ByPartition(config.parallelism), at_once()),
        Mode::Parallel => (Distribution::ByKey(config.parallelism), at_once()),
        Mode::Batch => {
            let batch = &config.batch;
            let batching = Batching {
                max_records: batch.max_messages,
                max_bytes: batch.max_bytes,
                max_wait: Duration::from_millis(batch.max_wait_ms),
            };
            (Distribution::ByPartition(config.parallelism), batching)
        }
    };
    ConsumerOptions {
        stage: Stage::Scorer,
        topics: Vec::new(),
        start: config.starting_position,
        distribution,
        batching,
        budget_records: config.max_in_flight_records,
        budget_bytes: config.max_in_flight_bytes,
        commit_interval: Duration::from_millis(config.commit_interval_ms),
        replay: Some(replay(config)),
        histories: snapshots.map(|snapshots| {
            let every = BarrierInterval {
                interval: Duration::from_secs(config.snapshot_interval_seconds),
                offsets: i64::from(config.snapshot_records),
            };
            let histories: Arc<dyn Histories> = Arc::new(Kept(Arc::clone(snapshots)));
            (histories, every)
        }),
    }
}

/// How far back the log is read to rebuild histories, by the timestamps of records. A transaction that is accepted now may be 72
/// hours older than its record; it is scored against the lookback before it; and each of those may have been ahead of its own
/// record.
fn replay(config: &ScorerConfig) -> Duration {
    let around_records = ACCEPTED_AGE_HOURS + u64::from(config.max_ahead_hours);
    Duration::from_secs(config.rules.lookback_seconds() + around_records * 3_600)
}

const fn at_once() -> Batching {
    Batching {
        max_records: MAX_RECORDS,
        max_bytes: MAX_BYTES,
        max_wait: Duration::ZERO,
    }
}
