//! The checks: one file for each indicator, each a pure function of history and transaction.
//!
//! Invariant: the floating-point operations and their order are those of the golden vectors, so that a score is the same
//! to the bit wherever it is computed with the same C library. Points are added in the order of the contributions: first
//! the built-in indicators in the order of the README's table, then further ones.

mod conflicting_duplicate;
mod distance;
mod geographic_anomaly;
mod high_amount;
mod high_velocity;
mod suspicious_pattern;

use std::sync::Arc;

use tollgate_types::{Contribution, Contributions, Location, Status, Transaction};

use crate::origin::Origin;
use crate::rules::{MAX_LOOKBACK_SECONDS, Rules, StatusThresholds};
use crate::state::{Bounds, History};
use crate::worth::{Valuation, Worth};

/// The rules, and the windows in them as times are kept.
pub(crate) struct Checks {
    rules: Arc<Rules>,
    windows: Windows,
    valuation: Valuation,
}

/// Lengths of time in microseconds, except that of arrivals.
#[derive(Debug, Clone, Copy)]
struct Windows {
    velocity: i64,
    /// That of the velocity, in milliseconds.
    arrival: i64,
    /// By how much a record may be later than its transaction and still be counted by its arrival.
    arrival_within: i64,
    geographic: i64,
    repeat: i64,
    /// How far back the history reaches from its newest entry.
    lookback: i64,
}

/// The transaction that is being scored.
pub(crate) struct Scored<'a> {
    pub(crate) transaction: &'a Transaction<'a>,
    /// Its place, if it is to be taken for one.
    pub(crate) location: Option<Location>,
    /// The timestamp of its record in milliseconds since 1970, if it is counted by its arrival.
    pub(crate) arrival: Option<i64>,
    /// The user has its id in history with another amount.
    pub(crate) conflict: bool,
    /// What its amount is worth.
    pub(crate) worth: Worth,
}

/// What a check looks at.
struct Input<'a> {
    rules: &'a Rules,
    windows: Windows,
    history: &'a History,
    transaction: &'a Transaction<'a>,
    location: Option<Location>,
    arrival: Option<i64>,
    conflict: bool,
    worth: Worth,
    /// Event time in microseconds since 1970.
    time: i64,
}

impl Checks {
    pub(crate) fn new(rules: Arc<Rules>) -> Self {
        // The windows of rules that were never validated must not overflow a packed time either.
        let micros = |seconds: u64| seconds.min(MAX_LOOKBACK_SECONDS).cast_signed() * 1_000_000;
        let windows = Windows {
            velocity: micros(rules.high_velocity.window_seconds),
            arrival: micros(rules.high_velocity.window_seconds) / 1_000,
            arrival_within: micros(u64::from(rules.high_velocity.arrival_within_hours) * 3_600),
            geographic: micros(rules.geographic_anomaly.window_seconds),
            repeat: micros(rules.suspicious_pattern.repeat_window_seconds),
            lookback: micros(rules.lookback_seconds()),
        };
        Self {
            valuation: Valuation::new(Arc::clone(&rules)),
            rules,
            windows,
        }
    }

    /// With another limit of hours for the count by arrival, which may be a fraction.
    pub(crate) fn with_arrival_within_hours(mut self, hours: f64) -> Self {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "a million hours are far within the range"
        )]
        let micros = (hours * 3.6e9).round_ties_even() as i64;
        self.windows.arrival_within = micros;
        self
    }

    /// Makes histories reach further back, in microseconds.
    pub(crate) const fn set_lookback(&mut self, micros: i64) {
        self.windows.lookback = micros;
    }

    pub(crate) const fn rules(&self) -> &Arc<Rules> {
        &self.rules
    }

    pub(crate) const fn valuation(&self) -> &Valuation {
        &self.valuation
    }

    /// How far back a history reaches from its newest entry, in microseconds.
    pub(crate) const fn lookback(&self) -> i64 {
        self.windows.lookback
    }

    /// What bounds a history.
    pub(crate) fn bounds(&self) -> Bounds {
        Bounds {
            lookback: self.windows.lookback,
            rows: self.rules.max_user_transactions as usize,
        }
    }

    /// The place of a transaction, unless it is one that programs write for an unknown one.
    pub(crate) fn place(&self, transaction: &Transaction<'_>) -> Option<Location> {
        let unknown = |at: &Location| at.latitude == 0.0 && at.longitude == 0.0;
        transaction
            .location
            .filter(|at| !(self.rules.geographic_anomaly.null_island && unknown(at)))
    }

    /// The arrival by which a transaction is counted: that of its record, unless it is backfill or came too late to be part
    /// of a burst.
    pub(crate) fn arrival(&self, transaction: &Transaction<'_>, origin: &Origin) -> Option<i64> {
        let arrival = origin.timestamp_ms.filter(|_| !origin.backfill)?;
        let after = arrival
            .saturating_mul(1_000)
            .saturating_sub(transaction.timestamp.micros());
        (after <= self.windows.arrival_within).then_some(arrival)
    }

    /// The window in which arrivals are counted, in milliseconds.
    pub(crate) const fn arrival_window(&self) -> i64 {
        self.windows.arrival
    }

    /// What each indicator that fires adds to the score.
    pub(crate) fn contributions(&self, history: &History, scored: &Scored<'_>) -> Contributions {
        let input = Input {
            rules: &self.rules,
            windows: self.windows,
            history,
            transaction: scored.transaction,
            location: scored.location,
            arrival: scored.arrival,
            conflict: scored.conflict,
            worth: scored.worth,
            time: scored.transaction.timestamp.micros(),
        };
        let fired = [
            high_velocity::check(&input),
            high_amount::check(&input),
            geographic_anomaly::check(&input),
            suspicious_pattern::check(&input),
            conflicting_duplicate::check(&input),
        ];
        let mut contributions = Contributions::default();
        for contribution in fired.into_iter().flatten() {
            contributions.insert(contribution);
        }
        if let Some(unknown) = self.valuation.unknown(&scored.worth) {
            contributions.insert(Contribution {
                amount: Some(scored.transaction.amount),
                ..Contribution::new(unknown, 0.0)
            });
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
