//! Which partitions are this process's, from where each is read, and what happens when they go.
//!
//! Runs inside the poll of the reading thread, where the client library asks for it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rdkafka::client::ClientContext;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _, ConsumerContext};
use rdkafka::error::{KafkaResult, RDKafkaErrorCode};
use rdkafka::statistics::Statistics;
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{Offset, TopicPartitionList};
use tokio::sync::mpsc;

use super::consumer::{Assignment, ConsumerOptions, Event, StartingPosition};
use super::tracker::Tracker;
use super::{ASK, Batch, KafkaError};
use crate::health::Health;

/// How long partitions that are taken away may finish what is in hand.
const REVOKE_GRACE: Duration = Duration::from_secs(10);

/// A batch that is being filled, and when it is due.
struct Pending {
    batch: Batch,
    due: Instant,
}

/// State of one consumer, shared by its reading thread and the client library's callbacks.
pub(crate) struct Shared {
    pub(crate) topic: String,
    pub(crate) options: ConsumerOptions,
    pub(crate) tracker: Arc<Tracker>,
    pub(crate) health: Health,
    lanes: Mutex<Vec<mpsc::UnboundedSender<Event>>>,
    pending: Mutex<Vec<Option<Pending>>>,
    /// Partitions whose history is being rebuilt, with the offset at which that ends.
    rebuilding: Mutex<HashMap<i32, i64>>,
    refusal: Mutex<Option<KafkaError>>,
    /// Partitions of the topic at the last assignment.
    total: AtomicI32,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    pub(crate) fn new(topic: String, lanes: Vec<mpsc::UnboundedSender<Event>>, options: ConsumerOptions, health: Health) -> Self {
        let pending = lanes.iter().map(|_| None).collect();
        Self {
            topic,
            options,
            tracker: Arc::default(),
            health,
            lanes: Mutex::new(lanes),
            pending: Mutex::new(pending),
            rebuilding: Mutex::default(),
            refusal: Mutex::default(),
            total: AtomicI32::new(0),
        }
    }

    pub(crate) fn refusal(&self) -> Option<KafkaError> {
        lock(&self.refusal).take()
    }

    pub(crate) fn has_pending(&self) -> bool {
        lock(&self.pending).iter().any(Option::is_some)
    }

    /// When the oldest batch that may wait is due.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        if self.options.batching.max_wait.is_zero() {
            return None;
        }
        lock(&self.pending).iter().flatten().map(|pending| pending.due).min()
    }

    /// Adds a record to its lane's batch, and hands the batch over when it is full.
    pub(crate) fn push<'r>(
        &self,
        lane: usize,
        position: (i32, i64, Option<i64>),
        key: Option<&[u8]>,
        payload: &[u8],
        headers: impl Iterator<Item = (&'r str, Option<&'r [u8]>)>,
    ) -> Result<(), KafkaError> {
        let (partition, offset, _) = position;
        let replayed = self.is_replayed(partition, offset);
        let batching = &self.options.batching;
        let mut pending = lock(&self.pending);
        let slot = &mut pending[lane];
        let filling = slot.get_or_insert_with(|| Pending {
            batch: Batch::new(self.tracker.epoch(), Arc::clone(&self.tracker)),
            due: Instant::now() + batching.max_wait,
        });
        let before = filling.batch.bytes();
        filling.batch.push(position, replayed, key, payload, headers);
        self.tracker.begin(partition, offset, replayed, filling.batch.bytes() - before);
        let full = filling.batch.len() >= batching.max_records || filling.batch.bytes() >= batching.max_bytes;
        match slot.take_if(|_| full) {
            Some(full) => self.hand_over(lane, Event::Batch(full.batch)),
            None => Ok(()),
        }
    }

    /// Hands over what is due. `idle`: nothing more is at hand, so that a batch that need not wait goes.
    pub(crate) fn dispatch_due(&self, idle: bool) -> Result<(), KafkaError> {
        let waits = !self.options.batching.max_wait.is_zero();
        if !waits && !idle {
            return Ok(());
        }
        let mut pending = lock(&self.pending);
        let now = Instant::now();
        for (lane, slot) in pending.iter_mut().enumerate() {
            if let Some(due) = slot.take_if(|pending| !waits || pending.due <= now) {
                self.hand_over(lane, Event::Batch(due.batch))?;
            }
        }
        Ok(())
    }

    fn hand_over(&self, lane: usize, event: Event) -> Result<(), KafkaError> {
        match lock(&self.lanes).get(lane).map(|lane| lane.send(event)) {
            Some(Ok(())) => Ok(()),
            Some(Err(_)) | None => Err(KafkaError::Refused(format!("a worker of {} has stopped", self.options.stage))),
        }
    }

    fn tell_all(&self, event: impl Fn() -> Event) {
        for lane in lock(&self.lanes).iter() {
            // A worker that is gone is noticed when records are handed to it.
            let _ = lane.send(event());
        }
    }

    pub(crate) fn drop_pending(&self) {
        lock(&self.pending).iter_mut().for_each(|slot| *slot = None);
    }

    pub(crate) fn close_lanes(&self) {
        lock(&self.lanes).clear();
    }

    /// Whether the record stands before the committed offset; ends the rebuilding when it is the last such.
    fn is_replayed(&self, partition: i32, offset: i64) -> bool {
        if self.options.replay.is_none() {
            return false;
        }
        let mut rebuilding = lock(&self.rebuilding);
        let Some(end) = rebuilding.get(&partition).copied() else { return false };
        if offset + 1 >= end {
            rebuilding.remove(&partition);
            self.say_ready(&rebuilding);
        }
        offset < end
    }

    pub(crate) fn reached_end(&self, partition: i32) {
        let mut rebuilding = lock(&self.rebuilding);
        if rebuilding.remove(&partition).is_some() {
            self.say_ready(&rebuilding);
        }
    }

    fn say_ready(&self, rebuilding: &HashMap<i32, i64>) {
        metrics::gauge!("tollgate_log_rebuilding_partitions", "stage" => self.options.stage.name())
            .set(u32::try_from(rebuilding.len()).map_or(f64::MAX, f64::from));
        if rebuilding.is_empty() {
            self.health.ready("log");
        } else {
            self.health.not_ready("log", format!("rebuilding the history of {} partitions from the log", rebuilding.len()));
        }
    }

    /// Commits the frontier of every partition. Waits for the answer where `wait` says so.
    pub(crate) fn commit<C: ConsumerContext>(&self, consumer: &BaseConsumer<C>, wait: bool) {
        let mut list = TopicPartitionList::new();
        let partitions = self.partition_note();
        for (partition, offset) in self.tracker.to_commit() {
            let mut element = list.add_partition(&self.topic, partition);
            // An offset that the ledger offers is a valid one.
            let _ = element.set_offset(Offset::Offset(offset));
            if let Some(note) = &partitions {
                element.set_metadata(note);
            }
        }
        if list.count() == 0 {
            return;
        }
        if let Err(error) = consumer.commit(&list, if wait { CommitMode::Sync } else { CommitMode::Async }) {
            tracing::warn!(%error, topic = self.topic, "a commit failed; it is tried again");
        } else if wait {
            self.note_committed(&list);
        }
    }

    fn note_committed(&self, list: &TopicPartitionList) {
        for element in list.elements() {
            if let (Ok(()), Offset::Offset(offset)) = (element.error(), element.offset()) {
                self.tracker.committed(element.partition(), offset);
            }
        }
    }

    /// Written beside each committed offset where histories depend on the number of partitions.
    fn partition_note(&self) -> Option<String> {
        self.options.replay?;
        Some(format!("{PARTITIONS_NOTE}{}", self.total.load(Ordering::Relaxed)))
    }
}

const PARTITIONS_NOTE: &str = "partitions=";

/// From where a partition is read, and where its replayed part ends.
struct Start {
    partition: i32,
    offset: Offset,
    replay_until: Option<i64>,
}

impl Shared {
    /// Takes every partition without a group.
    pub(crate) fn assign_all(self: &Arc<Self>, consumer: &BaseConsumer<Assigner>) -> Result<(), KafkaError> {
        let total = self.count_partitions(consumer)?;
        let starts = (0..total).map(|partition| Start { partition, offset: Offset::Beginning, replay_until: None });
        self.begin(consumer, starts.collect(), total)
    }

    fn assigned(&self, consumer: &BaseConsumer<Assigner>, list: &TopicPartitionList) -> Result<(), KafkaError> {
        let total = self.count_partitions(consumer)?;
        let partitions: Vec<i32> = list.elements().iter().map(rdkafka::topic_partition_list::TopicPartitionListElem::partition).collect();
        let committed = consumer
            .committed_offsets(list.clone(), ASK)
            .map_err(KafkaError::client(format!("cannot read the committed offsets of {}", self.topic)))?;
        let horizon = self.horizon(consumer, &partitions)?;
        let mut starts = Vec::new();
        for element in committed.elements() {
            let partition = element.partition();
            self.refuse_torn_history(element.metadata(), total)?;
            let committed = match element.offset() {
                Offset::Offset(offset) => Some(offset),
                _ if self.options.start == StartingPosition::Latest => {
                    let (_, end) = consumer
                        .fetch_watermarks(&self.topic, partition, ASK)
                        .map_err(KafkaError::client(format!("cannot read the end of {}", self.topic)))?;
                    Some(end)
                }
                _ => None,
            };
            starts.push(match (committed, horizon.get(&partition)) {
                (None, _) => Start { partition, offset: Offset::Beginning, replay_until: None },
                (Some(end), Some(Offset::Offset(from))) if *from < end => {
                    Start { partition, offset: Offset::Offset(*from), replay_until: Some(end) }
                }
                (Some(end), _) => Start { partition, offset: Offset::Offset(end), replay_until: None },
            });
        }
        self.begin(consumer, starts, total)
    }

    fn begin(&self, consumer: &BaseConsumer<Assigner>, starts: Vec<Start>, total: i32) -> Result<(), KafkaError> {
        let mut list = TopicPartitionList::new();
        let partitions: Vec<i32> = starts.iter().map(|start| start.partition).collect();
        for start in &starts {
            list.add_partition_offset(&self.topic, start.partition, start.offset)
                .map_err(KafkaError::client("an offset is out of range"))?;
        }
        self.total.store(total, Ordering::Relaxed);
        self.tracker.assign(&partitions);
        let mut rebuilding = lock(&self.rebuilding);
        *rebuilding = starts.iter().filter_map(|start| Some((start.partition, start.replay_until?))).collect();
        self.tell_all(|| Event::Assigned(Assignment { partitions: partitions.clone(), total }));
        tracing::info!(topic = self.topic, ?partitions, rebuilding = rebuilding.len(), "assigned");
        self.say_ready(&rebuilding);
        drop(rebuilding);
        consumer.assign(&list).map_err(KafkaError::client(format!("cannot take partitions of {}", self.topic)))
    }

    fn revoked(&self, consumer: &BaseConsumer<Assigner>, list: &TopicPartitionList) {
        let partitions: Vec<i32> = list.elements().iter().map(rdkafka::topic_partition_list::TopicPartitionListElem::partition).collect();
        self.drop_pending();
        if !self.tracker.wait_until_within(0, 0, REVOKE_GRACE) {
            tracing::warn!(topic = self.topic, "partitions go while records are in hand; the next owner reads them again");
        }
        self.commit(consumer, true);
        self.tracker.assign(&[]);
        tracing::info!(topic = self.topic, ?partitions, "revoked");
        self.tell_all(|| Event::Revoked(partitions.clone()));
        if let Err(error) = consumer.unassign() {
            tracing::warn!(%error, topic = self.topic, "giving partitions back");
        }
    }

    fn count_partitions(&self, consumer: &BaseConsumer<Assigner>) -> Result<i32, KafkaError> {
        let metadata = consumer
            .fetch_metadata(Some(&self.topic), ASK)
            .map_err(KafkaError::client(format!("cannot count the partitions of {}", self.topic)))?;
        let count = metadata.topics().first().map_or(0, |topic| topic.partitions().len());
        Ok(i32::try_from(count).unwrap_or(i32::MAX))
    }

    /// The oldest offset inside the time that is replayed, by partition.
    fn horizon(&self, consumer: &BaseConsumer<Assigner>, partitions: &[i32]) -> Result<HashMap<i32, Offset>, KafkaError> {
        let Some(replay) = self.options.replay else { return Ok(HashMap::new()) };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let since = i64::try_from(now.saturating_sub(replay).as_millis()).unwrap_or(i64::MAX);
        let mut list = TopicPartitionList::new();
        for partition in partitions {
            list.add_partition_offset(&self.topic, *partition, Offset::Offset(since))
                .map_err(KafkaError::client("a time is out of range"))?;
        }
        let found = consumer
            .offsets_for_times(list, ASK)
            .map_err(KafkaError::client(format!("cannot find where the history of {} begins", self.topic)))?;
        Ok(found.elements().iter().map(|element| (element.partition(), element.offset())).collect())
    }

    /// With another number of partitions users live elsewhere than their histories.
    fn refuse_torn_history(&self, note: &str, total: i32) -> Result<(), KafkaError> {
        let before = note.strip_prefix(PARTITIONS_NOTE).and_then(|count| count.parse::<i32>().ok());
        match before.filter(|before| self.options.replay.is_some() && *before != total) {
            None => Ok(()),
            Some(before) => Err(KafkaError::Refused(format!(
                "topic {} has {total} partitions, and had {before} when scoring last went on: users have moved to other partitions                  than their histories, and velocity would be missed. Make a new topic with {total} partitions and let the producers                  write there, or go back to {before} partitions",
                self.topic
            ))),
        }
    }
}

/// The client library's callbacks.
pub(crate) struct Assigner {
    pub(crate) shared: Arc<Shared>,
}

impl ClientContext for Assigner {
    fn stats(&self, statistics: Statistics) {
        let Some(topic) = statistics.topics.get(&self.shared.topic) else { return };
        for (partition, of) in topic.partitions.iter().filter(|(partition, of)| **partition >= 0 && of.consumer_lag >= 0) {
            let labels = [("topic", self.shared.topic.clone()), ("partition", partition.to_string())];
            #[expect(clippy::cast_precision_loss, reason = "a gauge is a float")]
            metrics::gauge!("tollgate_log_consumer_lag_records", &labels).set(of.consumer_lag as f64);
        }
    }

    fn error(&self, error: rdkafka::error::KafkaError, reason: &str) {
        // The end of a partition is news only while histories are rebuilt, and is told by the poll too.
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::PartitionEOF) {
            return;
        }
        tracing::warn!(%error, reason, "the log's client reports");
    }
}

impl ConsumerContext for Assigner {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, kind: RDKafkaRespErr, list: &mut TopicPartitionList) {
        metrics::counter!("tollgate_log_rebalances_total", "stage" => self.shared.options.stage.name()).increment(1);
        if kind != RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS {
            self.shared.revoked(consumer, list);
            return;
        }
        let mut result = self.shared.assigned(consumer, list);
        for _ in 0..2 {
            // A broker that has just changed hands answers at the second or third time.
            if matches!(result, Err(KafkaError::Client { .. })) {
                result = self.shared.assigned(consumer, list);
            }
        }
        if let Err(error) = result {
            self.shared.health.not_ready("log", error.to_string());
            *lock(&self.shared.refusal) = Some(error);
        }
    }

    fn commit_callback(&self, result: KafkaResult<()>, offsets: &TopicPartitionList) {
        match result {
            Ok(()) => self.shared.note_committed(offsets),
            Err(error) => tracing::warn!(%error, topic = self.shared.topic, "a commit failed; it is tried again"),
        }
    }
}
