//! Decides when a barrier is due in a partition. A barrier is a marker in every worker queue after the same record; at it,
//! each worker writes its part of the partition's snapshot.
//!
//! The barriers of the partitions are spread evenly over the interval. A partition in which many records were read gets its
//! barrier earlier, and one in which none was read since its last barrier gets none.

use std::collections::{BTreeMap, HashMap};
use std::time::Instant;

use crate::histories::BarrierInterval;

/// The last barrier of each partition, and the turn that comes next.
#[derive(Debug)]
pub(super) struct Barriers {
    interval: BarrierInterval,
    /// Offset of the last barrier, by partition.
    offsets: HashMap<i32, i64>,
    /// The partition that had its turn last.
    last: i32,
    next_turn: Instant,
}

impl Barriers {
    pub(super) fn new(interval: BarrierInterval, now: Instant) -> Self {
        Self {
            interval,
            offsets: HashMap::new(),
            last: 0,
            next_turn: now,
        }
    }

    /// Begins a new assignment. A history that was restored at one of these offsets needs no barrier before it moves.
    pub(super) fn reset(&mut self, restored: impl Iterator<Item = (i32, i64)>) {
        self.offsets = restored.collect();
    }

    /// The partitions in which a barrier is due. `positions` is the offset to be read next in each assigned partition.
    pub(super) fn due(&mut self, now: Instant, positions: &BTreeMap<i32, i64>) -> Vec<i32> {
        let moved: Vec<(i32, i64)> = positions
            .iter()
            .filter_map(|(partition, next)| {
                let last = self.offsets.get(partition).copied().unwrap_or_default();
                (*next > last).then_some((*partition, next - last))
            })
            .collect();
        let mut due: Vec<i32> = moved
            .iter()
            .filter(|(_, since)| *since >= self.interval.offsets)
            .map(|(partition, _)| *partition)
            .collect();
        if now >= self.next_turn {
            let after_last = moved.iter().find(|(partition, _)| *partition > self.last);
            if let Some((partition, _)) = after_last.or(moved.first()) {
                self.last = *partition;
                due.push(*partition);
            }
            let share = u32::try_from(positions.len().max(1)).unwrap_or(u32::MAX);
            self.next_turn = now + self.interval.interval / share;
        }
        due
    }

    /// Whether a partition has moved since its last barrier.
    pub(super) fn is_behind(&self, partition: i32, offset: i64) -> bool {
        self.offsets.get(&partition) != Some(&offset)
    }

    /// A barrier was set at this offset.
    pub(super) fn set(&mut self, partition: i32, offset: i64) {
        self.offsets.insert(partition, offset);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn barriers(now: Instant) -> Barriers {
        let interval = BarrierInterval {
            interval: Duration::from_secs(30),
            offsets: 100,
        };
        Barriers::new(interval, now)
    }

    #[test]
    fn partitions_that_have_moved_take_turns_within_the_interval() {
        let begin = Instant::now();
        let mut barriers = barriers(begin);
        let positions = BTreeMap::from([(1, 10), (2, 0), (3, 20)]);
        let mut due = |seconds| barriers.due(begin + Duration::from_secs(seconds), &positions);
        assert_eq!(due(0), [1]);
        assert_eq!(due(9), [0; 0]);
        assert_eq!(due(10), [3]);
        assert_eq!(due(20), [1]);
    }

    #[test]
    fn a_partition_that_has_moved_far_does_not_wait_for_its_turn() {
        let begin = Instant::now();
        let mut barriers = barriers(begin);
        barriers.reset([(1, 50)].into_iter());
        let positions = BTreeMap::from([(1, 149)]);
        assert_eq!(barriers.due(begin, &positions), [1]);
        barriers.set(1, 149);
        assert!(!barriers.is_behind(1, 149));
        let far = BTreeMap::from([(1, 249)]);
        assert_eq!(barriers.due(begin, &far), [1]);
        barriers.set(1, 249);
        assert_eq!(barriers.due(begin, &far), [0; 0]);
    }
}
