//! The interface between the readers of the log and what implements it: Kafka, the embedded log, or a test's script.
//!
//! A feed only reports: which partitions were given or taken away, which record comes next. The consumer loop
//! decides, and answers with [`Feed::assign`] and [`Feed::unassign`]. Invariant: a feed delivers records of a
//! partition only between the two, in the order of their offsets.

use std::time::Duration;

use crate::error::LogError;
use crate::record::{RawRecord, TopicPartition};

/// What a feed reads, and as whom.
#[derive(Debug, Clone)]
pub(crate) struct FeedOptions {
    /// The stage under which the client appears in metrics: its statistics, lag and rebalances. None: nowhere.
    pub(crate) stage: Option<&'static str>,
    /// The consumer group. Offsets are committed under it; a reader outside a group commits nothing.
    pub(crate) group: String,
    /// Whether partitions are shared with the other members of the group.
    pub(crate) membership: Membership,
    /// What happens where the records to go on with were deleted.
    pub(crate) out_of_range: OutOfRange,
    /// The topics, in the order that [`TopicPartition::topic`] counts.
    pub(crate) topics: Vec<String>,
}

/// What a feed does when the offset that it is to read from is no longer there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OutOfRange {
    /// Reports [`LogError::Refused`]: to go on would be to lose records.
    Fail,
    /// Goes on with the oldest record that is left.
    Oldest,
    /// Goes on with the next record that is written.
    Newest,
}

/// How a feed gets its partitions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Membership {
    /// The group shares the partitions out: they come as [`FeedEvent::Assigned`] after [`Feed::subscribe`].
    Member,
    /// No group: whoever reads assigns partitions itself, and nothing is reported of them.
    Outside,
}

/// What one poll has brought.
#[derive(Debug)]
pub(crate) enum Polled<'a> {
    /// The next record of an assigned partition.
    Record(RawRecord<'a>),
    /// Something else than a record.
    Event(FeedEvent),
    /// Nothing came within the timeout.
    Nothing,
}

/// What a feed reports beside records.
#[derive(Debug)]
pub(crate) enum FeedEvent {
    /// Everything that the partition holds now was delivered. Once for each assignment of the partition.
    EndOfPartition(TopicPartition),
    /// The group has given these partitions. Nothing of them is read until [`Feed::assign`], which must come once.
    Assigned(Vec<TopicPartition>),
    /// The group takes all partitions back; it waits until [`Feed::unassign`]. Commits before that still count.
    Revoked {
        /// What was assigned.
        partitions: Vec<TopicPartition>,
        /// Others may have them already: a commit would be refused.
        lost: bool,
    },
    /// [`LogError::Refused`] ends the reading. Everything else was reported already, and passes.
    Error(LogError),
}

/// Where the reading of a partition begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StartOffset {
    /// With the oldest record that is there.
    Oldest,
    /// At this offset.
    At(i64),
}

/// What a group has committed in a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CommittedOffset {
    pub(crate) partition: TopicPartition,
    /// The offset to go on from; none where nothing was ever committed, or that was forgotten.
    pub(crate) offset: Option<i64>,
    /// The text that was committed beside it; empty where there is none.
    pub(crate) note: String,
}

/// An offset to commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CommitOffset {
    pub(crate) partition: TopicPartition,
    /// The offset to go on from: one after the last record that is done.
    pub(crate) offset: i64,
    /// Kept beside it.
    pub(crate) note: Option<String>,
}

/// A source of records. Driven by one thread.
///
/// The calls that return a `Result` ask the log, and may block for as long as one request may take.
pub(crate) trait Feed: Send {
    /// Begins to take part in the group. Not for [`Membership::Outside`].
    fn subscribe(&mut self) -> Result<(), LogError>;

    /// Waits for the next thing, at most `timeout`, and passes it to `take`, exactly once. A record is borrowed, so
    /// that it need not be copied before it is known where to.
    fn poll(&mut self, timeout: Duration, take: &mut dyn FnMut(Polled<'_>));

    /// Reads these partitions from here on, each from its start, and no others. Resumes what was paused.
    fn assign(&mut self, starts: &[(TopicPartition, StartOffset)]) -> Result<(), LogError>;

    /// Reads nothing any more; answers [`FeedEvent::Revoked`], or gives back a [`FeedEvent::Assigned`] that was not taken.
    fn unassign(&mut self) -> Result<(), LogError>;

    /// Delivers no records of any assigned partition until [`Feed::resume`]. Polling goes on.
    fn pause(&mut self) -> Result<(), LogError>;

    /// Delivers records again.
    fn resume(&mut self) -> Result<(), LogError>;

    /// How many partitions a topic of this feed has; [`LogError::NoTopic`] where it does not exist.
    fn partition_count(&mut self, topic: usize) -> Result<i32, LogError>;

    /// What the group has committed in these partitions, with the notes beside it.
    fn committed(
        &mut self,
        partitions: &[TopicPartition],
    ) -> Result<Vec<CommittedOffset>, LogError>;

    /// The oldest offset and the one after the newest.
    fn watermarks(&mut self, partition: TopicPartition) -> Result<(i64, i64), LogError>;

    /// The first offset whose record is not older than this time, milliseconds since 1970; none where all are older.
    /// One for each partition, in their order.
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
    /// Commits all of these, and waits until the log has them. On an error none counts as committed: a later commit of
    /// the same or higher offsets makes up for it.
    fn commit(&mut self, offsets: &[CommitOffset]) -> Result<(), LogError>;
}
