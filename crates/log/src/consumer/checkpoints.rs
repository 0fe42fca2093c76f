//! Commits and barriers of the consumer loop.
//!
//! A commit covers the frontier of every partition. A barrier stands at the position up to which a partition was read,
//! and its snapshot is written once a commit has reached that position. Invariant: a barrier stands behind the same
//! records in every worker queue, so every batch is sent before it.

use std::collections::BTreeMap;
use std::time::Instant;

use super::commits::{CommitEnd, by_partition};
use super::consumer_loop::ConsumerLoop;
use super::partition::PartitionState;
use super::{Event, SNAPSHOT_GRACE};
use crate::error::LogError;
use crate::histories::{CommitNote, Position};
use crate::record::TopicPartition;

impl ConsumerLoop {
    /// Begins to commit the frontier of every partition. While another commit is under way nothing happens: the commit
    /// of the next interval then covers more.
    pub(super) fn begin_commit(&mut self) -> Result<(), LogError> {
        let total = self.total();
        let Self {
            commits,
            partitions,
            in_flight,
            options,
            ..
        } = self;
        if commits.is_busy() {
            return Ok(());
        }
        // The note of a stage with histories identifies the log to the next owner, and the number of its partitions.
        let note = |at: TopicPartition| {
            options.replay.filter(|_| at.topic == 0)?;
            Some(CommitNote::write(total, partitions.log(at)?))
        };
        commits.begin(in_flight.committable(), note)
    }

    /// Waits for the commit under way, commits what was completed since, and waits for that.
    pub(super) fn commit_and_wait(&mut self) {
        self.take_commit_end();
        if let Err(error) = self.begin_commit() {
            tracing::warn!(
                %error,
                topic = self.topic(),
                "the last commit has failed to begin; the next owner reads uncommitted records again"
            );
        }
        self.take_commit_end();
    }

    /// Waits for the commit under way, if there is one.
    pub(super) fn take_commit_end(&mut self) {
        if let Some(end) = self.commits.wait() {
            self.on_commit_end(end);
        }
        self.heartbeat.beat();
    }

    /// Passes committed offsets to the ledgers, the histories and the trace. After a failed commit they stay
    /// uncommitted, and the next commit covers them.
    pub(super) fn on_commit_end(&self, end: CommitEnd) {
        let CommitEnd {
            offsets,
            began,
            result,
        } = end;
        if let Err(error) = result {
            let topic = self.topic();
            tracing::warn!(%error, topic, "a commit has failed; the next one makes up for it");
            return;
        }
        self.in_flight.committed(&offsets);
        if let Some((histories, _)) = &self.options.histories {
            for (at, offset) in offsets.offsets.iter().filter(|(at, _)| at.topic == 0) {
                histories.committed(at.partition, *offset);
            }
        }
        let polls = self.in_flight.committed_polls(&by_partition(&offsets));
        if !polls.is_empty()
            && let Some(span) = self.reads.commit(polls)
        {
            span.since(began).end();
        }
    }

    /// The offset to be read next in each partition of the first topic.
    fn positions(&self) -> BTreeMap<i32, i64> {
        let all = self.in_flight.positions().into_iter();
        all.filter(|(at, _)| at.topic == 0)
            .map(|(at, next)| (at.partition, next))
            .collect()
    }

    /// Sets the barriers that are due at this time.
    pub(super) fn set_due_barriers(&mut self, now: Instant) -> Result<(), LogError> {
        let positions = self.positions();
        let due = self
            .barriers
            .as_mut()
            .map(|barriers| barriers.due(now, &positions));
        self.set_barriers(&due.unwrap_or_default())
    }

    /// Sets a barrier in each of these partitions. A partition is left out while its history is restored or rebuilt,
    /// where it has not moved since its last barrier, and while its last snapshot is being written.
    fn set_barriers(&mut self, partitions: &[i32]) -> Result<(), LogError> {
        if partitions.is_empty() {
            return Ok(());
        }
        // A record that waits in a batch would otherwise arrive behind a barrier that covers it.
        self.dispatch.send_all()?;
        let positions = self.positions();
        let total = self.total();
        let (Some((histories, _)), Some(barriers)) = (&self.options.histories, &mut self.barriers)
        else {
            return Ok(());
        };
        for partition in partitions {
            let at = TopicPartition::new(0, *partition);
            let (Some(offset), Some(log)) = (positions.get(partition), self.partitions.log(at))
            else {
                continue;
            };
            if self.partitions.state(at) != Some(PartitionState::Live)
                || !barriers.is_behind(*partition, *offset)
            {
                continue;
            }
            let position = Position {
                partition: *partition,
                partitions: total,
                log,
                offset: *offset,
            };
            if histories.begin_barrier(position) {
                barriers.set(*partition, *offset);
                self.dispatch.broadcast(|| Event::Barrier(position));
            }
        }
        Ok(())
    }

    /// Writes the last snapshots before partitions are given back: waits for those under way, sets a barrier in every
    /// partition, and waits for those, each time at most [`SNAPSHOT_GRACE`]. Where records are still in flight no
    /// barrier is set: the next owner cannot use a snapshot that stands beyond the committed offset.
    pub(super) fn keep_histories(&mut self) {
        let Some((histories, _)) = self.options.histories.clone() else {
            return;
        };
        histories.wait_until_written(SNAPSHOT_GRACE);
        self.heartbeat.beat();
        if self.in_flight.used().records > 0 {
            return;
        }
        let partitions: Vec<i32> = self.positions().into_keys().collect();
        match self.set_barriers(&partitions) {
            Ok(()) => histories.wait_until_written(SNAPSHOT_GRACE),
            Err(error) => {
                tracing::warn!(
                    %error,
                    topic = self.topic(),
                    "the last snapshots have failed to begin; the next owner replays more of the log"
                );
            }
        }
    }
}
