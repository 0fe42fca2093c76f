//! Reading from the log: one thread polls, cuts batches, commits; workers do the rest.
//!
//! Back-pressure has one mechanism: what is in hand stays within a budget of records and bytes; beyond it the thread
//! waits a moment, then pauses its partitions and goes on polling, so that the group never takes it for dead.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::Message;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError as ClientError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Headers as _};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio::sync::oneshot;
use tollgate_types::Stage;

use super::assignment::Assigner;
use super::shared::Shared;
use super::{
    BarrierInterval, Batch, Histories, Kafka, KafkaError, Position, Profile, reports, statistics,
};
use tollgate_service::Shutdown;
use tollgate_service::health::Health;

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

/// When a batch is handed to its worker: as soon as one of these is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Batching {
    /// Records in it.
    pub max_records: usize,
    /// Bytes in it.
    pub max_bytes: usize,
    /// Age of its first record. Zero: as soon as nothing more is at hand.
    pub max_wait: Duration,
}

/// How a stage reads its topic.
#[derive(Debug, Clone)]
pub struct ConsumerOptions {
    /// The stage; its topic and consumer group follow.
    pub stage: Stage,
    /// Where a new group begins.
    pub start: StartingPosition,
    /// How records are spread.
    pub lanes: Distribution,
    /// How batches are cut.
    pub batching: Batching,
    /// Most records in hand.
    pub budget_records: usize,
    /// Most bytes in hand.
    pub budget_bytes: usize,
    /// Time between commits.
    pub commit_interval: Duration,
    /// Read so far back before the committed offset, marked as replayed: for histories that live in memory.
    pub replay: Option<Duration>,
    /// Where histories are kept beside the log, and how often they are marked. Not for the embedded log.
    pub histories: Option<(Arc<dyn Histories>, BarrierInterval)>,
}

/// What a worker gets.
#[derive(Debug)]
pub enum Event {
    /// These partitions are this process's from here on.
    Assigned(Assignment),
    /// These partitions are no longer this process's.
    Revoked(Vec<i32>),
    /// Records.
    Batch(Batch),
    /// The history of this partition, as it is in all workers together now, stands at this position.
    Barrier(Position),
}

/// Partitions that were given to this process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assignment {
    /// Their numbers.
    pub partitions: Vec<i32>,
    /// How many partitions the topic has.
    pub total: i32,
}

/// The reading thread.
#[derive(Debug)]
pub struct ConsumerHandle(oneshot::Receiver<Result<(), KafkaError>>);

impl ConsumerHandle {
    /// Waits until it has ended: after the shutdown with everything committed, or by an error.
    ///
    /// # Errors
    /// What ended it.
    pub async fn join(self) -> Result<(), KafkaError> {
        self.0.await.unwrap_or_else(|_| {
            Err(KafkaError::Refused(
                "the thread that reads the log has panicked".to_owned(),
            ))
        })
    }
}

/// Events of one worker, in order.
pub type WorkerQueue = mpsc::UnboundedReceiver<Event>;

impl Kafka {
    /// Starts reading a stage's topic. The queues to the workers are bounded by the budget.
    ///
    /// # Errors
    /// Where the client cannot be made of the settings.
    pub fn consume(
        &self,
        options: ConsumerOptions,
        health: &Health,
        shutdown: &Shutdown,
    ) -> Result<(ConsumerHandle, Vec<WorkerQueue>), KafkaError> {
        let count = match options.lanes {
            Distribution::ByKey(count) | Distribution::ByPartition(count) => count.max(1),
        };
        let (senders, lanes) = (0..count).map(|_| mpsc::unbounded_channel()).unzip();
        let topic = self.topics().input_of(options.stage).to_owned();
        let shared = Arc::new(Shared::new(
            topic,
            self.reads(options.stage),
            senders,
            options,
            health.clone(),
        ));
        let mut config = self.consumer_config();
        let properties = &self.config().properties;
        config
            .set("group.id", self.group(shared.options.stage))
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("auto.offset.reset", "error")
            .set("enable.partition.eof", "true")
            .set("partition.assignment.strategy", "range,roundrobin")
            .set("statistics.interval.ms", statistics::INTERVAL_MS);
        // One that was killed is noticed in seconds, and its partitions go to another.
        let mut own = vec![("session.timeout.ms", "10000")];
        if self.config().profile() == Profile::Embedded {
            own.push(("fetch.wait.max.ms", "5"));
        }
        for (name, value) in own {
            if !properties.contains_key(name) {
                config.set(name, value);
            }
        }
        let assigner = Assigner {
            shared: Arc::clone(&shared),
        };
        let consumer: BaseConsumer<Assigner> = config
            .create_with_context(assigner)
            .map_err(KafkaError::client("cannot make a consumer"))?;
        let (done, handle) = oneshot::channel();
        let reader = Reader {
            kafka: self.clone(),
            consumer: Arc::new(consumer),
            shared,
            shutdown: shutdown.clone(),
            hasher: RandomState::new(),
            paused: false,
        };
        let spawned = std::thread::Builder::new()
            .name(format!("{}-reader", reader.shared.options.stage))
            .spawn(move || {
                // The receiver is gone only where the service ended before its reader.
                let _ = done.send(reader.run());
            });
        spawned.map_err(|error| KafkaError::Refused(format!("cannot start a thread: {error}")))?;
        Ok((ConsumerHandle(handle), lanes))
    }
}

/// The thread that commits.
struct Committer {
    wake: std::sync::mpsc::SyncSender<()>,
    thread: std::thread::JoinHandle<()>,
}

impl Committer {
    /// Has it commit, unless it is about to.
    fn wake(&self) {
        let _ = self.wake.try_send(());
    }

    /// Waits until it has ended.
    fn end(self) {
        drop(self.wake);
        // If it has panicked, what it did not commit is read again.
        let _ = self.thread.join();
    }
}

struct Reader {
    kafka: Kafka,
    consumer: Arc<BaseConsumer<Assigner>>,
    shared: Arc<Shared>,
    shutdown: Shutdown,
    hasher: RandomState,
    paused: bool,
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.shared.stop_restoring(&self.consumer);
    }
}

impl Reader {
    fn run(mut self) -> Result<(), KafkaError> {
        if !self.wait_for_topic()? {
            return Ok(());
        }
        self.start()?;
        let committer = self.start_committer()?;
        let mut next_commit = Instant::now();
        let mut next_mark = Instant::now();
        while !self.shutdown.is_begun() {
            if let Some(refusal) = self.shared.refusal() {
                return Err(refusal);
            }
            if self.shared.take_restored(&self.consumer)? {
                self.set_paused(false);
            }
            self.keep_within_budget()?;
            let idle = self.read_some()?;
            self.shared.dispatch_due(idle)?;
            if Instant::now() >= next_commit {
                committer.wake();
                next_commit = Instant::now() + self.shared.options.commit_interval;
                if let Some(pause) = self.shared.mark_due(Instant::now() >= next_mark)? {
                    next_mark = Instant::now() + pause;
                }
            }
        }
        self.shared.close_hand();
        committer.end();
        self.finish();
        Ok(())
    }

    /// Reads until nothing is at hand, or for some hundred records. Whether nothing more is at hand.
    fn read_some(&self) -> Result<bool, KafkaError> {
        let mut wait = if self.shared.has_pending() {
            Duration::ZERO
        } else {
            Duration::from_millis(50)
        };
        if let Some(due) = self.shared.next_due() {
            wait = due
                .saturating_duration_since(Instant::now())
                .min(Duration::from_millis(50));
        }
        for _ in 0..512 {
            match self.consumer.poll(wait) {
                Some(Ok(message)) => self.take(&message)?,
                Some(Err(error)) => self.heed(error)?,
                None => return Ok(true),
            }
            wait = Duration::ZERO;
        }
        Ok(false)
    }

    fn take(&self, message: &BorrowedMessage<'_>) -> Result<(), KafkaError> {
        let (partition, offset) = (message.partition(), message.offset());
        self.shared.check_first(partition, offset);
        let (key, payload) = (message.key(), message.payload().unwrap_or_default());
        let lane = match self.shared.options.lanes {
            Distribution::ByKey(lanes) => self.spread(key) % lanes.max(1) as u64,
            Distribution::ByPartition(lanes) => {
                u64::from(partition.unsigned_abs()) % lanes.max(1) as u64
            }
        };
        let headers = message.headers();
        let mut header_bytes = 0;
        let headers = headers
            .iter()
            .flat_map(|headers| headers.iter())
            .map(|header| (header.key, header.value));
        let headers = headers
            .inspect(|(name, value)| header_bytes += name.len() + value.map_or(0, <[u8]>::len));
        let position = (partition, offset, message.timestamp().to_millis());
        self.shared.push(
            usize::try_from(lane).unwrap_or_default(),
            position,
            key,
            payload,
            headers,
        )?;
        if let Some(log) = self.kafka.embedded() {
            log.release(
                message.topic(),
                partition,
                key.map_or(0, <[u8]>::len) + payload.len() + header_bytes,
            );
        }
        Ok(())
    }

    fn spread(&self, key: Option<&[u8]>) -> u64 {
        match &self.shared.options.histories {
            Some((histories, _)) => histories.lane(key.unwrap_or_default()),
            None => self.hasher.hash_one(key),
        }
    }

    fn heed(&self, error: ClientError) -> Result<(), KafkaError> {
        match error {
            ClientError::PartitionEOF(partition) => self.shared.reached_end(partition),
            ClientError::MessageConsumption(
                RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange,
            )
            | ClientError::MessageConsumptionFatal(_) => {
                return Err(KafkaError::client(format!(
                    "topic {} no longer holds the records to go on with: they were deleted before this stage had read them. \
                     Raise the topic's retention; to go on with what is left, reset the offsets of group {}",
                    self.shared.topic,
                    self.kafka.group(self.shared.options.stage)
                ))(error));
            }
            // Everything else passes by itself: the client reconnects and rejoins.
            other => reports::tell(&other, "reading the log"),
        }
        Ok(())
    }

    fn keep_within_budget(&mut self) -> Result<(), KafkaError> {
        let (records, bytes) = (
            self.shared.options.budget_records,
            self.shared.options.budget_bytes,
        );
        let tracker = &self.shared.tracker;
        if self.shared.is_restoring() {
            return Ok(());
        }
        if !self.paused {
            let (held_records, held_bytes) = tracker.in_flight();
            if held_records <= records && held_bytes <= bytes {
                return Ok(());
            }
            // What waits here would otherwise never reach its worker, and the hand would never empty.
            self.shared.dispatch_due(true)?;
            if tracker.wait_until_within(records / 2, bytes / 2, Duration::from_millis(500)) {
                return Ok(());
            }
            self.switch(true);
        } else if tracker.wait_until_within(records / 2, bytes / 2, Duration::from_millis(50)) {
            self.switch(false);
        }
        Ok(())
    }

    fn switch(&mut self, pause: bool) {
        let changed = self.consumer.assignment().and_then(|assigned| {
            if pause {
                self.consumer.pause(&assigned)
            } else {
                self.consumer.resume(&assigned)
            }
        });
        match changed {
            Ok(()) => self.set_paused(pause),
            Err(error) => tracing::warn!(%error, pause, "pausing or resuming"),
        }
    }

    fn set_paused(&mut self, paused: bool) {
        self.paused = paused;
        metrics::gauge!("tollgate_log_paused", "stage" => self.shared.options.stage.name())
            .set(f64::from(u8::from(paused)));
    }

    fn commit(&self) {
        // The embedded log has no groups.
        if self.kafka.embedded().is_none() {
            self.shared.commit(&self.consumer);
        }
    }

    /// Commits beside the reading, which must not wait for the answer.
    fn start_committer(&self) -> Result<Committer, KafkaError> {
        let (wake, woken) = std::sync::mpsc::sync_channel(1);
        let (consumer, shared) = (Arc::clone(&self.consumer), Arc::clone(&self.shared));
        let embedded = self.kafka.embedded().is_some();
        let thread = std::thread::Builder::new()
            .name(format!("{}-committer", self.shared.options.stage))
            .spawn(move || {
                while woken.recv().is_ok() {
                    if !embedded {
                        shared.commit(&consumer);
                    }
                }
            })
            .map_err(|error| KafkaError::Refused(format!("cannot start a thread: {error}")))?;
        Ok(Committer { wake, thread })
    }

    /// Waits for what the workers have, commits it, keeps the histories.
    fn finish(self) {
        if !self
            .shared
            .tracker
            .wait_until_within(0, 0, self.shutdown.grace())
        {
            let (records, _) = self.shared.tracker.in_flight();
            tracing::warn!(
                records,
                "not finished within the grace period; these are read again after the restart"
            );
        }
        self.commit();
        if let Err(error) = self.shared.keep_histories() {
            tracing::warn!(%error, "the next owner reads more of the log");
        }
        // Nothing is left to give back when the group is left.
        self.shared.tracker.assign(&[]);
        // The workers see the end of their lanes; leaving the group happens when the consumer is dropped.
        self.shared.close_lanes();
    }

    fn wait_for_topic(&self) -> Result<bool, KafkaError> {
        while !self.shutdown.is_begun() {
            let topic = self.shared.topic.as_str();
            match self.kafka.partition_counts(&[topic]) {
                Ok(counts) if counts.contains_key(topic) => return Ok(true),
                Ok(_) => self.shared.health.not_ready(
                    "log",
                    format!("topic {topic} does not exist; `tollgate topics create` makes it"),
                ),
                Err(error) => self.shared.health.not_ready("log", error.to_string()),
            }
            std::thread::sleep(Duration::from_millis(200));
        }
        Ok(false)
    }

    fn start(&self) -> Result<(), KafkaError> {
        let topic = self.shared.topic.as_str();
        if self.kafka.embedded().is_none() {
            return self
                .consumer
                .subscribe(&[topic])
                .map_err(KafkaError::client(format!("cannot subscribe to {topic}")));
        }
        // The mock cluster takes seconds for a rebalance, and there is nobody to share with.
        self.shared.assign_all(&self.consumer)
    }
}
