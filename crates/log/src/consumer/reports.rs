//! Health and metrics of the consumer loop: where a restore, a rebuilding or a shortened history is reported.
//!
//! Invariant: the check `log` is ready only when no history of an assigned partition is being restored or rebuilt.

use metrics::gauge;
use tollgate_service::health::Health;

use super::ConsumerOptions;
use super::partition::{Partitions, Start};
use crate::error::LogError;

/// Reports the state of one consumer under the name of its stage.
pub(super) struct ConsumerReports {
    stage: &'static str,
    /// The first topic, for messages.
    topic: String,
    /// True for a stage that replays the log into histories: only such a history can be shortened.
    replays: bool,
    health: Health,
}

impl ConsumerReports {
    pub(super) fn new(options: &ConsumerOptions, health: Health) -> Self {
        Self {
            stage: options.stage.name(),
            topic: options.topics.first().cloned().unwrap_or_default(),
            replays: options.replay.is_some(),
            health,
        }
    }

    /// The first topic that the consumer reads.
    pub(super) fn topic(&self) -> &str {
        &self.topic
    }

    /// An assignment cannot be read: the consumer is not ready.
    pub(super) fn assignment_failed(&self, error: &LogError) {
        self.health.not_ready("log", error.to_string());
    }

    /// Snapshots of this many partitions are being restored: the consumer is not ready.
    pub(super) fn restoring(&self, partitions: usize) {
        self.health.not_ready(
            "log",
            format!("restoring the history of {partitions} partitions"),
        );
    }

    /// Sets both metrics of rebuilding. The consumer is ready once no partition is being rebuilt.
    pub(super) fn rebuilding(&self, partitions: &Partitions) {
        let (count, _) = partitions.rebuilding();
        gauge!("tollgate_log_rebuilding_partitions", "stage" => self.stage)
            .set(u32::try_from(count).map_or(f64::MAX, f64::from));
        self.rebuild_remaining(partitions);
        if count == 0 {
            self.health.ready("log");
        } else {
            let reason = format!("rebuilding the history of {count} partitions from the log");
            self.health.not_ready("log", reason);
        }
    }

    /// Sets the metric of records that are still to be replayed.
    #[expect(clippy::cast_precision_loss, reason = "a gauge is a float")]
    pub(super) fn rebuild_remaining(&self, partitions: &Partitions) {
        let (_, remaining) = partitions.rebuilding();
        gauge!("tollgate_log_rebuild_remaining_records", "stage" => self.stage)
            .set(remaining as f64);
    }

    /// Warns where the log no longer holds all of a history and no snapshot replaced it. Such a history is used, but
    /// never without the warning.
    pub(super) fn shortened(&self, starts: &[Start]) {
        if !self.replays {
            return;
        }
        let shortened: Vec<i32> = starts
            .iter()
            .filter(|start| start.shortened)
            .map(|start| start.at.partition)
            .collect();
        gauge!("tollgate_log_shortened_histories", "stage" => self.stage)
            .set(u32::try_from(shortened.len()).map_or(f64::MAX, f64::from));
        let warning = format!(
            "the log no longer holds all of the history that scores of partitions {shortened:?} look back on, and \
             nothing was kept beside it: until as much time has passed again, they may be too low. Raise the retention \
             of topic {}, or set scorer.snapshots",
            self.topic
        );
        self.health
            .warn("history", (!shortened.is_empty()).then_some(warning));
    }
}
