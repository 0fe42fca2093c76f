//! The records of one partition that are in memory: a queue whose entries have consecutive offsets. Pure.
//!
//! Invariant: an offset names the same record as long as it is in memory, and no offset is used twice.

use std::collections::VecDeque;

use super::record::StoredRecord;

/// A number of records and what they take.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Load {
    pub(super) records: usize,
    pub(super) bytes: usize,
}

impl Load {
    pub(super) const fn plus(self, other: Self) -> Self {
        Self {
            records: self.records + other.records,
            bytes: self.bytes + other.bytes,
        }
    }

    pub(super) const fn minus(self, other: Self) -> Self {
        Self {
            records: self.records.saturating_sub(other.records),
            bytes: self.bytes.saturating_sub(other.bytes),
        }
    }

    pub(super) const fn is_within(self, bound: Self) -> bool {
        self.records <= bound.records && self.bytes <= bound.bytes
    }
}

#[derive(Debug)]
struct Slot {
    record: StoredRecord,
    /// Bytes of all records ever appended before this one.
    before: u64,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Partition {
    /// Offset of the first record that is held.
    first: i64,
    slots: VecDeque<Slot>,
    /// Bytes of all records ever appended.
    appended: u64,
}

impl Partition {
    /// An empty one whose first record gets this offset.
    pub(super) const fn starting_at(offset: i64) -> Self {
        Self {
            first: offset,
            slots: VecDeque::new(),
            appended: 0,
        }
    }

    /// The offset of the oldest record that is held; that of the next one where none is.
    pub(super) const fn first(&self) -> i64 {
        self.first
    }

    /// The offset that the next record gets.
    pub(super) fn next(&self) -> i64 {
        self.first + offset(self.slots.len())
    }

    /// Appends a record; its offset.
    pub(super) fn push(&mut self, record: StoredRecord) -> i64 {
        let given = self.next();
        let before = self.appended;
        self.appended += record.size() as u64;
        self.slots.push_back(Slot { record, before });
        given
    }

    /// The records from this offset on, oldest first. None where that offset is no longer held.
    pub(super) fn from(&self, from: i64) -> Option<impl Iterator<Item = &StoredRecord>> {
        let skip = usize::try_from(from - self.first).ok()?;
        let start = skip.min(self.slots.len());
        Some(self.slots.range(start..).map(|slot| &slot.record))
    }

    /// What the records at this offset and after it take, as far as they are held.
    pub(super) fn load_from(&self, from: i64) -> Load {
        let skip = usize::try_from(from - self.first).unwrap_or(0);
        match self.slots.get(skip) {
            None => Load::default(),
            Some(slot) => Load {
                records: self.slots.len() - skip,
                bytes: usize::try_from(self.appended - slot.before).unwrap_or(usize::MAX),
            },
        }
    }

    /// The offset of the first record that is held and was appended at this time or later.
    pub(super) fn appended_since(&self, time_ms: i64) -> Option<i64> {
        let index = self
            .slots
            .partition_point(|slot| slot.record.appended_ms < time_ms);
        (index < self.slots.len()).then(|| self.first + offset(index))
    }

    /// Drops the records before this offset.
    pub(super) fn free_before(&mut self, offset: i64) {
        while self.first < offset && self.slots.pop_front().is_some() {
            self.first += 1;
        }
        self.give_memory_back();
    }

    /// Drops the oldest records until the rest is within the bound, none at `limit` or after it.
    pub(super) fn shrink_to(&mut self, bound: Load, limit: i64) {
        while self.first < limit && !self.load_from(self.first).is_within(bound) {
            self.slots.pop_front();
            self.first += 1;
        }
        self.give_memory_back();
    }

    /// Returns the memory that a burst of records took.
    fn give_memory_back(&mut self) {
        if self.slots.capacity() > 1024 && self.slots.len() < self.slots.capacity() / 8 {
            self.slots.shrink_to(self.slots.len() * 2);
        }
    }
}

fn offset(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone)]
    enum Step {
        Push(usize),
        FreeBefore(i64),
        ShrinkTo(usize, usize, i64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (1_usize..50).prop_map(Step::Push),
            1 => (-5_i64..120).prop_map(Step::FreeBefore),
            1 => (0_usize..20, 0_usize..800, 0_i64..120).prop_map(|(records, bytes, limit)| Step::ShrinkTo(records, bytes, limit)),
        ]
    }

    fn record(size: usize, appended_ms: i64) -> StoredRecord {
        StoredRecord::alone(vec![0; size], appended_ms)
    }

    proptest! {
        /// Against a list of all records that were ever appended, and the number of those that were dropped.
        #[test]
        fn it_holds_what_a_plain_list_holds(start in 0_i64..10, steps in proptest::collection::vec(step(), 1..80)) {
            let mut partition = Partition::starting_at(start);
            let mut all: Vec<usize> = Vec::new();
            let mut dropped = 0;
            for (number, step) in steps.into_iter().enumerate() {
                match step {
                    Step::Push(size) => {
                        let given = partition.push(record(size, i64::try_from(number).unwrap()));
                        prop_assert_eq!(given, start + offset(all.len()));
                        all.push(size);
                    }
                    Step::FreeBefore(before) => {
                        partition.free_before(before);
                        dropped = dropped.max(usize::try_from(before - start).unwrap_or(0).min(all.len()));
                    }
                    Step::ShrinkTo(records, bytes, limit) => {
                        partition.shrink_to(Load { records, bytes }, limit);
                        while dropped < all.len()
                            && start + offset(dropped) < limit
                            && (all.len() - dropped > records || all[dropped..].iter().sum::<usize>() > bytes)
                        {
                            dropped += 1;
                        }
                    }
                }
                prop_assert_eq!(partition.first(), start + offset(dropped));
                prop_assert_eq!(partition.next(), start + offset(all.len()));
                for index in 0..=all.len() {
                    let at = start + offset(index);
                    let held: Option<Vec<usize>> = partition.from(at).map(|records| records.map(StoredRecord::size).collect());
                    prop_assert_eq!(held, (index >= dropped).then(|| all[index..].to_vec()));
                    let rest = &all[index.max(dropped)..];
                    prop_assert_eq!(partition.load_from(at), Load { records: rest.len(), bytes: rest.iter().sum() });
                }
            }
        }
    }

    #[test]
    fn a_time_leads_to_the_first_record_appended_at_it_or_later() {
        let mut partition = Partition::starting_at(5);
        for appended_ms in [10, 10, 20, 40] {
            partition.push(record(1, appended_ms));
        }
        let found = [0, 10, 11, 20, 21, 40, 41].map(|time| partition.appended_since(time));
        assert_eq!(
            found,
            [Some(5), Some(5), Some(7), Some(7), Some(8), Some(8), None]
        );
    }
}
