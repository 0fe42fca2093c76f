//! Looks up the partitions of an assignment in the log, before the loop reads any of them.
//!
//! The lookup returns everything that decides where reading begins: the committed offset, the oldest offset inside the
//! lookback, and the watermarks. Invariant: a stage that replays a history never starts on a topic with another
//! number of partitions than its last owner had, because users are then in other partitions than their histories.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use super::ConsumerOptions;
use super::feed::Feed;
use super::partition::FoundPartition;
use crate::error::LogError;
use crate::histories::CommitNote;
use crate::record::TopicPartition;

/// How often a lookup is tried. A broker that has just become leader answers at the second or third time.
const ATTEMPTS: usize = 3;

/// What the log returned for an assignment.
#[derive(Debug)]
pub(super) struct FoundAssignment {
    /// The number of partitions of each topic, in the order of [`ConsumerOptions::topics`].
    pub(super) totals: Vec<i32>,
    /// The assigned partitions, of all topics.
    pub(super) partitions: Vec<FoundPartition>,
}

/// A lookup through a feed. Each request blocks for at most the timeout of one request.
pub(super) struct AssignmentLookup<'a> {
    pub(super) feed: &'a mut dyn Feed,
    pub(super) options: &'a ConsumerOptions,
}

impl AssignmentLookup<'_> {
    /// Looks up these partitions. A client error is retried; every other error is returned at once.
    ///
    /// # Errors
    /// [`LogError::Refused`] where the number of partitions has changed; otherwise the error of the last attempt.
    pub(super) fn run(&mut self, given: &[TopicPartition]) -> Result<FoundAssignment, LogError> {
        let mut found = self.try_once(given);
        for _ in 1..ATTEMPTS {
            if matches!(found, Err(LogError::Client { .. })) {
                found = self.try_once(given);
            }
        }
        found
    }

    fn try_once(&mut self, given: &[TopicPartition]) -> Result<FoundAssignment, LogError> {
        let totals: Vec<i32> = (0..self.options.topics.len())
            .map(|topic| self.feed.partition_count(topic))
            .collect::<Result<_, _>>()?;
        // More members than partitions: the group assigns this member nothing.
        if given.is_empty() {
            return Ok(FoundAssignment {
                totals,
                partitions: Vec::new(),
            });
        }
        let total = totals.first().copied().unwrap_or_default();
        let committed = self.feed.committed(given)?;
        let mut lookback = self.lookback_offsets(given)?;
        let mut partitions = Vec::with_capacity(committed.len());
        for committed in committed {
            let at = committed.partition;
            let note = CommitNote::parse(&committed.note);
            // Only the first topic has histories.
            if at.topic == 0 {
                self.refuse_torn_history(note, total)?;
            }
            partitions.push(FoundPartition {
                at,
                committed: committed.offset,
                note,
                lookback: lookback.remove(&at),
                watermarks: self.feed.watermarks(at)?,
            });
        }
        Ok(FoundAssignment { totals, partitions })
    }

    /// The oldest offset inside the lookback, for each partition of the first topic that has one. Empty for a stage that
    /// replays nothing.
    fn lookback_offsets(
        &mut self,
        given: &[TopicPartition],
    ) -> Result<BTreeMap<TopicPartition, i64>, LogError> {
        let Some(replay) = self.options.replay else {
            return Ok(BTreeMap::new());
        };
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let since = i64::try_from(now.saturating_sub(replay).as_millis()).unwrap_or(i64::MAX);
        let first: Vec<TopicPartition> = given.iter().copied().filter(|at| at.topic == 0).collect();
        let offsets = self.feed.offsets_for_time(&first, since)?;
        let found = first.into_iter().zip(offsets);
        Ok(found
            .filter_map(|(at, offset)| Some((at, offset?)))
            .collect())
    }

    /// Compares the number of partitions with the one that the last owner has committed beside its offset. Only a stage
    /// that replays a history refuses a difference.
    fn refuse_torn_history(&self, note: CommitNote, total: i32) -> Result<(), LogError> {
        let torn = |before: &i32| self.options.replay.is_some() && *before != total;
        match note.partitions.filter(torn) {
            None => Ok(()),
            Some(before) => Err(LogError::Refused(format!(
                "topic {} has {total} partitions, and had {before} when scoring last went on: users have moved to other partitions \
                 than their histories, and velocity would be missed. Make a new topic with {total} partitions and let the producers \
                 write there, or go back to {before} partitions",
                self.options.topics.first().map_or("", String::as_str)
            ))),
        }
    }
}
