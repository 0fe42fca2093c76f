//! Which offset of a partition may be committed: the one after the last record that is completed together with all
//! records before it (the frontier).
//!
//! Records are completed in any order, but a commit covers everything before its offset. Invariant: the frontier never
//! passes a record that is not completed. Each assignment has a number, its epoch; a completion with another epoch belongs
//! to an earlier assignment and has no effect.

use std::collections::VecDeque;

/// The records of one partition that are in flight. Pure: no clock, no client.
#[derive(Debug, Default)]
pub(crate) struct OffsetLedger {
    epoch: u64,
    /// Offsets in flight, ascending, with whether they are done. The first is not done.
    open: VecDeque<(i64, bool)>,
    /// The offset to go on from: one after the last of the frontier.
    frontier: Option<i64>,
    committed: Option<i64>,
}

impl OffsetLedger {
    pub(crate) fn new(epoch: u64) -> Self {
        Self {
            epoch,
            ..Self::default()
        }
    }

    /// Counts a record as in flight. Offsets come in ascending order; one that came already is ignored.
    pub(crate) fn begin(&mut self, offset: i64) {
        let last = self
            .open
            .back()
            .map_or(self.frontier.map(|next| next - 1), |(last, _)| Some(*last));
        if last.is_none_or(|last| offset > last) {
            self.open.push_back((offset, false));
        }
    }

    /// Marks records as done; those of another epoch, or not in flight, have no effect.
    pub(crate) fn complete(&mut self, epoch: u64, offsets: impl Iterator<Item = i64>) {
        if epoch != self.epoch {
            return;
        }
        for offset in offsets {
            if let Ok(index) = self.open.binary_search_by_key(&offset, |(open, _)| *open) {
                self.open[index].1 = true;
            }
        }
        while let Some((offset, true)) = self.open.front().copied() {
            self.frontier = Some(offset + 1);
            self.open.pop_front();
        }
    }

    /// The offset after the last record that was read.
    pub(crate) fn next(&self) -> Option<i64> {
        let last = self.open.back().map(|(last, _)| last + 1);
        last.or(self.frontier)
    }

    /// The offset to commit, if it is not committed yet.
    pub(crate) fn to_commit(&self) -> Option<i64> {
        self.frontier
            .filter(|frontier| self.committed.is_none_or(|committed| committed < *frontier))
    }

    /// A commit of this offset has succeeded.
    pub(crate) fn committed(&mut self, offset: i64) {
        self.committed = self.committed.max(Some(offset));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn completions_from_before_a_rebalance_have_no_effect() {
        let mut ledger = OffsetLedger::new(2);
        ledger.begin(7);
        ledger.complete(1, [7].into_iter());
        assert_eq!(ledger.to_commit(), None);
        ledger.complete(2, [7].into_iter());
        assert_eq!(ledger.to_commit(), Some(8));
    }

    #[test]
    fn an_offset_is_offered_until_its_commit_succeeds() {
        let mut ledger = OffsetLedger::new(0);
        ledger.begin(0);
        ledger.complete(0, [0].into_iter());
        assert_eq!(ledger.to_commit(), Some(1));
        assert_eq!(ledger.to_commit(), Some(1));
        ledger.committed(1);
        assert_eq!(ledger.to_commit(), None);
    }

    proptest! {
        /// Offsets with gaps, done in any order: the frontier never passes one that is not done, and reaches the end.
        #[test]
        fn only_the_contiguous_frontier_is_offered(
            offsets in proptest::collection::btree_set(0_i64..200, 1..60),
            seed in any::<u64>(),
        ) {
            let mut ledger = OffsetLedger::new(3);
            let mut order: Vec<i64> = offsets.iter().copied().collect();
            order.iter().for_each(|offset| ledger.begin(*offset));
            let mut state = seed | 1;
            for i in (1..order.len()).rev() {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let bound = u64::try_from(i + 1).unwrap();
                order.swap(i, usize::try_from((state >> 33) % bound).unwrap());
            }
            let mut done = BTreeSet::new();
            for offset in order {
                ledger.complete(3, [offset].into_iter());
                done.insert(offset);
                let expected = offsets.iter().take_while(|offset| done.contains(*offset)).last().map(|last| last + 1);
                prop_assert_eq!(ledger.to_commit(), expected);
            }
            prop_assert_eq!(ledger.open.len(), 0);
        }
    }
}
