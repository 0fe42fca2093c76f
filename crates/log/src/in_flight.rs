//! What a consumer has in flight: the ledgers of its partitions, and how much memory the records take.
//!
//! It is the only state that the consumer loop and the workers share, because workers complete batches. One lock guards it,
//! which is taken once for each batch, not for each record.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tollgate_service::telemetry::trace::MAX_LINKS;
use tollgate_types::TraceContext;

use crate::batch::Pool;
use crate::ledger::OffsetLedger;
use crate::record::TopicPartition;

/// A record that was read, and is to be counted as in flight.
#[derive(Debug)]
pub(crate) struct ReadRecord {
    pub(crate) at: TopicPartition,
    pub(crate) offset: i64,
    pub(crate) replayed: bool,
    /// The memory that it takes.
    pub(crate) bytes: usize,
}

/// An amount of records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Usage {
    pub(crate) records: usize,
    pub(crate) bytes: usize,
}

impl Usage {
    pub(crate) const fn is_within(self, limit: Self) -> bool {
        self.records <= limit.records && self.bytes <= limit.bytes
    }
}

/// Offsets that may be committed, by partition, and the epoch in which they count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Committable {
    pub(crate) epoch: u64,
    pub(crate) offsets: Vec<(TopicPartition, i64)>,
}

#[derive(Debug, Default)]
struct State {
    /// Goes up with every assignment.
    epoch: u64,
    ledgers: HashMap<TopicPartition, OffsetLedger>,
    used: Usage,
}

/// A poll whose records are done, and the offsets up to which a commit must reach before it counts as committed.
type FinishedPoll = (TraceContext, HashMap<TopicPartition, i64>);

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct InFlight {
    state: Mutex<State>,
    changed: Condvar,
    pool: Pool,
    finished: Mutex<Vec<FinishedPoll>>,
}

impl InFlight {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn finished(&self) -> MutexGuard<'_, Vec<FinishedPoll>> {
        self.finished.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) const fn pool(&self) -> &Pool {
        &self.pool
    }

    /// Starts a new epoch with these partitions. What was in flight before still takes memory until it is released, but
    /// completing it has no effect.
    pub(crate) fn assign(&self, partitions: &[TopicPartition]) {
        let mut state = self.lock();
        self.finished().clear();
        state.epoch += 1;
        let epoch = state.epoch;
        state.ledgers = partitions
            .iter()
            .map(|partition| (*partition, OffsetLedger::new(epoch)))
            .collect();
    }

    pub(crate) fn epoch(&self) -> u64 {
        self.lock().epoch
    }

    /// Counts records as in flight, in the order in which they stand in their partitions, and empties the list. A
    /// replayed one takes memory, but has no offset to commit.
    pub(crate) fn begin(&self, read: &mut Vec<ReadRecord>) {
        if read.is_empty() {
            return;
        }
        let mut state = self.lock();
        let State { ledgers, used, .. } = &mut *state;
        used.records += read.len();
        // Mostly the next record is of the same partition.
        let mut current: Option<(TopicPartition, &mut OffsetLedger)> = None;
        for record in read.drain(..) {
            used.bytes += record.bytes;
            if record.replayed {
                continue;
            }
            if current.as_ref().is_none_or(|(at, _)| *at != record.at) {
                let ledger = ledgers.get_mut(&record.at);
                current = ledger.map(|ledger| (record.at, ledger));
            }
            if let Some((_, ledger)) = &mut current {
                ledger.begin(record.offset);
            }
        }
    }

    /// Everything that these records caused is acknowledged. Releases them.
    pub(crate) fn complete(
        &self,
        epoch: u64,
        done: impl Iterator<Item = (TopicPartition, i64)>,
        released: Usage,
    ) {
        let mut state = self.lock();
        let mut current: Option<(TopicPartition, &mut OffsetLedger)> = None;
        for (at, offset) in done {
            if current.as_ref().is_none_or(|(held, _)| *held != at) {
                let ledger = state.ledgers.get_mut(&at);
                current = ledger.map(|ledger| (at, ledger));
            }
            if let Some((_, ledger)) = &mut current {
                ledger.complete(epoch, std::iter::once(offset));
            }
        }
        self.release_in(state, released);
    }

    /// A poll of a trace that is kept is done.
    pub(crate) fn finish_poll(&self, poll: TraceContext, ends: HashMap<TopicPartition, i64>) {
        let mut finished = self.finished();
        // While nothing can be committed, the commit's span links to the first ones only.
        if finished.len() < MAX_LINKS {
            finished.push((poll, ends));
        }
    }

    /// The polls whose last offset is committed by these.
    pub(crate) fn committed_polls(
        &self,
        committed: &HashMap<TopicPartition, i64>,
    ) -> Vec<TraceContext> {
        let mut finished = self.finished();
        let open = |partition: &TopicPartition, end: &mut i64| {
            committed.get(partition).is_none_or(|offset| offset < end)
        };
        let done = finished.extract_if(.., |(_, ends)| {
            ends.retain(open);
            ends.is_empty()
        });
        done.map(|(poll, _)| poll).collect()
    }

    /// These records take no memory any more, whether they are done or not.
    pub(crate) fn release(&self, released: Usage) {
        self.release_in(self.lock(), released);
    }

    fn release_in(&self, mut state: MutexGuard<'_, State>, released: Usage) {
        state.used.records = state.used.records.saturating_sub(released.records);
        state.used.bytes = state.used.bytes.saturating_sub(released.bytes);
        drop(state);
        self.changed.notify_all();
    }

    /// What is in flight.
    pub(crate) fn used(&self) -> Usage {
        self.lock().used
    }

    /// Waits until no more than this is in flight, at most `timeout`. Whether that was reached.
    pub(crate) fn wait_until_within(&self, limit: Usage, timeout: Duration) -> bool {
        let deadline = Instant::now() + timeout;
        let mut state = self.lock();
        loop {
            if state.used.is_within(limit) {
                return true;
            }
            let Some(left) = deadline.checked_duration_since(Instant::now()) else {
                return false;
            };
            state = self
                .changed
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// Offsets that may be committed and are not yet.
    pub(crate) fn committable(&self) -> Committable {
        let state = self.lock();
        let offsets = state
            .ledgers
            .iter()
            .filter_map(|(partition, ledger)| Some((*partition, ledger.to_commit()?)))
            .collect();
        Committable {
            epoch: state.epoch,
            offsets,
        }
    }

    /// These offsets are committed. Those of another epoch have no effect.
    pub(crate) fn committed(&self, committed: &Committable) {
        let mut state = self.lock();
        if committed.epoch != state.epoch {
            return;
        }
        for (partition, offset) in &committed.offsets {
            if let Some(ledger) = state.ledgers.get_mut(partition) {
                ledger.committed(*offset);
            }
        }
    }

    /// The offset after the last record that was read, by partition.
    pub(crate) fn positions(&self) -> BTreeMap<TopicPartition, i64> {
        let state = self.lock();
        let ledgers = state.ledgers.iter();
        ledgers
            .filter_map(|(partition, ledger)| Some((*partition, ledger.next()?)))
            .collect()
    }
}
