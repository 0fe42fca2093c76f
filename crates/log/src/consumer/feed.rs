//! The interface between the readers of the log and what implements it: Kafka, the embedded log, or a test's script.
//!
//! A feed only reports: the partitions that the group has assigned or revoked, and the next record. The consumer loop
//! decides, and answers with [`Feed::assign`] and [`Feed::unassign`]. Invariant: a feed delivers records of a partition
//! only between these two calls, in the order of their offsets.

use std::time::Duration;

use crate::error::LogError;
use crate::record::{RawRecord, TopicPartition};

/// The topics that a feed reads, and the group that it reads them for.
#[derive(Debug, Clone)]
pub(crate) struct FeedOptions {
    /// The stage under which the client appears in metrics: its statistics, lag and rebalances. Without a stage the
    /// client sets no metrics.
    pub(crate) stage: Option<&'static str>,
    /// The consumer group under which offsets are committed. A reader outside a group commits nothing.
    pub(crate) group: String,
    /// How the feed gets its partitions.
    pub(crate) membership: Membership,
    /// How the feed goes on where the offset that it is to read next was deleted.
    pub(crate) out_of_range: OutOfRange,
    /// The topics. [`TopicPartition::topic`] is an index into this list.
    pub(crate) topics: Vec<String>,
}

/// How a feed goes on when the offset that it is to read next is no longer in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OutOfRange {
    /// Report [`LogError::Refused`], because reading on would lose records.
    Fail,
    /// Go on with the oldest record that is left.
    Oldest,
    /// Go on with the next record that is written.
    Newest,
}

/// How a feed gets its partitions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Membership {
    /// The group assigns partitions to its members. They arrive as [`FeedEvent::Assigned`] after [`Feed::subscribe`].
    Member,
    /// No group: the reader calls [`Feed::assign`] by itself, and no rebalance is reported.
    Outside,
}

/// The result of one poll.
#[derive(Debug)]
pub(crate) enum Polled<'a> {
    /// The next record of an assigned partition.
    Record(RawRecord<'a>),
    /// An event that is not a record.
    Event(FeedEvent),
    /// Nothing came within the timeout.
    Nothing,
}

/// The events that a feed reports beside records.
#[derive(Debug)]
pub(crate) enum FeedEvent {
    /// Every record that the partition has now was delivered. Reported once for each assignment of the partition.
    EndOfPartition(TopicPartition),
    /// The group has assigned these partitions. The feed reads none of them before [`Feed::assign`], which must be
    /// called once.
    Assigned(Vec<TopicPartition>),
    /// The group revokes all partitions, and waits until [`Feed::unassign`]. Commits before that call still count.
    Revoked {
        /// The partitions that were assigned.
        partitions: Vec<TopicPartition>,
        /// True where other members may own the partitions already: a commit would be refused.
        lost: bool,
    },
    /// [`LogError::Refused`] ends the reading. The client has logged every other error already, and recovers from it.
    Error(LogError),
}

/// The offset at which the reading of a partition begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StartOffset {
    /// The offset of the oldest record in the log.
    Oldest,
    /// This offset.
    At(i64),
}

/// The offset that a group has committed in a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CommittedOffset {
    pub(crate) partition: TopicPartition,
    /// The offset to read next. None where the group has never committed, or the broker has deleted the offset.
    pub(crate) offset: Option<i64>,
    /// The text that was committed with the offset. Empty where there is none.
    pub(crate) note: String,
}

/// An offset to commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CommitOffset {
    pub(crate) partition: TopicPartition,
    /// The offset to read next: one after the last record that is completed.
    pub(crate) offset: i64,
    /// A text that the broker keeps with the offset.
    pub(crate) note: Option<String>,
}

/// A source of records. One thread calls it.
///
/// A method that returns a `Result` may send a request to the log, and blocks for at most the timeout of a request.
pub(crate) trait Feed: Send {
    /// Joins the group. Not called for [`Membership::Outside`].
    fn subscribe(&mut self) -> Result<(), LogError>;

    /// Waits for the next record or event, at most `timeout`, and calls `take` exactly once. A record is borrowed from
    /// the client, so that the caller copies it once, into the batch of its worker.
    fn poll(&mut self, timeout: Duration, take: &mut dyn FnMut(Polled<'_>));

    /// Reads these partitions from here on, each from its start, and no others. Paused partitions are resumed.
    fn assign(&mut self, starts: &[(TopicPartition, StartOffset)]) -> Result<(), LogError>;

    /// Stops reading all partitions. This answers [`FeedEvent::Revoked`], or declines a [`FeedEvent::Assigned`].
    fn unassign(&mut self) -> Result<(), LogError>;

    /// Delivers no records of any assigned partition until [`Feed::resume`]. Polling goes on.
    fn pause(&mut self) -> Result<(), LogError>;

    /// Delivers records again.
    fn resume(&mut self) -> Result<(), LogError>;

    /// The number of partitions of a topic of this feed; [`LogError::NoTopic`] where the topic does not exist.
    fn partition_count(&mut self, topic: usize) -> Result<i32, LogError>;

    /// The offsets that the group has committed in these partitions, with their notes.
    fn committed(
        &mut self,
        partitions: &[TopicPartition],
    ) -> Result<Vec<CommittedOffset>, LogError>;

    /// The offset of the oldest record, and the offset after the newest.
    fn watermarks(&mut self, partition: TopicPartition) -> Result<(i64, i64), LogError>;

    /// For each partition, in their order: the first offset with a record that is not older than `since_ms`
    /// (milliseconds since 1970). None where all records are older.
    fn offsets_for_time(
        &mut self,
        partitions: &[TopicPartition],
        since_ms: i64,
    ) -> Result<Vec<Option<i64>>, LogError>;

    /// A handle with which another thread commits.
    fn committer(&self) -> Box<dyn OffsetCommitter>;
}

/// Commits offsets of a feed's group.
pub(crate) trait OffsetCommitter: Send {
    /// Commits all of these offsets, and waits until the log has them. After an error none of them counts as committed;
    /// a later commit of the same or higher offsets replaces this one.
    fn commit(&mut self, offsets: &[CommitOffset]) -> Result<(), LogError>;
}
