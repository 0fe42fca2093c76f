//! What a consumer has in hand: the ledgers of its partitions, and how much memory the records take.
//! Shared by the thread that reads and the workers that complete.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tollgate_types::TraceContext;

use super::batch::Pool;
use super::ledger::OffsetLedger;
use tollgate_service::telemetry::trace::MAX_LINKS;

/// A record that was read.
#[derive(Debug)]
pub(crate) struct Begun {
    pub(crate) partition: i32,
    pub(crate) offset: i64,
    pub(crate) replayed: bool,
    /// What it takes.
    pub(crate) bytes: usize,
}

#[derive(Debug, Default)]
struct State {
    epoch: u64,
    ledgers: HashMap<i32, OffsetLedger>,
    records: usize,
    bytes: usize,
}

#[derive(Debug, Default)]
pub(crate) struct Tracker {
    state: Mutex<State>,
    changed: Condvar,
    pool: Pool,
    /// Polls that are done, with the offsets up to which a commit must have come to settle them.
    settled: Mutex<Vec<(TraceContext, HashMap<i32, i64>)>>,
}

impl Tracker {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) const fn pool(&self) -> &Pool {
        &self.pool
    }

    /// Starts a new epoch with these partitions; what was in hand before counts for nothing any more.
    pub(crate) fn assign(&self, partitions: &[i32]) {
        let mut state = self.lock();
        self.settled
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
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

    /// Takes records in hand, in the order in which they stand in their partitions; none of them is left. A replayed
    /// one takes memory, but has no offset to commit.
    pub(crate) fn begin(&self, begun: &mut Vec<Begun>) {
        if begun.is_empty() {
            return;
        }
        let mut state = self.lock();
        state.records += begun.len();
        for record in begun.drain(..) {
            state.bytes += record.bytes;
            if let (false, Some(ledger)) =
                (record.replayed, state.ledgers.get_mut(&record.partition))
            {
                ledger.begin(record.offset);
            }
        }
    }

    pub(crate) fn complete(
        &self,
        epoch: u64,
        done: impl Iterator<Item = (i32, i64)>,
        records: usize,
        bytes: usize,
    ) {
        let mut state = self.lock();
        // Mostly the next record is of the same partition.
        let mut current: Option<(i32, &mut OffsetLedger)> = None;
        for (partition, offset) in done {
            if current.as_ref().is_none_or(|(held, _)| *held != partition) {
                let ledger = state.ledgers.get_mut(&partition);
                current = ledger.map(|ledger| (partition, ledger));
            }
            if let Some((_, ledger)) = &mut current {
                ledger.complete(epoch, std::iter::once(offset));
            }
        }
        self.put_down_in(state, records, bytes);
    }

    /// A poll of a trace that is kept is done.
    pub(crate) fn settle(&self, poll: TraceContext, ends: HashMap<i32, i64>) {
        let mut settled = self.settled.lock().unwrap_or_else(PoisonError::into_inner);
        // Where nothing can be committed for long, the commit is told of the first ones.
        if settled.len() < MAX_LINKS {
            settled.push((poll, ends));
        }
    }

    /// The polls of which a commit of these offsets settles the last.
    pub(crate) fn settled_by(&self, committed: &HashMap<i32, i64>) -> Vec<TraceContext> {
        let mut settled = self.settled.lock().unwrap_or_else(PoisonError::into_inner);
        let open = |partition: &i32, end: &mut i64| {
            committed.get(partition).is_none_or(|offset| offset < end)
        };
        let done = settled.extract_if(.., |(_, ends)| {
            ends.retain(open);
            ends.is_empty()
        });
        done.map(|(poll, _)| poll).collect()
    }

    /// Records leave the hand, done or not.
    pub(crate) fn put_down(&self, records: usize, bytes: usize) {
        self.put_down_in(self.lock(), records, bytes);
    }

    fn put_down_in(&self, mut state: MutexGuard<'_, State>, records: usize, bytes: usize) {
        state.records = state.records.saturating_sub(records);
        state.bytes = state.bytes.saturating_sub(bytes);
        drop(state);
        self.changed.notify_all();
    }

    /// Records and bytes in hand.
    pub(crate) fn in_flight(&self) -> (usize, usize) {
        let state = self.lock();
        (state.records, state.bytes)
    }

    /// Waits until no more than so much is in hand, so long at most. Whether it came to that.
    pub(crate) fn wait_until_within(
        &self,
        records: usize,
        bytes: usize,
        timeout: Duration,
    ) -> bool {
        let deadline = Instant::now() + timeout;
        let mut state = self.lock();
        loop {
            if state.records <= records && state.bytes <= bytes {
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

    /// Offsets that may be committed and are not yet, by partition.
    pub(crate) fn to_commit(&self) -> Vec<(i32, i64)> {
        let state = self.lock();
        state
            .ledgers
            .iter()
            .filter_map(|(partition, ledger)| Some((*partition, ledger.to_commit()?)))
            .collect()
    }

    /// The offset after the last record that was taken in hand, by partition.
    pub(crate) fn positions(&self) -> BTreeMap<i32, i64> {
        let state = self.lock();
        let ledgers = state.ledgers.iter();
        ledgers
            .filter_map(|(partition, ledger)| Some((*partition, ledger.next()?)))
            .collect()
    }

    pub(crate) fn committed(&self, partition: i32, offset: i64) {
        if let Some(ledger) = self.lock().ledgers.get_mut(&partition) {
            ledger.committed(offset);
        }
    }
}
