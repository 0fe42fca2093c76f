//! Reading as a member of a consumer group: one thread polls, fills batches and commits; workers process the batches.
//!
//! See `consumer_loop` for the order of the steps, and `feed` for the interface to the log.

mod assignments;
mod barriers;
mod budget;
mod checkpoints;
mod commits;
mod consumer_loop;
mod dispatch;
pub(crate) mod feed;
mod lookup;
mod partition;
mod reports;
mod restore;
#[cfg(test)]
mod tests;
mod watchdog;

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};
use tollgate_service::Shutdown;
use tollgate_service::health::Health;
use tollgate_types::Stage;

use crate::Log;
use crate::backend::Metadata;
use crate::batch::Batch;
use crate::error::LogError;
use crate::histories::{BarrierInterval, Histories, Position};
use crate::record::TopicPartition;
use consumer_loop::{ConsumerLoop, LoopParts};
use feed::{FeedOptions, Membership, OutOfRange};
use watchdog::{Heartbeat, Watchdog};

/// How long a look for the topics may take, and the pause before the next.
const TOPICS_TIMEOUT: Duration = Duration::from_secs(10);
const TOPICS_PAUSE: Duration = Duration::from_millis(200);
/// How long partitions that are taken away may complete what is in flight.
const REVOKE_GRACE: Duration = Duration::from_secs(5);

/// How long snapshots may take to be written, each time, when partitions are revoked or the consumer stops. It waits at most
/// twice: for the snapshots under way, and for those at the last committed offsets.
pub const SNAPSHOT_GRACE: Duration = Duration::from_secs(5);

/// Where a consumer group that has never committed begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum StartingPosition {
    /// With the oldest record that is there.
    #[default]
    TrimHorizon,
    /// With the next record that is written.
    Latest,
}

/// How records are spread over workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Distribution {
    /// By key: users side by side, order kept per user.
    ByKey(usize),
    /// By partition: order kept per partition.
    ByPartition(usize),
}

impl Distribution {
    /// How many workers there are.
    const fn workers(self) -> usize {
        match self {
            Self::ByKey(0) | Self::ByPartition(0) => 1,
            Self::ByKey(count) | Self::ByPartition(count) => count,
        }
    }
}

/// When a batch is handed to its worker: as soon as one of these is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Batching {
    /// Records in it.
    pub max_records: usize,
    /// Bytes in it.
    pub max_bytes: usize,
    /// Age of its first record. Zero: as soon as nothing more is ready to be read.
    pub max_wait: Duration,
}

/// How a stage reads its topics.
#[derive(Debug, Clone)]
pub struct ConsumerOptions {
    /// The stage: names the consumer group, and the reader in metrics.
    pub stage: Stage,
    /// The topics to read. None is the stage's own topic. A history is kept of the first topic alone.
    pub topics: Vec<String>,
    /// Where a new group begins.
    pub start: StartingPosition,
    /// How records are spread.
    pub distribution: Distribution,
    /// How batches are cut.
    pub batching: Batching,
    /// Most records in flight.
    pub budget_records: usize,
    /// Most bytes in flight.
    pub budget_bytes: usize,
    /// Time between commits.
    pub commit_interval: Duration,
    /// How far back before the committed offset the first topic is read, as replayed records: for histories that are
    /// kept in memory.
    pub replay: Option<Duration>,
    /// Where histories are kept beside the log, and how often barriers are set.
    pub histories: Option<(Arc<dyn Histories>, BarrierInterval)>,
}

/// What a worker gets.
#[derive(Debug)]
pub enum Event {
    /// These partitions are this process's from here on. One event for each topic that is read.
    Assigned(Assignment),
    /// These partitions, all that there were, are no longer this process's.
    Revoked(Vec<TopicPartition>),
    /// Records.
    Batch(Batch),
    /// The history of this partition, as it is in all workers together now, stands at this position.
    Barrier(Position),
}

/// Partitions of one topic that were given to this process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assignment {
    /// Index of the topic among those that are read.
    pub topic: usize,
    /// Numbers of the partitions.
    pub partitions: Vec<i32>,
    /// How many partitions the topic has.
    pub total: i32,
}

/// The reading thread.
#[derive(Debug)]
pub struct ConsumerHandle(oneshot::Receiver<Result<(), LogError>>);

impl ConsumerHandle {
    /// Waits until it has ended: after the shutdown with everything committed, or by an error.
    ///
    /// # Errors
    /// What ended it.
    pub async fn join(self) -> Result<(), LogError> {
        self.0.await.unwrap_or_else(|_| {
            Err(LogError::Refused(
                "the thread that reads the log has panicked".to_owned(),
            ))
        })
    }
}

/// Events of one worker, in order.
pub type WorkerQueue = mpsc::UnboundedReceiver<Event>;

impl Log {
    /// Starts reading. The queues to the workers are bounded by the budget.
    ///
    /// # Errors
    /// Where the client cannot be made of the settings.
    pub fn consume(
        &self,
        mut options: ConsumerOptions,
        health: &Health,
        shutdown: &Shutdown,
    ) -> Result<(ConsumerHandle, Vec<WorkerQueue>), LogError> {
        let stage = options.stage;
        if options.topics.is_empty() {
            options.topics = vec![self.topics().input_of(stage).to_owned()];
        }
        let workers = options.distribution.workers();
        let (senders, queues) = (0..workers).map(|_| mpsc::unbounded_channel()).unzip();
        let feed = self.backend().feed(FeedOptions {
            stage: Some(stage.name()),
            group: self.group(stage),
            membership: Membership::Member,
            out_of_range: OutOfRange::Fail,
            topics: options.topics.clone(),
        })?;
        let metadata = self.backend().metadata()?;
        let heartbeat = Heartbeat::new();
        let limit = Duration::from_secs(u64::from(self.config().stall_seconds));
        let (topics, waiting) = (options.topics.clone(), health.clone());
        let parts = LoopParts {
            feed,
            options,
            reads: self.reads(stage),
            queues: senders,
            health: health.clone(),
            shutdown: shutdown.clone(),
            heartbeat: heartbeat.clone(),
            revoke_grace: REVOKE_GRACE,
        };
        let (done, handle) = oneshot::channel();
        let run = move || {
            let health = parts.health.clone();
            let shutdown = parts.shutdown.clone();
            let result = if wait_for_topics(&*metadata, &topics, &waiting, &shutdown) {
                drop(metadata);
                Watchdog::start(stage.name(), heartbeat, limit, health)
                    .and_then(|_watchdog| ConsumerLoop::new(parts)?.run())
            } else {
                Ok(())
            };
            // The receiver is gone only where the service ended before its reader.
            let _ = done.send(result);
        };
        std::thread::Builder::new()
            .name(format!("{stage}-reader"))
            .spawn(run)
            .map_err(|error| LogError::Refused(format!("cannot start a thread: {error}")))?;
        Ok((ConsumerHandle(handle), queues))
    }
}

/// Waits until all of these exist. False: the shutdown came first.
fn wait_for_topics(
    metadata: &dyn Metadata,
    topics: &[String],
    health: &Health,
    shutdown: &Shutdown,
) -> bool {
    let names: Vec<&str> = topics.iter().map(String::as_str).collect();
    while !shutdown.is_begun() {
        let missing = match metadata.partition_counts(&names, TOPICS_TIMEOUT) {
            Ok(counts) => {
                let missing = topics.iter().find(|topic| !counts.contains_key(*topic));
                missing.map(|topic| LogError::NoTopic(topic.clone()))
            }
            Err(error) => Some(error),
        };
        match missing {
            None => return true,
            Some(reason) => health.not_ready("log", reason.to_string()),
        }
        std::thread::sleep(TOPICS_PAUSE);
    }
    false
}
