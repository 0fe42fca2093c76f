//! A topic of the embedded log: its partitions in memory, who reads them, and when writers have to wait.
//!
//! Invariant: without a journal no record is dropped that a reader or the topic's consumer group has still to read, unless
//! the topic keeps only the newest. With a journal, memory is a cache of the newest records, and the journal has the rest.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::journal::{Extent, now_ms};
use super::partition::{Load, Partition};
use super::record::StoredRecord;

/// Unread records that a partition without a journal holds at most, and records that it keeps for later readers.
const IN_MEMORY: Load = Load {
    records: 50_000,
    bytes: 8 * 1024 * 1024,
};
/// Records of a partition with a journal that are in memory at most.
const CACHED: Load = Load {
    records: 10_000,
    bytes: 2 * 1024 * 1024,
};
/// Unread records of a partition with a journal at most.
const IN_JOURNAL: usize = 250_000;
/// Records and bytes that one fetch takes.
const FETCH: Load = Load {
    records: 256,
    bytes: 1024 * 1024,
};

/// How long records are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Retention {
    /// Until this consumer group has committed past them, and for the time `then` in the journal.
    UntilCommitted { group: String, then: Duration },
    /// For this time in the journal, read or not; without a journal, the newest.
    For(Duration),
    /// The newest, in memory only: a reader that is slow misses some.
    Newest,
}

impl Retention {
    fn group(&self) -> Option<&str> {
        match self {
            Self::UntilCommitted { group, .. } => Some(group),
            Self::For(_) | Self::Newest => None,
        }
    }
}

/// Wakes a reader when something was appended to one of its topics.
#[derive(Debug, Default)]
pub(super) struct Signal {
    waits: AtomicBool,
    woken: Mutex<bool>,
    changed: Condvar,
}

impl Signal {
    /// To be called before the last look at the topics.
    pub(super) fn arm(&self) {
        *self.woken.lock().unwrap_or_else(PoisonError::into_inner) = false;
        self.waits.store(true, Ordering::SeqCst);
    }

    /// Waits until it was woken since it was armed, at most until `deadline`.
    pub(super) fn wait_until(&self, deadline: Instant) {
        let mut woken = self.woken.lock().unwrap_or_else(PoisonError::into_inner);
        while !*woken {
            let Some(left) = deadline.checked_duration_since(Instant::now()) else {
                break;
            };
            let result = self.changed.wait_timeout(woken, left);
            woken = result.unwrap_or_else(PoisonError::into_inner).0;
        }
        drop(woken);
        self.waits.store(false, Ordering::SeqCst);
    }

    fn wake(&self) {
        if self.waits.load(Ordering::SeqCst) {
            *self.woken.lock().unwrap_or_else(PoisonError::into_inner) = true;
            self.changed.notify_all();
        }
    }
}

/// A reader that is attached to a partition.
#[derive(Debug)]
struct Reader {
    id: u64,
    /// The offset that it fetches next.
    position: i64,
    signal: Arc<Signal>,
}

/// A committed offset and what was written beside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Committed {
    pub(super) next: i64,
    pub(super) note: Option<String>,
}

#[derive(Debug)]
struct State {
    memory: Partition,
    /// Waits to be written to the journal.
    queued: Load,
    /// The oldest offset that the journal has.
    oldest: i64,
    last_appended_ms: i64,
    committed: HashMap<String, Committed>,
    readers: Vec<Reader>,
}

/// Why a record was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// Its readers are too far behind.
    Full,
    /// There is no such partition.
    NoPartition,
}

/// What a fetch found.
#[derive(Debug)]
pub(super) enum Fetched {
    /// Records, the first one at this offset.
    Records(i64, Vec<StoredRecord>),
    /// There is no record at this offset yet.
    End,
    /// The records before `until` are in the journal only.
    InJournal { until: i64 },
}

/// See the module.
#[derive(Debug)]
pub(super) struct Topic {
    pub(super) name: String,
    pub(super) retention: Retention,
    /// Its number in the journal, where it is written there.
    pub(super) journal: Option<i64>,
    partitions: Vec<Mutex<State>>,
}

impl Topic {
    /// An empty one.
    pub(super) fn new(
        name: &str,
        retention: Retention,
        partitions: u16,
        journal: Option<i64>,
    ) -> Self {
        let state = |_| {
            Mutex::new(State {
                memory: Partition::starting_at(0),
                queued: Load::default(),
                oldest: 0,
                last_appended_ms: 0,
                committed: HashMap::new(),
                readers: Vec::new(),
            })
        };
        Self {
            name: name.to_owned(),
            retention,
            journal,
            partitions: (0..partitions).map(state).collect(),
        }
    }

    /// Goes on behind what the journal has of a partition.
    pub(super) fn resume(&self, extent: &Extent) {
        if let Some(mut state) = self.state(extent.place.partition) {
            state.memory = Partition::starting_at(extent.next);
            state.oldest = extent.oldest;
            state.last_appended_ms = extent.last_appended_ms;
        }
    }

    pub(super) fn partition_count(&self) -> i32 {
        i32::try_from(self.partitions.len()).unwrap_or(i32::MAX)
    }

    fn state(&self, partition: i32) -> Option<MutexGuard<'_, State>> {
        let state = self.partitions.get(usize::try_from(partition).ok()?)?;
        Some(state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Reserves room for a record that is to be written to the journal.
    pub(super) fn reserve(&self, partition: i32, size: usize, urgent: bool) -> Result<(), Refusal> {
        let mut state = self.state(partition).ok_or(Refusal::NoPartition)?;
        if !urgent && self.is_full(&state, size) {
            return Err(Refusal::Full);
        }
        state.queued = state.queued.plus(one(size));
        Ok(())
    }

    /// Releases the room of a record that is not written after all.
    pub(super) fn release(&self, partition: i32, size: usize) {
        if let Some(mut state) = self.state(partition) {
            state.queued = state.queued.minus(one(size));
        }
    }

    /// Appends a record to a topic that has no journal.
    pub(super) fn append(
        &self,
        partition: i32,
        record: Vec<u8>,
        urgent: bool,
    ) -> Result<(), Refusal> {
        let mut state = self.state(partition).ok_or(Refusal::NoPartition)?;
        if !urgent && self.is_full(&state, record.len()) {
            return Err(Refusal::Full);
        }
        let appended_ms = now_ms().max(state.last_appended_ms);
        state.last_appended_ms = appended_ms;
        state.memory.push(StoredRecord::alone(record, appended_ms));
        self.trim(&mut state);
        state.wake();
        Ok(())
    }

    /// Adds records that are in the journal, so that they can be read.
    pub(super) fn written(&self, partition: i32, records: Vec<StoredRecord>) {
        let Some(mut state) = self.state(partition) else {
            return;
        };
        for record in records {
            state.queued = state.queued.minus(one(record.size()));
            state.last_appended_ms = record.appended_ms;
            state.memory.push(record);
        }
        self.trim(&mut state);
        state.wake();
    }

    /// Whether readers are too far behind for another record.
    fn is_full(&self, state: &State, size: usize) -> bool {
        let Some(from) = self.unread_from(state) else {
            return false;
        };
        if self.journal.is_some() {
            let written = usize::try_from(state.memory.next() - from).unwrap_or(0);
            return written + state.queued.records >= IN_JOURNAL;
        }
        let unread = state.memory.load_from(from);
        // A record larger than all the room goes alone.
        unread.records > 0 && !unread.plus(one(size)).is_within(IN_MEMORY)
    }

    /// The oldest offset that is unread; none where writers need not wait for a reader.
    fn unread_from(&self, state: &State) -> Option<i64> {
        if self.retention == Retention::Newest {
            return None;
        }
        let read = state.readers.iter().map(|reader| reader.position).min();
        match self.retention.group() {
            // A reader that stands before the committed offset rebuilds a history: what it reads was processed.
            Some(group) => Some(read.unwrap_or(0).max(state.committed_by(group))),
            None => read,
        }
    }

    /// Drops records from memory that are not needed there.
    fn trim(&self, state: &mut State) {
        if self.journal.is_some() {
            state.memory.shrink_to(CACHED, i64::MAX);
            return;
        }
        let read = state.readers.iter().map(|reader| reader.position).min();
        let read = read.unwrap_or(i64::MAX);
        match &self.retention {
            Retention::UntilCommitted { group, .. } => {
                let needless = read.min(state.committed_by(group));
                state.memory.free_before(needless);
            }
            Retention::For(_) => state.memory.shrink_to(IN_MEMORY, read),
            Retention::Newest => state.memory.shrink_to(IN_MEMORY, i64::MAX),
        }
    }

    /// Attaches a reader to a partition.
    pub(super) fn attach(&self, partition: i32, id: u64, position: i64, signal: &Arc<Signal>) {
        if let Some(mut state) = self.state(partition) {
            let signal = Arc::clone(signal);
            state.readers.push(Reader {
                id,
                position,
                signal,
            });
        }
    }

    /// Detaches a reader from every partition.
    pub(super) fn detach(&self, id: u64) {
        for partition in &self.partitions {
            let mut state = partition.lock().unwrap_or_else(PoisonError::into_inner);
            state.readers.retain(|reader| reader.id != id);
            self.trim(&mut state);
        }
    }

    /// The next records for a reader that is attached.
    pub(super) fn fetch(&self, partition: i32, id: u64, from: i64) -> Fetched {
        let Some(mut state) = self.state(partition) else {
            return Fetched::End;
        };
        let mut from = from;
        if from < state.memory.first() {
            if self.journal.is_some() {
                let until = state.memory.first();
                return Fetched::InJournal { until };
            }
            from = state.memory.first();
        }
        let mut bytes = 0;
        let held = state.memory.from(from).into_iter().flatten();
        let taken: Vec<StoredRecord> = held
            .take(FETCH.records)
            .take_while(|record| {
                let fits = bytes == 0 || bytes + record.size() <= FETCH.bytes;
                bytes += record.size();
                fits
            })
            .cloned()
            .collect();
        if taken.is_empty() {
            return Fetched::End;
        }
        let next = from + i64::try_from(taken.len()).unwrap_or(0);
        state.advance(id, next);
        Fetched::Records(from, taken)
    }

    /// A reader has fetched up to here, past what memory holds.
    pub(super) fn advance(&self, partition: i32, id: u64, position: i64) {
        if let Some(mut state) = self.state(partition) {
            state.advance(id, position);
        }
    }

    /// Notes what a group has committed. An offset before one that is committed changes nothing.
    pub(super) fn commit(&self, partition: i32, group: &str, committed: Committed) {
        let Some(mut state) = self.state(partition) else {
            return;
        };
        let before = state.committed.get(group).map(|before| before.next);
        if before.is_none_or(|before| before <= committed.next) {
            state.committed.insert(group.to_owned(), committed);
        }
        self.trim(&mut state);
    }

    /// What a group has committed.
    pub(super) fn committed(&self, partition: i32, group: &str) -> Option<Committed> {
        self.state(partition)?.committed.get(group).cloned()
    }

    /// The oldest offset that can be read, and the one that the next record gets.
    pub(super) fn extent(&self, partition: i32) -> Option<(i64, i64)> {
        let state = self.state(partition)?;
        let first = state.memory.first();
        let oldest = match self.journal {
            Some(_) => state.oldest.min(first),
            None => first,
        };
        Some((oldest, state.memory.next()))
    }

    /// The first offset in memory that was appended at this time or later.
    pub(super) fn appended_since(&self, partition: i32, time_ms: i64) -> Option<i64> {
        self.state(partition)?.memory.appended_since(time_ms)
    }

    /// The journal has nothing before this offset any more.
    pub(super) fn set_oldest(&self, partition: i32, oldest: i64) {
        if let Some(mut state) = self.state(partition) {
            state.oldest = oldest;
            state.memory.free_before(oldest);
        }
    }

    /// Which records of a partition the journal need not keep: those before an offset and a time. None where all of
    /// them are needed.
    pub(super) fn expired(&self, partition: i32) -> Option<(i64, i64)> {
        let state = self.state(partition)?;
        let (before, kept) = match &self.retention {
            Retention::UntilCommitted { group, then } => (state.committed_by(group), *then),
            Retention::For(kept) => (state.memory.next(), *kept),
            Retention::Newest => return None,
        };
        let read = state.readers.iter().map(|reader| reader.position).min();
        let before = before.min(read.unwrap_or(i64::MAX));
        let kept_ms = i64::try_from(kept.as_millis()).unwrap_or(i64::MAX);
        (state.oldest < before).then(|| (before, now_ms().saturating_sub(kept_ms)))
    }

    /// Records that the topic's group has not committed, over all partitions.
    pub(super) fn uncommitted(&self) -> usize {
        let Some(group) = self.retention.group() else {
            return 0;
        };
        let of_partition = |partition| {
            let state = self.state(partition)?;
            let written = state.memory.next() - state.committed_by(group);
            Some(usize::try_from(written).unwrap_or(0) + state.queued.records)
        };
        (0..self.partition_count()).filter_map(of_partition).sum()
    }
}

impl State {
    fn wake(&self) {
        self.readers.iter().for_each(|reader| reader.signal.wake());
    }

    fn committed_by(&self, group: &str) -> i64 {
        self.committed
            .get(group)
            .map_or(0, |committed| committed.next)
    }

    fn advance(&mut self, id: u64, position: i64) {
        let reader = self.readers.iter_mut().find(|reader| reader.id == id);
        if let Some(reader) = reader {
            reader.position = reader.position.max(position);
        }
    }
}

const fn one(bytes: usize) -> Load {
    Load { records: 1, bytes }
}
