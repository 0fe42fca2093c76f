//! The consumer loop. One thread owns everything by value; workers share the ledgers alone, to complete batches.
//!
//! Each iteration first completes earlier work, then reads, so that the budget is freed before anything new is read:
//! 1. A restore that has ended: its partitions can be read from here on.
//! 2. The end of the commit under way: it frees the committer, and lets snapshots be written.
//! 3. The budget: waits or pauses while too much is in flight. Polling goes on, or the group would expel this member.
//! 4. Poll: records into batches, ends of partitions, rebalances. Then what is due: batches, a commit, barriers.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use metrics::{counter, gauge};
use tokio::sync::mpsc;
use tollgate_service::Shutdown;
use tollgate_service::health::Health;

use super::barriers::Barriers;
use super::budget::Budget;
use super::commits::{CommitEnd, Commits, by_partition};
use super::dispatch::Dispatch;
use super::feed::{Feed, FeedEvent, Polled};
use super::partition::{FoundPartition, PartitionState, Partitions, Start};
use super::restore::Restore;
use super::watchdog::Heartbeat;
use super::{Assignment, ConsumerOptions, Distribution, Event, SNAPSHOT_GRACE};
use crate::Reads;
use crate::error::LogError;
use crate::histories::{CommitNote, Position, SnapshotRequirements};
use crate::in_flight::{InFlight, Usage};
use crate::record::{RawRecord, TopicPartition};

/// The longest wait for a record.
const POLL_TIMEOUT: Duration = Duration::from_millis(50);
/// Most polls in a turn.
const MAX_POLLS: usize = 512;
/// How long the loop waits for room before it pauses its partitions.
const PAUSE_AFTER: Duration = Duration::from_millis(500);
/// How often the partitions of an assignment are looked up: a broker that has just become leader answers at the second
/// or third time.
const LOOK_UPS: usize = 3;

/// What a loop is made of.
pub(super) struct LoopParts {
    pub(super) feed: Box<dyn Feed>,
    pub(super) options: ConsumerOptions,
    pub(super) reads: Reads,
    pub(super) queues: Vec<mpsc::UnboundedSender<Event>>,
    pub(super) health: Health,
    pub(super) shutdown: Shutdown,
    pub(super) heartbeat: Heartbeat,
    /// How long partitions that are taken away may complete what is in flight.
    pub(super) revoke_grace: Duration,
}

/// See the module.
pub(super) struct ConsumerLoop {
    /// Dropped before the feed: then no other thread holds the client, and dropping the feed leaves the group.
    commits: Commits,
    feed: Box<dyn Feed>,
    options: ConsumerOptions,
    reads: Reads,
    partitions: Partitions,
    /// How many partitions each topic has, as of the last assignment.
    totals: Vec<i32>,
    restore: Option<Restore>,
    /// A restore whose partitions were taken away before it had ended.
    abandoned: Option<JoinHandle<()>>,
    dispatch: Dispatch,
    budget: Budget,
    barriers: Option<Barriers>,
    in_flight: Arc<InFlight>,
    next_commit: Instant,
    hasher: RandomState,
    health: Health,
    shutdown: Shutdown,
    heartbeat: Heartbeat,
    revoke_grace: Duration,
}

impl ConsumerLoop {
    /// Starts the committing thread. Nothing is read before [`ConsumerLoop::run`].
    pub(super) fn new(parts: LoopParts) -> Result<Self, LogError> {
        let LoopParts {
            feed,
            options,
            reads,
            queues,
            health,
            shutdown,
            heartbeat,
            revoke_grace,
        } = parts;
        let stage = options.stage;
        let in_flight = Arc::<InFlight>::default();
        let max = Usage {
            records: options.budget_records,
            bytes: options.budget_bytes,
        };
        let now = Instant::now();
        let every = options.histories.as_ref().map(|(_, every)| *every);
        Ok(Self {
            commits: Commits::start(stage.name(), feed.committer())?,
            feed,
            reads,
            partitions: Partitions::default(),
            totals: Vec::new(),
            restore: None,
            abandoned: None,
            dispatch: Dispatch::new(stage, queues, options.batching, Arc::clone(&in_flight)),
            budget: Budget::new(max, stage.name()),
            barriers: every.map(|every| Barriers::new(every, now)),
            in_flight,
            next_commit: now,
            hasher: RandomState::new(),
            health,
            shutdown,
            heartbeat,
            revoke_grace,
            options,
        })
    }

    /// Reads until the shutdown, then finishes what is in flight and leaves the group.
    pub(super) fn run(mut self) -> Result<(), LogError> {
        self.feed.subscribe()?;
        while !self.shutdown.is_begun() {
            self.turn()?;
        }
        self.finish();
        Ok(())
    }

    /// See the module for the order.
    pub(super) fn turn(&mut self) -> Result<(), LogError> {
        self.heartbeat.beat();
        self.take_restored()?;
        if let Some(end) = self.commits.take_end() {
            self.committed(end);
        }
        self.keep_within_budget()?;
        let idle = self.read()?;
        let now = Instant::now();
        self.dispatch.send_due(now, idle)?;
        if now >= self.next_commit {
            self.next_commit = now + self.options.commit_interval;
            self.begin_commit()?;
            self.set_due_barriers(now)?;
            self.measure_rebuilding();
        }
        Ok(())
    }

    // Reading.

    /// Reads until nothing is ready, or for some hundred records. Whether nothing more is ready.
    fn read(&mut self) -> Result<bool, LogError> {
        let mut wait = match self.dispatch.next_due() {
            Some(due) => due
                .saturating_duration_since(Instant::now())
                .min(POLL_TIMEOUT),
            None if self.dispatch.is_empty() => POLL_TIMEOUT,
            None => Duration::ZERO,
        };
        for _ in 0..MAX_POLLS {
            let Self {
                feed,
                partitions,
                dispatch,
                options,
                hasher,
                ..
            } = self;
            let mut outcome = Ok(Read::Nothing);
            feed.poll(wait, &mut |polled| {
                outcome = match polled {
                    Polled::Record(record) => {
                        take(&record, partitions, dispatch, options, hasher).map(Read::Record)
                    }
                    Polled::Event(event) => Ok(Read::Event(event)),
                    Polled::Nothing => Ok(Read::Nothing),
                };
            });
            match outcome? {
                Read::Record(rebuilt) if rebuilt => self.report_rebuilding(),
                Read::Record(_) => {}
                Read::Event(event) => self.handle(event)?,
                Read::Nothing => return Ok(true),
            }
            wait = Duration::ZERO;
        }
        Ok(false)
    }

    fn handle(&mut self, event: FeedEvent) -> Result<(), LogError> {
        match event {
            FeedEvent::Assigned(partitions) => self.assigned(&partitions),
            FeedEvent::Revoked { partitions, lost } => {
                self.revoked(partitions, lost);
                Ok(())
            }
            FeedEvent::EndOfPartition(partition) => {
                if self.partitions.reach_end(partition) {
                    self.report_rebuilding();
                }
                Ok(())
            }
            FeedEvent::Error(refused @ LogError::Refused(_)) => Err(refused),
            // The client recovers by itself, and has reported them.
            FeedEvent::Error(LogError::Client { .. } | LogError::NoTopic(_)) => Ok(()),
        }
    }

    fn keep_within_budget(&mut self) -> Result<(), LogError> {
        if self.restore.is_some() {
            return Ok(());
        }
        if !self.budget.is_paused() {
            if self.budget.allows(self.in_flight.used()) {
                return Ok(());
            }
            // What waits in a batch is in flight too, and would never get done.
            self.dispatch.send_due(Instant::now(), true)?;
            if self.has_room_within(PAUSE_AFTER) {
                return Ok(());
            }
            self.set_paused(true);
        } else if self.has_room_within(POLL_TIMEOUT) {
            self.set_paused(false);
        }
        Ok(())
    }

    fn has_room_within(&self, timeout: Duration) -> bool {
        self.in_flight.wait_until_within(self.budget.low(), timeout)
    }

    fn set_paused(&mut self, paused: bool) {
        let changed = if paused {
            self.feed.pause()
        } else {
            self.feed.resume()
        };
        match changed {
            Ok(()) => self.budget.set_paused(paused),
            // The next turn tries again.
            Err(error) => tracing::warn!(%error, paused, "pausing or resuming has failed"),
        }
    }

    // Assignments.

    fn assigned(&mut self, given: &[TopicPartition]) -> Result<(), LogError> {
        let mut found = self.look_up(given);
        for _ in 1..LOOK_UPS {
            if matches!(found, Err(LogError::Client { .. })) {
                found = self.look_up(given);
            }
        }
        found
            .and_then(|found| self.restore_or_begin(&found))
            .inspect_err(|error| self.health.not_ready("log", error.to_string()))
    }

    /// Asks the log about the partitions of an assignment.
    fn look_up(&mut self, given: &[TopicPartition]) -> Result<Vec<FoundPartition>, LogError> {
        self.totals = (0..self.options.topics.len())
            .map(|topic| self.feed.partition_count(topic))
            .collect::<Result<_, _>>()?;
        if given.is_empty() {
            return Ok(Vec::new());
        }
        let committed = self.feed.committed(given)?;
        let mut lookback = self.look_back(given)?;
        let mut found = Vec::with_capacity(committed.len());
        for committed in committed {
            let at = committed.partition;
            let note = CommitNote::parse(&committed.note);
            if at.topic == 0 {
                self.refuse_torn_history(note)?;
            }
            found.push(FoundPartition {
                at,
                committed: committed.offset,
                note,
                lookback: lookback.remove(&at),
                watermarks: self.feed.watermarks(at)?,
            });
        }
        Ok(found)
    }

    /// The oldest offset inside the time that is replayed, by partition.
    fn look_back(
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

    /// With another number of partitions, users are in other partitions than their histories.
    fn refuse_torn_history(&self, note: CommitNote) -> Result<(), LogError> {
        let total = self.total();
        let torn = |before: &i32| self.options.replay.is_some() && *before != total;
        match note.partitions.filter(torn) {
            None => Ok(()),
            Some(before) => Err(LogError::Refused(format!(
                "topic {} has {total} partitions, and had {before} when scoring last went on: users have moved to other partitions \
                 than their histories, and velocity would be missed. Make a new topic with {total} partitions and let the producers \
                 write there, or go back to {before} partitions",
                self.topic()
            ))),
        }
    }

    /// Begins to read, at once or when the histories are restored. Until then the feed is not assigned anything, and
    /// polling goes on, so that the group never considers this member dead.
    ///
    /// Invariant: an assignment is passed to the feed once. Passed a second time, it may go on from where it was to
    /// read at first, and what lies between is lost.
    fn restore_or_begin(&mut self, found: &[FoundPartition]) -> Result<(), LogError> {
        let starts: Vec<Start> = found
            .iter()
            .map(|found| found.start(self.options.start))
            .collect();
        let Some((histories, _)) = self.options.histories.clone() else {
            return self.begin(&starts);
        };
        let total = self.total();
        let required: Vec<SnapshotRequirements> = found
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
        if required.is_empty() && before.as_ref().is_none_or(JoinHandle::is_finished) {
            return self.begin(&starts);
        }
        self.health.not_ready(
            "log",
            format!("restoring the history of {} partitions", required.len()),
        );
        self.partitions.restoring(&starts);
        self.restore = Some(Restore::begin(before, histories, starts, required)?);
        Ok(())
    }

    fn take_restored(&mut self) -> Result<(), LogError> {
        let Some(restore) = &self.restore else {
            return Ok(());
        };
        if let Some(starts) = restore.take()? {
            self.restore = None;
            self.begin(&starts)?;
        }
        Ok(())
    }

    /// Begins to read these partitions.
    fn begin(&mut self, starts: &[Start]) -> Result<(), LogError> {
        let assigned: Vec<TopicPartition> = starts.iter().map(|start| start.at).collect();
        self.in_flight.assign(&assigned);
        self.partitions.begin(starts);
        let restored = starts
            .iter()
            .filter_map(|start| Some((start.at.partition, start.restored?)));
        if let Some(barriers) = &mut self.barriers {
            barriers.reset(restored.clone());
        }
        self.report_shortened(starts);
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
        let partitions: Vec<i32> = assigned.iter().map(|at| at.partition).collect();
        tracing::info!(
            topic = self.topic(),
            ?partitions,
            rebuilding = self.partitions.rebuilding().0,
            restored = restored.count(),
            "assigned"
        );
        self.report_rebuilding();
        let offsets: Vec<_> = starts
            .iter()
            .map(|start| (start.at, start.offset))
            .collect();
        self.feed.assign(&offsets)?;
        // What is assigned is not paused.
        self.budget.set_paused(false);
        Ok(())
    }

    /// Gives the partitions back, once what is in flight is completed and committed. Its records are the next owner's
    /// where that takes too long, or where the partitions are lost already.
    fn revoked(&mut self, given_back: Vec<TopicPartition>, lost: bool) {
        self.abandoned = self
            .restore
            .take()
            .map(Restore::abandon)
            .or(self.abandoned.take());
        let keeps_histories = self.barriers.is_some();
        let partitions: Vec<i32> = given_back.iter().map(|at| at.partition).collect();
        if lost {
            self.dispatch.discard();
            self.dispatch
                .broadcast(|| Event::Revoked(given_back.clone()));
        } else {
            self.stop_taking();
            // Behind the batches that were sent. A worker that waits for a sink may drop what it holds, while one with
            // histories writes those first.
            if !keeps_histories {
                self.dispatch
                    .broadcast(|| Event::Revoked(given_back.clone()));
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
                    .broadcast(|| Event::Revoked(given_back.clone()));
            }
        }
        self.take_commit_end();
        self.in_flight.assign(&[]);
        self.partitions.clear();
        tracing::info!(topic = self.topic(), ?partitions, lost, "revoked");
        if let Err(error) = self.feed.unassign() {
            tracing::warn!(%error, topic = self.topic(), "partitions could not be given back");
        }
    }

    // Commits and barriers.

    /// Commits the frontier of every partition, unless a commit is under way: the next interval commits more.
    fn begin_commit(&mut self) -> Result<(), LogError> {
        let Self {
            commits,
            partitions,
            in_flight,
            options,
            totals,
            ..
        } = self;
        if commits.is_busy() {
            return Ok(());
        }
        let total = totals.first().copied().unwrap_or_default();
        // Kept beside each committed offset of a stage with histories.
        let note = |at: TopicPartition| {
            options.replay.filter(|_| at.topic == 0)?;
            Some(CommitNote::write(total, partitions.log(at)?))
        };
        commits.begin(in_flight.committable(), note)
    }

    /// Waits for the commit under way, commits what was done since, and waits for that.
    fn commit_and_wait(&mut self) {
        self.take_commit_end();
        if let Err(error) = self.begin_commit() {
            tracing::warn!(%error, topic = self.topic(), "the next owner reads again");
        }
        self.take_commit_end();
    }

    fn take_commit_end(&mut self) {
        if let Some(end) = self.commits.wait() {
            self.committed(end);
        }
        self.heartbeat.beat();
    }

    fn committed(&self, end: CommitEnd) {
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

    fn set_due_barriers(&mut self, now: Instant) -> Result<(), LogError> {
        let positions = self.positions();
        let due = self
            .barriers
            .as_mut()
            .map(|barriers| barriers.due(now, &positions));
        self.set_barriers(&due.unwrap_or_default())
    }

    /// Sets a barrier in each of these partitions, except those whose histories are not complete yet.
    fn set_barriers(&mut self, partitions: &[i32]) -> Result<(), LogError> {
        if partitions.is_empty() {
            return Ok(());
        }
        // Everything that was read is before the barrier, in every worker queue.
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

    /// Sets a barrier in every partition now that nothing is in flight and everything is committed, and waits until the
    /// snapshots are written, but not for long.
    fn keep_histories(&mut self) {
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
                tracing::warn!(%error, topic = self.topic(), "the next owner reads more of the log");
            }
        }
    }

    // The end.

    /// Finishes what is in flight, commits it, and keeps the histories. Dropping the loop then leaves the group.
    fn finish(&mut self) {
        self.stop_taking();
        if !self.wait_until_done(self.shutdown.grace()) {
            let records = self.in_flight.used().records;
            tracing::warn!(
                records,
                "not finished within the grace period; these are read again after the restart"
            );
        }
        self.commit_and_wait();
        self.keep_histories();
        // Nothing is left to give back when the group is left.
        self.in_flight.assign(&[]);
        self.dispatch.close();
    }

    /// Takes no more records. With histories, the batches being filled go to the workers, so that all of a history is at
    /// one offset; without, they are dropped.
    fn stop_taking(&mut self) {
        // Where a worker has stopped, the next owner reads again.
        if self.barriers.is_none() || self.dispatch.send_all().is_err() {
            self.dispatch.discard();
        }
    }

    /// Waits until nothing is in flight, at most `timeout`. The loop does not stall meanwhile: it waits on purpose.
    fn wait_until_done(&self, timeout: Duration) -> bool {
        let deadline = Instant::now() + timeout;
        loop {
            self.heartbeat.beat();
            let left = deadline.saturating_duration_since(Instant::now());
            let slice = left.min(Duration::from_secs(1));
            if self.in_flight.wait_until_within(Usage::default(), slice) {
                return true;
            }
            if left <= slice {
                return false;
            }
        }
    }

    // Reports.

    fn topic(&self) -> &str {
        self.options.topics.first().map_or("", String::as_str)
    }

    /// How many partitions the first topic has.
    fn total(&self) -> i32 {
        self.totals.first().copied().unwrap_or_default()
    }

    fn report_rebuilding(&self) {
        let (count, _) = self.partitions.rebuilding();
        gauge!("tollgate_log_rebuilding_partitions", "stage" => self.options.stage.name())
            .set(u32::try_from(count).map_or(f64::MAX, f64::from));
        self.measure_rebuilding();
        if count == 0 {
            self.health.ready("log");
        } else {
            let reason = format!("rebuilding the history of {count} partitions from the log");
            self.health.not_ready("log", reason);
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "a gauge is a float")]
    fn measure_rebuilding(&self) {
        let (_, remaining) = self.partitions.rebuilding();
        gauge!("tollgate_log_rebuild_remaining_records", "stage" => self.options.stage.name())
            .set(remaining as f64);
    }

    /// A history that lacks what it should hold is never used without a warning.
    fn report_shortened(&self, starts: &[Start]) {
        if self.options.replay.is_none() {
            return;
        }
        let shortened: Vec<i32> = starts
            .iter()
            .filter(|start| start.shortened)
            .map(|start| start.at.partition)
            .collect();
        gauge!("tollgate_log_shortened_histories", "stage" => self.options.stage.name())
            .set(u32::try_from(shortened.len()).map_or(f64::MAX, f64::from));
        let warning = format!(
            "the log no longer holds all of the history that scores of partitions {shortened:?} look back on, and \
             nothing was kept beside it: until as much time has passed again, they may be too low. Raise the retention \
             of topic {}, or set scorer.snapshots",
            self.topic()
        );
        self.health
            .warn("history", (!shortened.is_empty()).then_some(warning));
    }
}

/// What one poll has brought.
enum Read {
    /// A record; whether it was the last one that its partition's history was rebuilt from.
    Record(bool),
    Event(FeedEvent),
    Nothing,
}

/// Puts a record into the batch of its worker.
fn take(
    record: &RawRecord<'_>,
    partitions: &mut Partitions,
    dispatch: &mut Dispatch,
    options: &ConsumerOptions,
    hasher: &RandomState,
) -> Result<bool, LogError> {
    let Some(seen) = partitions.see(record.at, record.offset) else {
        tracing::warn!(at = ?record.at, "a record of a partition that is not assigned is not used");
        return Ok(false);
    };
    if let Some(begin) = seen.gap_after {
        // There may be nothing between them but a foreign producer's transaction markers, or what was compacted away.
        counter!("tollgate_log_gaps_total", "stage" => options.stage.name()).increment(1);
        let (partition, offset) = (record.at.partition, record.offset);
        tracing::warn!(
            partition,
            begin,
            offset,
            "the log has no record where reading was to begin"
        );
    }
    let hash = match (options.distribution, &options.histories) {
        (Distribution::ByPartition(_), _) => u64::from(record.at.partition.unsigned_abs()),
        (Distribution::ByKey(_), Some((histories, _))) => {
            histories.worker_hash(record.key.unwrap_or_default())
        }
        (Distribution::ByKey(_), None) => hasher.hash_one(record.key),
    };
    let queue = hash % options.distribution.workers() as u64;
    let queue = usize::try_from(queue).unwrap_or_default();
    dispatch.push(queue, record, seen.replayed)?;
    Ok(seen.rebuilt)
}
