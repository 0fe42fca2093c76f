//! The interface through which the consumer loop restores and writes snapshots of histories.

use std::collections::HashMap;
use std::time::Duration;

/// An offset of a partition, and what identifies the partition's records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// Its number.
    pub partition: i32,
    /// How many partitions the topic has: with another number, users are in other partitions.
    pub partitions: i32,
    /// Identifies the records of this partition: a random number that is drawn at the group's first commit and stored
    /// with each committed offset. A broker deletes it together with the topic, so a topic that is created again has
    /// another one.
    pub log: u64,
    /// Everything before this offset is in the history.
    pub offset: i64,
}

/// What a snapshot must fulfil to be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SnapshotRequirements {
    /// Up to where the group has committed: the history must not stand beyond it.
    pub committed: Position,
    /// The oldest offset that the log still has: a history that stands before it would have a gap.
    pub oldest: i64,
}

/// Stores histories, so that the next owner of a partition can restore them.
///
/// The consumer loop calls it. The workers write their parts at an [`Event::Barrier`](crate::Event::Barrier), which
/// comes after the same record in every worker queue.
pub trait Histories: Send + Sync + std::fmt::Debug {
    /// A hash of the key that selects its worker: the one that has the key's history when it was restored.
    fn worker_hash(&self, key: &[u8]) -> u64;

    /// Reads the snapshots of these partitions, for the workers to take over. Blocks. The offset at which each history
    /// stands, by partition; the rest is rebuilt from the log.
    fn restore(&self, required: &[SnapshotRequirements]) -> HashMap<i32, i64>;

    /// Whether a snapshot at this position can begin, which is not so while an earlier one of the partition is being
    /// written. If it can, every worker gets the barrier.
    fn begin_barrier(&self, position: Position) -> bool;

    /// The group has committed up to here: a snapshot at this offset or before may be written.
    fn committed(&self, partition: i32, offset: i64);

    /// Waits until every snapshot that has begun is written, at most `timeout`.
    fn wait_until_written(&self, timeout: Duration);

    /// A new assignment begins: snapshots that have begun and are not written are dropped.
    fn forget(&self);
}

/// How often barriers are set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BarrierInterval {
    /// Time between two barriers of a partition.
    pub interval: Duration,
    /// Offsets between two barriers of a partition, where that comes first.
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
