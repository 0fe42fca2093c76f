//! The consumer loop: one thread polls the log, fills batches, commits offsets and sets barriers.
//!
//! The thread owns every struct by value. Workers share the ledgers alone ([`InFlight`]), to complete batches.
//!
//! Each iteration first completes earlier work, then reads, so that the budget is freed before anything new is read:
//! 1. A restore that has ended: its partitions can be read from here on.
//! 2. The end of the commit under way: the committer is free again, and snapshots at these offsets may be written.
//! 3. The budget: the loop waits, or pauses its partitions, while too much is in flight. Polling goes on, because the
//!    group expels a member that does not poll.
//! 4. Polls: records are put into batches, rebalances and ends of partitions are handled. Then batches, a commit and
//!    barriers are sent where they are due.
//!
//! The steps are in three files: this one reads and finishes, `assignments` answers rebalances, `checkpoints` commits
//! and sets barriers.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use metrics::counter;
use tokio::sync::mpsc;
use tollgate_service::Shutdown;
use tollgate_service::health::Health;

use super::barriers::Barriers;
use super::budget::Budget;
use super::commits::Commits;
use super::dispatch::Dispatch;
use super::feed::{Feed, FeedEvent, Polled};
use super::partition::Partitions;
use super::reports::ConsumerReports;
use super::restore::Restore;
use super::watchdog::Heartbeat;
use super::{ConsumerOptions, Distribution, Event};
use crate::Reads;
use crate::error::LogError;
use crate::in_flight::{InFlight, Usage};
use crate::record::RawRecord;

/// The longest wait for a record. A shutdown is noticed within this time.
const POLL_TIMEOUT: Duration = Duration::from_millis(50);
/// Most polls in an iteration. More would delay commits and batches that are due.
const MAX_POLLS: usize = 512;
/// How long the loop waits for room before it pauses its partitions.
const PAUSE_AFTER: Duration = Duration::from_millis(500);

/// The parts from which a loop is built.
pub(super) struct LoopParts {
    pub(super) feed: Box<dyn Feed>,
    pub(super) options: ConsumerOptions,
    pub(super) reads: Reads,
    pub(super) queues: Vec<mpsc::UnboundedSender<Event>>,
    pub(super) health: Health,
    pub(super) shutdown: Shutdown,
    pub(super) heartbeat: Heartbeat,
    /// How long the records in flight of revoked partitions may take to complete.
    pub(super) revoke_grace: Duration,
}

/// The state of the reading thread. The module explains the order of its steps.
pub(super) struct ConsumerLoop {
    /// The first field, so that it is dropped before the feed. Its thread holds the client too, and a feed leaves the
    /// group only when it drops the last reference to the client.
    pub(super) commits: Commits,
    pub(super) feed: Box<dyn Feed>,
    pub(super) options: ConsumerOptions,
    pub(super) reads: Reads,
    pub(super) partitions: Partitions,
    /// The number of partitions of each topic, as of the last assignment.
    pub(super) totals: Vec<i32>,
    /// The restore of the current assignment. The feed is assigned nothing while it runs.
    pub(super) restore: Option<Restore>,
    /// The thread of a restore whose partitions were revoked before it had ended.
    pub(super) abandoned: Option<JoinHandle<()>>,
    pub(super) dispatch: Dispatch,
    pub(super) budget: Budget,
    /// None for a stage without histories.
    pub(super) barriers: Option<Barriers>,
    pub(super) in_flight: Arc<InFlight>,
    next_commit: Instant,
    /// Spreads keys over workers where no history prescribes the worker.
    hasher: RandomState,
    pub(super) reports: ConsumerReports,
    shutdown: Shutdown,
    pub(super) heartbeat: Heartbeat,
    pub(super) revoke_grace: Duration,
}

impl ConsumerLoop {
    /// Starts the committing thread. Nothing is read before [`ConsumerLoop::run`].
    ///
    /// # Errors
    /// [`LogError::Refused`] where the thread cannot be started.
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
            reports: ConsumerReports::new(&options, health),
            shutdown,
            heartbeat,
            revoke_grace,
            options,
        })
    }

    /// Runs iterations until the shutdown, then finishes the records in flight and leaves the group.
    ///
    /// # Errors
    /// The first error of the subscription or of an iteration. The loop then ends without a last commit, and the uncommitted
    /// records are read again.
    pub(super) fn run(mut self) -> Result<(), LogError> {
        self.feed.subscribe()?;
        while !self.shutdown.is_begun() {
            self.turn()?;
        }
        self.finish();
        Ok(())
    }

    /// Runs one iteration, in the order that the module explains.
    pub(super) fn turn(&mut self) -> Result<(), LogError> {
        // The watchdog reports a stalled loop where beats are missing.
        self.heartbeat.beat();
        // A restore that has ended: the polls below already return records of its partitions.
        self.take_restored()?;
        // A commit that has ended frees the committer for the commit at the end of this iteration.
        if let Some(end) = self.commits.take_end() {
            self.on_commit_end(end);
        }
        // Over the budget, wait for the workers. Where that takes too long, pause: the polls below then return no records.
        self.keep_within_budget()?;
        // Poll: full batches are sent from here, and rebalances are answered.
        let idle = self.read_ready()?;
        let now = Instant::now();
        // Send the batches that are not full but due: by their age, or because nothing more is ready.
        self.dispatch.send_due(now, idle)?;
        if now >= self.next_commit {
            self.next_commit = now + self.options.commit_interval;
            // The commit covers what is completed. The barriers stand further on, at what was read; a later commit
            // reaches them, and then their snapshots are written.
            self.begin_commit()?;
            self.set_due_barriers(now)?;
            self.reports.rebuild_remaining(&self.partitions);
        }
        Ok(())
    }

    // Reading.

    /// Polls until nothing is ready, at most [`MAX_POLLS`] times. Returns true if nothing more is ready.
    fn read_ready(&mut self) -> Result<bool, LogError> {
        // Only the first poll waits, and never beyond the time at which a batch is due.
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
            let mut outcome = Ok(PollOutcome::Nothing);
            feed.poll(wait, &mut |polled| {
                outcome = match polled {
                    Polled::Record(record) => {
                        push_record(&record, partitions, dispatch, options, hasher)
                            .map(|rebuilt| PollOutcome::Record { rebuilt })
                    }
                    Polled::Event(event) => Ok(PollOutcome::Event(event)),
                    Polled::Nothing => Ok(PollOutcome::Nothing),
                };
            });
            match outcome? {
                PollOutcome::Record { rebuilt: true } => {
                    self.reports.rebuilding(&self.partitions);
                }
                PollOutcome::Record { rebuilt: false } => {}
                PollOutcome::Event(event) => self.on_event(event)?,
                PollOutcome::Nothing => return Ok(true),
            }
            wait = Duration::ZERO;
        }
        Ok(false)
    }

    /// Handles an event before the next poll: a rebalance must be answered first.
    fn on_event(&mut self, event: FeedEvent) -> Result<(), LogError> {
        match event {
            FeedEvent::Assigned(partitions) => self.on_assigned(&partitions),
            FeedEvent::Revoked { partitions, lost } => {
                self.on_revoked(partitions, lost);
                Ok(())
            }
            FeedEvent::EndOfPartition(partition) => {
                if self.partitions.reach_end(partition) {
                    self.reports.rebuilding(&self.partitions);
                }
                Ok(())
            }
            FeedEvent::Error(refused @ LogError::Refused(_)) => Err(refused),
            // The client recovers from these by itself, and its callback has logged them.
            FeedEvent::Error(LogError::Client { .. } | LogError::NoTopic(_)) => Ok(()),
        }
    }

    /// Back-pressure: over the budget the loop waits [`PAUSE_AFTER`] for half of the budget to be free, then pauses its
    /// partitions. A paused loop resumes them once half of the budget is free.
    fn keep_within_budget(&mut self) -> Result<(), LogError> {
        // Nothing is assigned to the feed yet, so there is nothing to pause.
        if self.restore.is_some() {
            return Ok(());
        }
        if !self.budget.is_paused() {
            if self.budget.allows(self.in_flight.used()) {
                return Ok(());
            }
            // Records in an unsent batch are in flight too. No worker could complete them while the loop waits.
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
            Err(error) => {
                let topic = self.topic();
                tracing::warn!(
                    %error,
                    topic,
                    paused,
                    "pausing or resuming has failed; the next iteration tries again"
                );
            }
        }
    }

    // The end.

    /// Finishes the records in flight, commits them, and writes the last snapshots. Dropping the loop then leaves the
    /// group.
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
        // No ledger is left: a batch that is completed from now on has no effect, because nothing would commit it.
        self.in_flight.assign(&[]);
        self.dispatch.close();
    }

    /// Empties the batches that are being filled. A stage with histories sends them, so that all workers' parts of a
    /// history stand at one offset. A stage without histories drops them, and the next owner reads their records.
    pub(super) fn stop_taking(&mut self) {
        // Sending fails where a worker has stopped. The batches are dropped then too.
        if self.barriers.is_none() || self.dispatch.send_all().is_err() {
            self.dispatch.discard();
        }
    }

    /// Waits until nothing is in flight, at most `timeout`. Returns false after the timeout. The heartbeat goes on, because
    /// this wait is no stall.
    pub(super) fn wait_until_done(&self, timeout: Duration) -> bool {
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

    /// The first topic, for messages.
    pub(super) fn topic(&self) -> &str {
        self.reports.topic()
    }

    /// How many partitions the first topic has.
    pub(super) fn total(&self) -> i32 {
        self.totals.first().copied().unwrap_or_default()
    }
}

/// The result of one poll.
enum PollOutcome {
    /// A record was put into a batch.
    Record {
        /// True for the last record from which the history of its partition was rebuilt.
        rebuilt: bool,
    },
    /// Something else than a record.
    Event(FeedEvent),
    /// Nothing came within the timeout.
    Nothing,
}

/// Puts a record into the batch of its worker. Returns true if the history of its partition is rebuilt with it. A free
/// function, because the feed lends the record and stays borrowed meanwhile.
fn push_record(
    record: &RawRecord<'_>,
    partitions: &mut Partitions,
    dispatch: &mut Dispatch,
    options: &ConsumerOptions,
    hasher: &RandomState,
) -> Result<bool, LogError> {
    let Some(seen) = partitions.see(record.at, record.offset) else {
        tracing::warn!(at = ?record.at, "a record of a partition that is not assigned is skipped");
        return Ok(false);
    };
    if let Some(begin) = seen.gap_after {
        // A gap may be harmless: transaction markers of a foreign producer, or records that were compacted away.
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
