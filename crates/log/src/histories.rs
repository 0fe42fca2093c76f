//! Where the histories of a stage come from when it gets a partition, and where they go when it loses it.

use std::collections::HashMap;
use std::time::Duration;

/// A place in the log of one partition, and what tells that log from any other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// Its number.
    pub partition: i32,
    /// How many partitions the topic has: with another number users live elsewhere.
    pub partitions: i32,
    /// A number given to the log of this partition when the group first committed in it. It is kept beside the
    /// committed offset, which a broker forgets together with its topic: a topic that was made anew has another one.
    pub log: u64,
    /// Everything before this offset is in the history.
    pub offset: i64,
}

/// What a stage gets a history for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SnapshotRequirements {
    /// Up to where the group has committed: the history must not stand beyond it.
    pub committed: Position,
    /// The oldest offset that the log still has: a history that stands before it would have a gap.
    pub oldest: i64,
}

/// Keeps histories between one owner of a partition and the next.
///
/// The reader calls it; what workers have is marked by [`Event::Barrier`](crate::Event::Barrier), which stands between
/// two batches in every lane.
pub trait Histories: Send + Sync + std::fmt::Debug {
    /// The lane of this key: where its history is when it was restored.
    fn lane(&self, key: &[u8]) -> u64;

    /// Gets ready, for the workers to take over, what there is for these partitions. Blocks. The offset at which each
    /// history stands, by partition; what is not in it is rebuilt from the log.
    fn restore(&self, wanted: &[SnapshotRequirements]) -> HashMap<i32, i64>;

    /// Whether a history at this position can be taken now, which is not so while one before it is on its way. If it
    /// can, every worker is told to give its part.
    fn begin_barrier(&self, position: Position) -> bool;

    /// The group has committed up to here: what stands there or before may be kept.
    fn committed(&self, partition: i32, offset: i64);

    /// Waits until everything marked is kept, so long at most.
    fn settle(&self, timeout: Duration);

    /// These partitions begin anew: what was marked and is not kept counts for nothing any more.
    fn forget(&self);
}

/// How often histories are marked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BarrierInterval {
    /// Time between two marks of a partition.
    pub interval: Duration,
    /// Offsets between two marks of a partition, where that comes first.
    pub offsets: i64,
}

/// What is kept beside each committed offset of a stage with histories: `partitions=12 log=00f3…`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct CommitNote {
    pub(crate) partitions: Option<i32>,
    pub(crate) log: Option<u64>,
}

impl CommitNote {
    pub(crate) fn parse(text: &str) -> Self {
        let mut note = Self::default();
        for (name, value) in text.split(' ').filter_map(|word| word.split_once('=')) {
            match name {
                "partitions" => note.partitions = value.parse().ok(),
                "log" => note.log = u64::from_str_radix(value, 16).ok(),
                _ => {}
            }
        }
        note
    }

    pub(crate) fn write(partitions: i32, log: u64) -> String {
        format!("partitions={partitions} log={log:016x}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_is_read_as_it_was_written_and_an_older_or_foreign_one_as_far_as_it_goes() {
        let read = CommitNote::parse(&CommitNote::write(12, 0xf3));
        assert_eq!((read.partitions, read.log), (Some(12), Some(0xf3)));
        assert_eq!(CommitNote::parse("partitions=12").log, None);
        assert_eq!(CommitNote::parse("partitions=12").partitions, Some(12));
        assert_eq!(
            CommitNote::parse("offset reset by hand"),
            CommitNote::default()
        );
    }
}
