//! From where each partition of a new assignment is read, and how its history is got back: what was kept of it, and
//! the log from there on; or the log alone.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::mpsc;

use rdkafka::Offset;
use rdkafka::consumer::{BaseConsumer, Consumer as _};

use super::assignment::Assigner;
use super::histories::{CommitNote, Position, SnapshotRequirements};
use super::shared::{Shared, lock};
use super::{KafkaError, StartingPosition};

/// From where a partition is read, and where its replayed part ends.
#[derive(Debug, Clone, Copy)]
pub(super) struct Start {
    pub(super) partition: i32,
    pub(super) offset: Offset,
    pub(super) replay_until: Option<i64>,
    /// The log of this partition; see [`Position::log`].
    pub(super) log: u64,
    /// Where the history stands that was kept beside the log, if there is one.
    pub(super) restored: Option<i64>,
    /// Whether records that belong to the history were deleted from the log.
    pub(super) shortened: bool,
}

/// What the broker knows of a partition that was assigned.
pub(super) struct Found {
    pub(super) partition: i32,
    pub(super) committed: Option<i64>,
    pub(super) note: CommitNote,
    /// The oldest offset inside the time that is replayed.
    pub(super) lookback: Option<i64>,
    /// The oldest offset and the one after the newest.
    pub(super) watermarks: (i64, i64),
}

/// An assignment whose histories are on their way.
pub(super) struct Restoring {
    total: i32,
    starts: mpsc::Receiver<Vec<Start>>,
}

impl Found {
    /// How the partition starts with the log alone.
    pub(super) fn start(&self, from: StartingPosition) -> Start {
        let (oldest, end) = self.watermarks;
        let committed = self
            .committed
            .or((from == StartingPosition::Latest).then_some(end));
        let (offset, replay_until) = match (committed, self.lookback) {
            (None, _) => (Offset::Beginning, None),
            (Some(end), Some(lookback)) if lookback < end => (Offset::Offset(lookback), Some(end)),
            (Some(end), _) => (Offset::Offset(end), None),
        };
        Start {
            partition: self.partition,
            offset,
            replay_until,
            // As good as unique.
            log: self
                .note
                .log
                .unwrap_or_else(|| RandomState::new().hash_one(self.partition)),
            restored: None,
            // Where older records were deleted, the oldest that is left lies inside the time, and others might have.
            shortened: oldest > 0 && self.lookback.is_some_and(|lookback| lookback <= oldest),
        }
    }
}

impl Shared {
    pub(super) fn is_restoring(&self) -> bool {
        lock(&self.restoring).is_some()
    }

    /// Starts to read, at once or when what was kept of the histories is there. Until then the client is not told where
    /// to read, and polling goes on, so that the group never takes this member for dead.
    ///
    /// Invariant: an assignment is told to the client once. Told a second time, it may go on from where it was to read
    /// at first, and what lies between is lost.
    pub(super) fn restore_and_begin(
        &self,
        consumer: &BaseConsumer<Assigner>,
        found: &[Found],
        total: i32,
    ) -> Result<(), KafkaError> {
        let mut starts: Vec<Start> = found
            .iter()
            .map(|found| found.start(self.options.start))
            .collect();
        let wanted: Vec<SnapshotRequirements> = found
            .iter()
            .filter_map(|found| {
                Some(SnapshotRequirements {
                    committed: Position {
                        partition: found.partition,
                        partitions: total,
                        log: found.note.log?,
                        offset: found.committed?,
                    },
                    oldest: found.watermarks.0,
                })
            })
            .collect();
        let Some((histories, _)) = self.options.histories.clone() else {
            return self.begin(consumer, &starts, total);
        };
        histories.forget();
        if wanted.is_empty() {
            return self.begin(consumer, &starts, total);
        }
        self.health.not_ready(
            "log",
            format!("restoring the history of {} partitions", wanted.len()),
        );
        let (done, arrived) = mpsc::channel();
        let restore = move || {
            let standing: HashMap<i32, i64> = histories.restore(&wanted);
            for start in &mut starts {
                let Some(offset) = standing.get(&start.partition).copied() else {
                    continue;
                };
                let committed = wanted
                    .iter()
                    .find(|wanted| wanted.committed.partition == start.partition)
                    .map(|wanted| wanted.committed.offset);
                start.offset = Offset::Offset(offset);
                start.replay_until = committed.filter(|committed| offset < *committed);
                start.restored = Some(offset);
                start.shortened = false;
            }
            // Nobody waits any more where the partitions have gone again.
            let _ = done.send(starts);
        };
        std::thread::Builder::new()
            .name("restore".to_owned())
            .spawn(restore)
            .map_err(|error| KafkaError::Refused(format!("cannot start a thread: {error}")))?;
        *lock(&self.restoring) = Some(Restoring {
            total,
            starts: arrived,
        });
        Ok(())
    }

    /// Starts to read if the histories have come. Whether it did.
    pub(super) fn take_restored(
        &self,
        consumer: &BaseConsumer<Assigner>,
    ) -> Result<bool, KafkaError> {
        let mut restoring = lock(&self.restoring);
        let Some(waiting) = &*restoring else {
            return Ok(false);
        };
        let starts = match waiting.starts.try_recv() {
            Ok(starts) => starts,
            Err(mpsc::TryRecvError::Empty) => return Ok(false),
            Err(mpsc::TryRecvError::Disconnected) => {
                return Err(KafkaError::Refused(
                    "the thread that restores histories has panicked".to_owned(),
                ));
            }
        };
        let total = waiting.total;
        *restoring = None;
        drop(restoring);
        self.begin(consumer, &starts, total)?;
        Ok(true)
    }

    /// Gives an assignment up whose histories have not come: until it is taken or given up, the group cannot be left.
    pub(super) fn stop_restoring(&self, consumer: &BaseConsumer<Assigner>) {
        if lock(&self.restoring).take().is_some()
            && let Err(error) = consumer.unassign()
        {
            tracing::warn!(%error, topic = self.topic, "giving partitions back");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(committed: Option<i64>, lookback: Option<i64>, watermarks: (i64, i64)) -> Found {
        Found {
            partition: 0,
            committed,
            note: CommitNote::default(),
            lookback,
            watermarks,
        }
    }

    #[test]
    fn the_log_is_replayed_from_the_lookback_up_to_what_was_committed() {
        let start = found(Some(70), Some(20), (0, 100)).start(StartingPosition::TrimHorizon);
        assert_eq!(
            (start.offset, start.replay_until),
            (Offset::Offset(20), Some(70))
        );
        assert!(!start.shortened);
    }

    #[test]
    fn what_was_deleted_inside_the_lookback_is_noticed() {
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
    fn a_new_group_begins_where_it_was_told_to() {
        let latest = found(None, Some(20), (0, 100)).start(StartingPosition::Latest);
        assert_eq!(
            (latest.offset, latest.replay_until),
            (Offset::Offset(20), Some(100))
        );
        let oldest = found(None, Some(20), (0, 100)).start(StartingPosition::TrimHorizon);
        assert_eq!(
            (oldest.offset, oldest.replay_until),
            (Offset::Beginning, None)
        );
    }
}
