//! The partitions of an assignment: where reading starts in each, and whether its history is being restored, being rebuilt, or
//! complete.
//!
//! A partition with a history is first restored from a snapshot, then rebuilt by replaying the log up to the committed
//! offset, and then live. Pure: the caller passes in what the log reports.

use std::hash::{BuildHasher, RandomState};

use super::StartingPosition;
use super::feed::StartOffset;
use crate::histories::CommitNote;
use crate::record::TopicPartition;

/// The state of a partition's history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PartitionState {
    /// The snapshot is being read. The log is not read yet.
    Restoring,
    /// An earlier owner has processed the records before `until`. They are replayed for the history alone.
    Rebuilding {
        /// The committed offset.
        until: i64,
    },
    /// Every record is processed.
    Live,
}

/// The offsets that the log reports of an assigned partition.
#[derive(Debug, Clone)]
pub(super) struct FoundPartition {
    pub(super) at: TopicPartition,
    pub(super) committed: Option<i64>,
    pub(super) note: CommitNote,
    /// The oldest offset inside the lookback.
    pub(super) lookback: Option<i64>,
    /// The offset of the oldest record, and the offset after the newest.
    pub(super) watermarks: (i64, i64),
}

/// The offset at which a partition is read, and the end of its replayed part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Start {
    pub(super) at: TopicPartition,
    pub(super) offset: StartOffset,
    pub(super) replay_until: Option<i64>,
    /// Identifies the log of this partition; see [`Position::log`](crate::Position::log).
    pub(super) log: u64,
    /// The offset of the snapshot from which the history was restored. None where no snapshot was used.
    pub(super) restored: Option<i64>,
    /// True where records that belong to the history were deleted from the log.
    pub(super) shortened: bool,
}

impl FoundPartition {
    /// The start of the partition without a snapshot: its history is replayed from the log.
    pub(super) fn start(&self, from: StartingPosition) -> Start {
        let (oldest, end) = self.watermarks;
        let committed = self
            .committed
            .or((from == StartingPosition::Latest).then_some(end));
        let (offset, replay_until) = match (committed, self.lookback) {
            (None, _) => (StartOffset::Oldest, None),
            (Some(end), Some(lookback)) if lookback < end => (StartOffset::At(lookback), Some(end)),
            (Some(end), _) => (StartOffset::At(end), None),
        };
        Start {
            at: self.at,
            offset,
            replay_until,
            // Random numbers of 64 bits: two logs do not get the same one in practice.
            log: self
                .note
                .log
                .unwrap_or_else(|| RandomState::new().hash_one(self.at)),
            restored: None,
            // Records were deleted, and the oldest one left is inside the lookback: the deleted ones may have been too.
            shortened: oldest > 0 && self.lookback.is_some_and(|lookback| lookback <= oldest),
        }
    }
}

impl Start {
    /// The start of the partition with a history that was restored at `offset`.
    pub(super) fn restored_at(self, offset: i64, committed: i64) -> Self {
        Self {
            offset: StartOffset::At(offset),
            replay_until: Some(committed).filter(|committed| offset < *committed),
            restored: Some(offset),
            shortened: false,
            ..self
        }
    }
}

/// A partition that is read.
#[derive(Debug)]
pub(super) struct Partition {
    at: TopicPartition,
    state: PartitionState,
    log: u64,
    /// The offset at which reading was to begin. None once the first record was read.
    first: Option<i64>,
    /// The offset to be read next.
    next: i64,
}

/// The meaning of a record for its partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Seen {
    /// True for a record before the committed offset.
    pub(super) replayed: bool,
    /// True for the last replayed record: the history is rebuilt.
    pub(super) rebuilt: bool,
    /// For the first record of the partition: the offset at which reading was to begin, if that record has a higher one.
    pub(super) gap_after: Option<i64>,
}

/// The partitions of an assignment.
#[derive(Debug, Default)]
pub(super) struct Partitions {
    /// In the order of their numbers.
    all: Vec<Partition>,
    /// Index of the partition of the last record. The next record is mostly of the same partition.
    last: usize,
}

impl Partitions {
    /// Takes over an assignment that waits for its histories.
    pub(super) fn restoring(&mut self, starts: &[Start]) {
        self.begin(starts);
        for partition in &mut self.all {
            partition.state = PartitionState::Restoring;
        }
    }

    /// Takes over an assignment that is read from here on.
    pub(super) fn begin(&mut self, starts: &[Start]) {
        self.last = 0;
        self.all = starts
            .iter()
            .map(|start| Partition {
                at: start.at,
                state: start.replay_until.map_or(PartitionState::Live, |until| {
                    PartitionState::Rebuilding { until }
                }),
                log: start.log,
                first: match start.offset {
                    StartOffset::Oldest => None,
                    StartOffset::At(offset) => Some(offset),
                },
                next: match start.offset {
                    StartOffset::Oldest => 0,
                    StartOffset::At(offset) => offset,
                },
            })
            .collect();
        self.all.sort_by_key(|partition| partition.at);
    }

    /// Removes all partitions.
    pub(super) fn clear(&mut self) {
        self.begin(&[]);
    }

    fn find(&mut self, at: TopicPartition) -> Option<&mut Partition> {
        let is_last = |partition: &Partition| partition.at == at;
        if !self.all.get(self.last).is_some_and(is_last) {
            self.last = self
                .all
                .binary_search_by_key(&at, |partition| partition.at)
                .ok()?;
        }
        self.all.get_mut(self.last)
    }

    fn get(&self, at: TopicPartition) -> Option<&Partition> {
        self.all.iter().find(|partition| partition.at == at)
    }

    /// Notes a record that was read. None where its partition is not assigned.
    pub(super) fn see(&mut self, at: TopicPartition, offset: i64) -> Option<Seen> {
        let partition = self.find(at)?;
        let first = partition.first.take();
        partition.next = offset + 1;
        let mut seen = Seen {
            gap_after: first.filter(|first| offset > *first),
            ..Seen::default()
        };
        if let PartitionState::Rebuilding { until } = partition.state {
            seen.replayed = offset < until;
            if offset + 1 >= until {
                partition.state = PartitionState::Live;
                seen.rebuilt = true;
            }
        }
        Some(seen)
    }

    /// Notes that a partition was read to its end. Returns true if its rebuilding ends there: the offsets before the
    /// committed one may have no record.
    pub(super) fn reach_end(&mut self, at: TopicPartition) -> bool {
        let Some(partition) = self.find(at) else {
            return false;
        };
        let rebuilding = matches!(partition.state, PartitionState::Rebuilding { .. });
        if rebuilding {
            partition.state = PartitionState::Live;
        }
        rebuilding
    }

    /// The state of a partition. None where it is not assigned.
    pub(super) fn state(&self, at: TopicPartition) -> Option<PartitionState> {
        self.get(at).map(|partition| partition.state)
    }

    /// Identifies the log of this partition.
    pub(super) fn log(&self, at: TopicPartition) -> Option<u64> {
        self.get(at).map(|partition| partition.log)
    }

    /// The number of histories that are being rebuilt, and the number of offsets still to be read for them.
    pub(super) fn rebuilding(&self) -> (usize, u64) {
        let remaining = self.all.iter().filter_map(|partition| {
            let PartitionState::Rebuilding { until } = partition.state else {
                return None;
            };
            Some((until - partition.next).max(0).unsigned_abs())
        });
        remaining.fold((0, 0), |(count, sum), remaining| {
            (count + 1, sum + remaining)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: TopicPartition = TopicPartition::new(0, 0);

    fn found(
        committed: Option<i64>,
        lookback: Option<i64>,
        watermarks: (i64, i64),
    ) -> FoundPartition {
        FoundPartition {
            at: AT,
            committed,
            note: CommitNote::default(),
            lookback,
            watermarks,
        }
    }

    fn begun(start: Start) -> Partitions {
        let mut partitions = Partitions::default();
        partitions.begin(&[start]);
        partitions
    }

    #[test]
    fn the_log_is_replayed_from_the_lookback_up_to_the_committed_offset() {
        let start = found(Some(70), Some(20), (0, 100)).start(StartingPosition::TrimHorizon);
        assert_eq!(
            (start.offset, start.replay_until),
            (StartOffset::At(20), Some(70))
        );
        assert!(!start.shortened);
    }

    #[test]
    fn records_deleted_inside_the_lookback_are_noticed() {
        let of = |lookback, oldest| {
            let start = found(Some(70), Some(lookback), (oldest, 100));
            start.start(StartingPosition::TrimHorizon).shortened
        };
        assert!(of(20, 20));
        assert!(
            !of(21, 20),
            "an older record is still there, and lies outside"
        );
        assert!(!of(0, 0), "nothing was ever deleted");
    }

    #[test]
    fn a_new_group_begins_where_its_settings_say() {
        let latest = found(None, Some(20), (0, 100)).start(StartingPosition::Latest);
        assert_eq!(
            (latest.offset, latest.replay_until),
            (StartOffset::At(20), Some(100))
        );
        let oldest = found(None, Some(20), (0, 100)).start(StartingPosition::TrimHorizon);
        assert_eq!(
            (oldest.offset, oldest.replay_until),
            (StartOffset::Oldest, None)
        );
    }

    #[test]
    fn a_snapshot_shortens_the_replay_to_what_came_after_it() {
        let start = found(Some(70), Some(20), (20, 100)).start(StartingPosition::TrimHorizon);
        let restored = start.restored_at(50, 70);
        assert_eq!(
            (restored.offset, restored.replay_until, restored.shortened),
            (StartOffset::At(50), Some(70), false)
        );
        assert_eq!(start.restored_at(70, 70).replay_until, None);
    }

    #[test]
    fn a_partition_goes_live_at_its_committed_offset() {
        let start = found(Some(3), Some(1), (0, 9)).start(StartingPosition::TrimHorizon);
        let mut partitions = begun(start);
        assert_eq!(partitions.rebuilding(), (1, 2));
        let seen = |partitions: &mut Partitions, offset| {
            let seen = partitions.see(AT, offset).unwrap();
            (seen.replayed, seen.rebuilt)
        };
        assert_eq!(seen(&mut partitions, 1), (true, false));
        assert_eq!(seen(&mut partitions, 2), (true, true));
        assert_eq!(seen(&mut partitions, 3), (false, false));
        assert_eq!(partitions.state(AT), Some(PartitionState::Live));
    }

    #[test]
    fn a_partition_goes_live_at_its_end_where_the_last_offsets_are_of_no_record() {
        let start = found(Some(3), Some(1), (0, 3)).start(StartingPosition::TrimHorizon);
        let mut partitions = begun(start);
        partitions.see(AT, 1);
        assert!(partitions.reach_end(AT));
        assert!(!partitions.reach_end(AT));
        assert_eq!(partitions.rebuilding(), (0, 0));
    }

    #[test]
    fn a_first_record_behind_the_offset_to_begin_with_is_a_gap_and_later_ones_are_not() {
        let start = found(Some(5), None, (0, 9)).start(StartingPosition::TrimHorizon);
        let mut partitions = begun(start);
        assert_eq!(partitions.see(AT, 7).unwrap().gap_after, Some(5));
        assert_eq!(partitions.see(AT, 9).unwrap().gap_after, None);
        assert_eq!(begun(start).see(AT, 5).unwrap().gap_after, None);
        assert_eq!(partitions.see(TopicPartition::new(0, 1), 0), None);
    }
}
