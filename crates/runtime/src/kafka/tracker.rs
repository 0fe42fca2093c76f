//! What a consumer has in hand: the ledgers of its partitions, and how much memory the records take.
//! Shared by the thread that reads and the workers that complete.

use std::collections::HashMap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::batch::Pool;
use super::ledger::OffsetLedger;

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

    /// Takes a record in hand. A replayed one takes memory, but has no offset to commit.
    pub(crate) fn begin(&self, partition: i32, offset: i64, replayed: bool, bytes: usize) {
        let mut state = self.lock();
        state.records += 1;
        state.bytes += bytes;
        if let (false, Some(ledger)) = (replayed, state.ledgers.get_mut(&partition)) {
            ledger.begin(offset);
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
        for (partition, offset) in done {
            if let Some(ledger) = state.ledgers.get_mut(&partition) {
                ledger.complete(epoch, std::iter::once(offset));
            }
        }
        drop(state);
        self.put_down(records, bytes);
    }

    /// Records leave the hand, done or not.
    pub(crate) fn put_down(&self, records: usize, bytes: usize) {
        let mut state = self.lock();
        state.records = state.records.saturating_sub(records);
        state.bytes = state.bytes.saturating_sub(bytes);
        drop(state);
        self.changed.notify_all();
    }

    /// Records and bytes in hand.
    pub(crate) fn in_hand(&self) -> (usize, usize) {
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

    pub(crate) fn committed(&self, partition: i32, offset: i64) {
        if let Some(ledger) = self.lock().ledgers.get_mut(&partition) {
            ledger.committed(offset);
        }
    }
}
