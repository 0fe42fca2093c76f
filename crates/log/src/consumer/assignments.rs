//! Assignments of the consumer loop: what happens between the event of a rebalance and the answer to the feed.
//!
//! An assigned partition goes through three steps: its offsets are looked up, its history is restored where a snapshot
//! may exist, and only then does the feed read it. Invariant: an assignment is passed to the feed once. Passed a second
//! time, the feed may go on from where it was to read at first, and the records between are lost.

use std::thread::JoinHandle;

use super::consumer_loop::ConsumerLoop;
use super::lookup::{AssignmentLookup, FoundAssignment};
use super::partition::Start;
use super::restore::Restore;
use super::{Assignment, Event};
use crate::error::LogError;
use crate::histories::{Position, SnapshotRequirements};
use crate::record::TopicPartition;

impl ConsumerLoop {
    /// The group has assigned these partitions. An error ends the loop, and is reported in the health check `log`.
    pub(super) fn on_assigned(&mut self, given: &[TopicPartition]) -> Result<(), LogError> {
        let mut lookup = AssignmentLookup {
            feed: &mut *self.feed,
            options: &self.options,
        };
        lookup
            .run(given)
            .and_then(|found| self.restore_or_begin(found))
            .inspect_err(|error| self.reports.assignment_failed(error))
    }

    /// Begins to read at once, or starts a restore after which reading begins. During a restore the feed is assigned
    /// nothing and polling goes on, so that the group never considers this member dead.
    fn restore_or_begin(&mut self, found: FoundAssignment) -> Result<(), LogError> {
        let FoundAssignment { totals, partitions } = found;
        self.totals = totals;
        let starts: Vec<Start> = partitions
            .iter()
            .map(|found| found.start(self.options.start))
            .collect();
        let Some((histories, _)) = self.options.histories.clone() else {
            return self.begin_reading(&starts);
        };
        // A snapshot can be used only where the group has committed before, under a note that identifies the log.
        let total = self.total();
        let required: Vec<SnapshotRequirements> = partitions
            .iter()
            .filter(|found| found.at.topic == 0)
            .filter_map(|found| {
                Some(SnapshotRequirements {
                    committed: Position {
                        partition: found.at.partition,
                        partitions: total,
                        log: found.note.log?,
                        offset: found.committed?,
                    },
                    oldest: found.watermarks.0,
                })
            })
            .collect();
        histories.forget();
        let before = self.abandoned.take();
        // An abandoned restore that still runs could pass its histories to the workers of this assignment. The new
        // restore waits for its end first, even where it has nothing to restore itself.
        if required.is_empty() && before.as_ref().is_none_or(JoinHandle::is_finished) {
            return self.begin_reading(&starts);
        }
        self.reports.restoring(required.len());
        self.partitions.restoring(&starts);
        self.restore = Some(Restore::begin(before, histories, starts, required)?);
        Ok(())
    }

    /// Begins to read the partitions of a restore that has ended. Returns at once while it still runs.
    pub(super) fn take_restored(&mut self) -> Result<(), LogError> {
        let Some(restore) = &self.restore else {
            return Ok(());
        };
        if let Some(starts) = restore.take()? {
            self.restore = None;
            self.begin_reading(&starts)?;
        }
        Ok(())
    }

    /// Begins to read these partitions: the answer to [`FeedEvent::Assigned`](super::feed::FeedEvent::Assigned).
    fn begin_reading(&mut self, starts: &[Start]) -> Result<(), LogError> {
        let assigned: Vec<TopicPartition> = starts.iter().map(|start| start.at).collect();
        // New ledgers: completions of an earlier assignment have no effect from here on.
        self.in_flight.assign(&assigned);
        self.partitions.begin(starts);
        let restored = starts
            .iter()
            .filter_map(|start| Some((start.at.partition, start.restored?)));
        if let Some(barriers) = &mut self.barriers {
            barriers.reset(restored.clone());
        }
        self.reports.shortened(starts);
        // The workers get their assignment before the feed can deliver a record of it.
        self.announce(&assigned);
        let partitions: Vec<i32> = assigned.iter().map(|at| at.partition).collect();
        tracing::info!(
            topic = self.topic(),
            ?partitions,
            rebuilding = self.partitions.rebuilding().0,
            restored = restored.count(),
            "assigned"
        );
        self.reports.rebuilding(&self.partitions);
        let offsets: Vec<_> = starts
            .iter()
            .map(|start| (start.at, start.offset))
            .collect();
        self.feed.assign(&offsets)?;
        // The client resumes every partition that it is assigned.
        self.budget.set_paused(false);
        Ok(())
    }

    /// Sends every worker one event for each topic, also for a topic of which nothing is assigned.
    fn announce(&self, assigned: &[TopicPartition]) {
        for (topic, total) in self.totals.iter().copied().enumerate() {
            let of_topic = assigned.iter().filter(|at| at.topic == topic);
            let partitions: Vec<i32> = of_topic.map(|at| at.partition).collect();
            self.dispatch.broadcast(|| {
                Event::Assigned(Assignment {
                    topic,
                    partitions: partitions.clone(),
                    total,
                })
            });
        }
    }

    /// The group takes all partitions back. The loop completes and commits the records in flight, then answers the
    /// feed. Records that take longer than the grace period are read again by the next owner, and so are all records in
    /// flight where the partitions are lost already: a commit would be refused.
    pub(super) fn on_revoked(&mut self, given_back: Vec<TopicPartition>, lost: bool) {
        // A restore cannot be interrupted. The restore of the next assignment waits for its thread.
        self.abandoned = self
            .restore
            .take()
            .map(Restore::abandon)
            .or(self.abandoned.take());
        let partitions: Vec<i32> = given_back.iter().map(|at| at.partition).collect();
        if lost {
            self.dispatch.discard();
            self.dispatch
                .broadcast(|| Event::Revoked(given_back.clone()));
        } else {
            self.drain_revoked(&given_back);
        }
        // The ledgers still count the offsets of the commit under way: it ends before they are dropped.
        self.take_commit_end();
        self.in_flight.assign(&[]);
        self.partitions.clear();
        tracing::info!(topic = self.topic(), ?partitions, lost, "revoked");
        // The group waits for this answer. Until then the next owner reads nothing.
        if let Err(error) = self.feed.unassign() {
            tracing::warn!(%error, topic = self.topic(), "partitions could not be given back");
        }
    }

    /// Completes, commits and snapshots the records of partitions that are still owned.
    fn drain_revoked(&mut self, given_back: &[TopicPartition]) {
        let keeps_histories = self.barriers.is_some();
        self.stop_taking();
        // The event stands behind the batches that were sent. A worker without histories may drop what it holds when
        // it waits for a sink. A worker with histories must write those first, so its event comes last.
        if !keeps_histories {
            self.dispatch
                .broadcast(|| Event::Revoked(given_back.to_vec()));
        }
        if !self.wait_until_done(self.revoke_grace) {
            tracing::warn!(
                topic = self.topic(),
                "partitions are given back while records are in flight; the next owner reads them again"
            );
        }
        self.commit_and_wait();
        if keeps_histories {
            self.keep_histories();
            self.dispatch
                .broadcast(|| Event::Revoked(given_back.to_vec()));
        }
    }
}
