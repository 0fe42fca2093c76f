//! The checks: one file for each indicator, each a pure function of history and transaction.
//!
//! Invariant: the floating-point operations and their order are those of the golden vectors, so that a score is the same
//! to the bit wherever it is computed with the same C library. Points are added in the order of the contributions: first
//! the built-in indicators in the order of the README's table, then further ones.

mod distance;
mod geographic_anomaly;
mod high_amount;
mod high_velocity;
mod suspicious_pattern;

use std::sync::Arc;

use tollgate_types::{Contributions, Status, Transaction};

use crate::rules::{MAX_LOOKBACK_SECONDS, Rules, StatusThresholds};
use crate::state::History;

/// The rules, and the windows in them as times are kept.
pub(crate) struct Checks {
    rules: Arc<Rules>,
    windows: Windows,
}

/// Lengths of time in microseconds.
#[derive(Debug, Clone, Copy)]
struct Windows {
    velocity: i64,
    geographic: i64,
    repeat: i64,
    /// How far back the history reaches from its newest entry.
    lookback: i64,
}

/// What a check looks at.
struct Input<'a> {
    rules: &'a Rules,
    windows: Windows,
    history: &'a History,
    transaction: &'a Transaction<'a>,
    /// Event time in microseconds since 1970.
    time: i64,
}

impl Checks {
    pub(crate) fn new(rules: Arc<Rules>) -> Self {
        // The windows of rules that were never validated must not overflow a packed time either.
        let micros = |seconds: u64| seconds.min(MAX_LOOKBACK_SECONDS).cast_signed() * 1_000_000;
        let windows = Windows {
            velocity: micros(rules.high_velocity.window_seconds),
            geographic: micros(rules.geographic_anomaly.window_seconds),
            repeat: micros(rules.suspicious_pattern.repeat_window_seconds),
            lookback: micros(rules.lookback_seconds()),
        };
        Self { rules, windows }
    }

    pub(crate) const fn rules(&self) -> &Arc<Rules> {
        &self.rules
    }

    /// How far back a history reaches from its newest entry, in microseconds.
    pub(crate) const fn lookback(&self) -> i64 {
        self.windows.lookback
    }

    /// What each indicator that fires adds to the score.
    pub(crate) fn contributions(
        &self,
        history: &History,
        transaction: &Transaction<'_>,
    ) -> Contributions {
        let input = Input {
            rules: &self.rules,
            windows: self.windows,
            history,
            transaction,
            time: transaction.timestamp.micros(),
        };
        let fired = [
            high_velocity::check(&input),
            high_amount::check(&input),
            geographic_anomaly::check(&input),
            suspicious_pattern::check(&input),
        ];
        let mut contributions = Contributions::default();
        for contribution in fired.into_iter().flatten() {
            contributions.insert(contribution);
        }
        contributions
    }
}

/// The status of a score.
pub(crate) fn status(thresholds: &StatusThresholds, score: f64) -> Status {
    if score >= thresholds.blocked {
        Status::Blocked
    } else if score >= thresholds.review {
        Status::Review
    } else {
        Status::Approved
    }
}

/// The number of transactions with the one that is being scored.
fn with_this_one(before: usize) -> u32 {
    u32::try_from(before).unwrap_or(u32::MAX).saturating_add(1)
}
