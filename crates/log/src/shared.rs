//! State of one consumer: the batches being filled, what is being rebuilt, what may be committed.
//! Shared by its reading thread and the client library's callbacks.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _, ConsumerContext};
use rdkafka::{Offset, TopicPartitionList};
use tokio::sync::mpsc;

use super::consumer::{ConsumerOptions, Event};
use super::histories::{CommitNote, Position};
use super::restore::{Restoring, Start};
use super::tracker::{Begun, Tracker};
use super::{Batch, KafkaError, Reads};
use tollgate_service::health::Health;

/// How long what is marked may take to be kept when partitions go.
const SETTLE: Duration = Duration::from_secs(5);

/// A batch that is being filled, and when it is due.
struct Filling {
    batch: Batch,
    due: Instant,
}

/// What was read and not yet handed over.
#[derive(Default)]
struct Pending {
    /// By lane.
    filling: Vec<Option<Filling>>,
    /// Records that the tracker does not know of yet. It is told of all before any is handed over: a frontier must
    /// not pass a record that still waits in another lane.
    begun: Vec<Begun>,
}

impl Pending {
    fn is_empty(&self) -> bool {
        self.filling.iter().all(Option::is_none)
    }
}

/// See the module.
pub(crate) struct Shared {
    pub(crate) topic: String,
    reads: Reads,
    pub(crate) options: ConsumerOptions,
    pub(crate) tracker: Arc<Tracker>,
    pub(crate) health: Health,
    lanes: Mutex<Vec<mpsc::UnboundedSender<Event>>>,
    pending: Mutex<Pending>,
    /// Partitions whose history is being rebuilt, with the offset at which that ends.
    pub(super) rebuilding: Mutex<HashMap<i32, i64>>,
    pub(super) refusal: Mutex<Option<KafkaError>>,
    /// Partitions of the topic at the last assignment.
    pub(super) total: AtomicI32,
    /// What tells the log of each partition from any other; see [`Position::log`].
    pub(super) logs: Mutex<HashMap<i32, u64>>,
    /// Where partitions were told to begin whose first record has not come.
    pub(super) firsts: Mutex<HashMap<i32, i64>>,
    /// Whether there are any: asked for each record.
    pub(super) awaits_firsts: AtomicBool,
    /// The assignment whose histories are being restored.
    pub(super) restoring: Mutex<Option<Restoring>>,
    marks: Mutex<Marks>,
    committing: Mutex<()>,
}

/// What was marked last.
#[derive(Default)]
struct Marks {
    /// Offsets, by partition.
    offsets: HashMap<i32, i64>,
    /// The partition whose turn it was.
    last: i32,
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    pub(crate) fn new(
        topic: String,
        reads: Reads,
        lanes: Vec<mpsc::UnboundedSender<Event>>,
        options: ConsumerOptions,
        health: Health,
    ) -> Self {
        let pending = Pending {
            filling: lanes.iter().map(|_| None).collect(),
            begun: Vec::new(),
        };
        Self {
            topic,
            reads,
            options,
            tracker: Arc::default(),
            health,
            lanes: Mutex::new(lanes),
            pending: Mutex::new(pending),
            rebuilding: Mutex::default(),
            refusal: Mutex::default(),
            total: AtomicI32::new(0),
            logs: Mutex::default(),
            firsts: Mutex::default(),
            awaits_firsts: AtomicBool::new(false),
            restoring: Mutex::default(),
            marks: Mutex::default(),
            committing: Mutex::default(),
        }
    }

    pub(crate) fn refusal(&self) -> Option<KafkaError> {
        lock(&self.refusal).take()
    }

    pub(crate) fn has_pending(&self) -> bool {
        !lock(&self.pending).is_empty()
    }

    /// When the oldest batch that may wait is due.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        if self.options.batching.max_wait.is_zero() {
            return None;
        }
        let pending = lock(&self.pending);
        let filling = pending.filling.iter().flatten();
        filling.map(|filling| filling.due).min()
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
        let Pending { filling, begun } = &mut *pending;
        let slot = &mut filling[lane];
        let Filling { batch, .. } = slot.get_or_insert_with(|| Filling {
            batch: Batch::new(self.tracker.epoch(), Arc::clone(&self.tracker)),
            due: Instant::now() + batching.max_wait,
        });
        let before = batch.bytes();
        batch.push(position, replayed, key, payload, headers);
        begun.push(Begun {
            partition,
            offset,
            replayed,
            bytes: batch.bytes() - before,
        });
        let full = batch.len() >= batching.max_records || batch.bytes() >= batching.max_bytes;
        match slot.take_if(|_| full) {
            Some(full) => {
                self.tracker.begin(begun);
                self.hand_over(lane, Event::Batch(full.batch))
            }
            None => Ok(()),
        }
    }

    /// Hands over what is due. `idle`: nothing more is at hand, so that a batch that need not wait goes.
    pub(crate) fn dispatch_due(&self, idle: bool) -> Result<(), KafkaError> {
        let waits = !self.options.batching.max_wait.is_zero();
        let now = Instant::now();
        self.dispatch(|filling| if waits { filling.due <= now } else { idle })
    }

    /// Tells the tracker of everything that was read, then hands over the batches for which `goes` says so.
    fn dispatch(&self, goes: impl Fn(&Filling) -> bool) -> Result<(), KafkaError> {
        let mut pending = lock(&self.pending);
        let Pending { filling, begun } = &mut *pending;
        self.tracker.begin(begun);
        for (lane, slot) in filling.iter_mut().enumerate() {
            if let Some(filling) = slot.take_if(|filling| goes(filling)) {
                self.hand_over(lane, Event::Batch(filling.batch))?;
            }
        }
        Ok(())
    }

    fn hand_over(&self, lane: usize, event: Event) -> Result<(), KafkaError> {
        match lock(&self.lanes).get(lane).map(|lane| lane.send(event)) {
            Some(Ok(())) => Ok(()),
            Some(Err(_)) | None => Err(KafkaError::Refused(format!(
                "a worker of {} has stopped",
                self.options.stage
            ))),
        }
    }

    pub(super) fn tell_all(&self, event: impl Fn() -> Event) {
        for lane in lock(&self.lanes).iter() {
            // A worker that is gone is noticed when records are handed to it.
            let _ = lane.send(event());
        }
    }

    /// What was restored need not be marked before it has moved on.
    pub(super) fn begin_marks(&self, starts: &[Start]) {
        let restored = starts
            .iter()
            .filter_map(|start| Some((start.partition, start.restored?)));
        lock(&self.marks).offsets = restored.collect();
    }

    /// Marks one partition, if it is `time` for the next, and every one that has come far enough. The pause until it
    /// is time again, where one was due.
    pub(crate) fn mark_due(&self, time: bool) -> Result<Option<Duration>, KafkaError> {
        let Some((_, every)) = &self.options.histories else {
            return Ok(None);
        };
        let positions = self.tracker.positions();
        let mut marks = lock(&self.marks);
        let since = |(partition, next): (&i32, &i64)| {
            let marked = marks.offsets.get(partition).copied().unwrap_or_default();
            (*next > marked).then_some((*partition, next - marked))
        };
        let moved: Vec<(i32, i64)> = positions.iter().filter_map(since).collect();
        let mut due: Vec<i32> = moved
            .iter()
            .filter(|(_, since)| *since >= every.offsets)
            .map(|(partition, _)| *partition)
            .collect();
        if time {
            let after_last = moved.iter().find(|(partition, _)| *partition > marks.last);
            if let Some((partition, _)) = after_last.or(moved.first()) {
                marks.last = *partition;
                due.push(*partition);
            }
        }
        drop(marks);
        self.mark(&due)?;
        let share = u32::try_from(positions.len().max(1)).unwrap_or(u32::MAX);
        Ok(time.then(|| every.interval / share))
    }

    /// Marks these partitions, except those whose histories are not complete yet.
    fn mark(&self, partitions: &[i32]) -> Result<(), KafkaError> {
        let Some((histories, _)) = self
            .options
            .histories
            .as_ref()
            .filter(|_| !partitions.is_empty())
        else {
            return Ok(());
        };
        // What was read stands before the mark, in every lane.
        self.dispatch(|_| true)?;
        let positions = self.tracker.positions();
        for partition in partitions {
            let rebuilding = lock(&self.rebuilding).contains_key(partition);
            let (Some(offset), Some(log)) = (
                positions.get(partition).copied().filter(|_| !rebuilding),
                lock(&self.logs).get(partition).copied(),
            ) else {
                continue;
            };
            if lock(&self.marks).offsets.get(partition) == Some(&offset) {
                continue;
            }
            let position = Position {
                partition: *partition,
                partitions: self.total.load(Ordering::Relaxed),
                log,
                offset,
            };
            if histories.begin_barrier(position) {
                lock(&self.marks).offsets.insert(*partition, offset);
                self.tell_all(|| Event::Barrier(position));
            }
        }
        Ok(())
    }

    /// Takes no more in hand. With histories, what was read goes to the workers, so that all of a history stands at
    /// one offset; without, it is given back.
    pub(crate) fn close_hand(&self) {
        // Where a worker is gone, the next owner reads again.
        if self.options.histories.is_none() || self.dispatch(|_| true).is_err() {
            self.drop_pending();
        }
    }

    /// Marks every history where it stands now that the hand is empty and everything is committed, and waits until
    /// they are kept, but not for long.
    pub(crate) fn keep_histories(&self) -> Result<(), KafkaError> {
        let Some((histories, _)) = &self.options.histories else {
            return Ok(());
        };
        histories.settle(SETTLE);
        if self.tracker.in_flight().0 == 0 {
            let partitions: Vec<i32> = self.tracker.positions().into_keys().collect();
            self.mark(&partitions)?;
            histories.settle(SETTLE);
        }
        Ok(())
    }

    fn drop_pending(&self) {
        let mut pending = lock(&self.pending);
        let Pending { filling, begun } = &mut *pending;
        // Told of first, so that what leaves the hand with the batches was in it.
        self.tracker.begin(begun);
        filling.iter_mut().for_each(|slot| *slot = None);
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
        let Some(end) = rebuilding.get(&partition).copied() else {
            return false;
        };
        if offset + 1 >= end {
            rebuilding.remove(&partition);
            self.say_ready(&rebuilding);
        }
        offset < end
    }

    /// Says so where the first record of a partition stands behind the offset that was to be read from. There may be
    /// nothing between them but marks of a foreign producer's transactions, or what was compacted away.
    pub(crate) fn check_first(&self, partition: i32, offset: i64) {
        if !self.awaits_firsts.load(Ordering::Relaxed) {
            return;
        }
        let mut firsts = lock(&self.firsts);
        let Some(begun) = firsts.remove(&partition) else {
            return;
        };
        self.awaits_firsts
            .store(!firsts.is_empty(), Ordering::Relaxed);
        if offset > begun {
            metrics::counter!("tollgate_log_gaps_total", "stage" => self.options.stage.name())
                .increment(1);
            tracing::warn!(
                topic = self.topic,
                partition,
                begun,
                offset,
                "the log has no record where reading was to begin"
            );
        }
    }

    pub(crate) fn reached_end(&self, partition: i32) {
        let mut rebuilding = lock(&self.rebuilding);
        if rebuilding.remove(&partition).is_some() {
            self.say_ready(&rebuilding);
        }
    }

    pub(super) fn say_ready(&self, rebuilding: &HashMap<i32, i64>) {
        metrics::gauge!("tollgate_log_rebuilding_partitions", "stage" => self.options.stage.name())
            .set(u32::try_from(rebuilding.len()).map_or(f64::MAX, f64::from));
        if rebuilding.is_empty() {
            self.health.ready("log");
        } else {
            self.health.not_ready(
                "log",
                format!(
                    "rebuilding the history of {} partitions from the log",
                    rebuilding.len()
                ),
            );
        }
    }

    /// Commits the frontier of every partition, and waits for the answer.
    ///
    /// The client library tells nobody how a commit in the background has ended, and a snapshot must know. One at a
    /// time, lest an older frontier arrive behind a newer one.
    pub(crate) fn commit<C: ConsumerContext>(&self, consumer: &BaseConsumer<C>) {
        let _one_at_a_time = lock(&self.committing);
        let mut list = TopicPartitionList::new();
        for (partition, offset) in self.tracker.to_commit() {
            let mut element = list.add_partition(&self.topic, partition);
            // An offset that the ledger offers is a valid one.
            let _ = element.set_offset(Offset::Offset(offset));
            if let Some(note) = self.note(partition) {
                element.set_metadata(note);
            }
        }
        if list.count() == 0 {
            return;
        }
        let began = SystemTime::now();
        match consumer.commit(&list, CommitMode::Sync) {
            Ok(()) => {
                let committed = self.note_committed(&list);
                let polls = self.tracker.settled_by(&committed);
                if !polls.is_empty()
                    && let Some(span) = self.reads.commit(polls)
                {
                    span.since(began).end();
                }
            }
            Err(error) => {
                tracing::warn!(%error, topic = self.topic, "a commit failed; it is tried again");
            }
        }
    }

    /// The offsets that are committed now, of all partitions that ever had one.
    fn note_committed(&self, list: &TopicPartitionList) -> HashMap<i32, i64> {
        let mut committed = HashMap::new();
        for element in list.elements() {
            if let (Ok(()), Offset::Offset(offset)) = (element.error(), element.offset()) {
                committed.insert(element.partition(), offset);
                self.tracker.committed(element.partition(), offset);
                if let Some((histories, _)) = &self.options.histories {
                    histories.committed(element.partition(), offset);
                }
            }
        }
        committed
    }

    /// Written beside each committed offset of a stage with histories.
    fn note(&self, partition: i32) -> Option<String> {
        self.options.replay?;
        let log = lock(&self.logs).get(&partition).copied()?;
        Some(CommitNote::write(self.total.load(Ordering::Relaxed), log))
    }
}
