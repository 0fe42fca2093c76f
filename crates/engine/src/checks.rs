//! The four indicators of the specification's table, each a pure function of history and transaction.
//!
//! Invariant: the floating-point operations and their order are those of the reference text, so that a score
//! is the same to the bit wherever it is computed.

use tollgate_types::{Contribution, Contributions, Indicator, Status, Transaction};

use super::geo;
use super::history::History;
use crate::Rules;
use crate::rules::{MAX_LOOKBACK_SECONDS, StatusThresholds};

/// Lengths of time in microseconds, worked out once.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    velocity_window: i64,
    geographic_window: i64,
    repeat_window: i64,
    /// How far back the history reaches from its newest entry.
    pub(super) lookback: i64,
}

impl Limits {
    pub(super) fn new(rules: &Rules) -> Self {
        // Rules that were never validated still must not overflow a packed time.
        let micros = |seconds: u64| seconds.min(MAX_LOOKBACK_SECONDS).cast_signed() * 1_000_000;
        Self {
            velocity_window: micros(rules.high_velocity.window_seconds),
            geographic_window: micros(rules.geographic_anomaly.window_seconds),
            repeat_window: micros(rules.suspicious_pattern.repeat_window_seconds),
            lookback: micros(rules.lookback_seconds()),
        }
    }
}

/// What each indicator that fires adds to the score.
pub(super) fn contributions(
    rules: &Rules,
    limits: &Limits,
    history: &History,
    transaction: &Transaction<'_>,
) -> Contributions {
    let mut contributions = Contributions::default();
    let fired = [
        high_velocity(rules, limits, history, transaction),
        high_amount(rules, transaction),
        geographic_anomaly(rules, limits, history, transaction),
        suspicious_pattern(rules, limits, history, transaction),
    ];
    for contribution in fired.into_iter().flatten() {
        contributions.insert(contribution);
    }
    contributions
}

/// The status of a score.
pub(super) fn status(thresholds: &StatusThresholds, score: f64) -> Status {
    if score >= thresholds.blocked {
        Status::Blocked
    } else if score >= thresholds.review {
        Status::Review
    } else {
        Status::Approved
    }
}

fn high_velocity(
    rules: &Rules,
    limits: &Limits,
    history: &History,
    transaction: &Transaction<'_>,
) -> Option<Contribution> {
    let rule = &rules.high_velocity;
    let time = transaction.timestamp.micros();
    let count = with_this_one(history.count(time - limits.velocity_window, time));
    (count >= rule.minimum_count).then(|| Contribution {
        count: Some(count),
        ..points(
            Indicator::HighVelocity,
            (rule.points_per_transaction * f64::from(count)).min(rule.cap),
        )
    })
}

fn high_amount(rules: &Rules, transaction: &Transaction<'_>) -> Option<Contribution> {
    let rule = &rules.high_amount;
    let amount = transaction.amount;
    (amount > rule.threshold).then(|| Contribution {
        amount: Some(amount),
        ..points(
            Indicator::HighAmount,
            (amount.to_f64() / rule.threshold.to_f64() * rule.points_per_threshold).min(rule.cap),
        )
    })
}

fn geographic_anomaly(
    rules: &Rules,
    limits: &Limits,
    history: &History,
    transaction: &Transaction<'_>,
) -> Option<Contribution> {
    let rule = &rules.geographic_anomaly;
    let here = transaction.location?;
    let time = transaction.timestamp.micros();
    let (last_time, last) = history.latest_place(time - limits.geographic_window, time)?;
    let distance = geo::distance_km(last, here);
    let speed = distance / geo::hours(time - last_time);
    (speed > rule.threshold_kmh).then(|| Contribution {
        speed_kmh: Some(speed),
        distance_km: Some(distance),
        ..points(
            Indicator::GeographicAnomaly,
            (speed / rule.kmh_per_point).min(rule.cap),
        )
    })
}

fn suspicious_pattern(
    rules: &Rules,
    limits: &Limits,
    history: &History,
    transaction: &Transaction<'_>,
) -> Option<Contribution> {
    let rule = &rules.suspicious_pattern;
    let amount = transaction.amount;
    // A multiple of zero can only come from rules that were never validated; then no amount is round.
    let multiple = rule.round_multiple.ten_thousandths();
    let round = amount.ten_thousandths().checked_rem(multiple) == Some(0);
    if round && amount >= rule.round_minimum {
        return Some(Contribution {
            amount: Some(amount),
            ..points(Indicator::SuspiciousPattern, rule.round_points)
        });
    }
    let time = transaction.timestamp.micros();
    let enough = usize::try_from(rule.repeat_minimum_count)
        .unwrap_or(usize::MAX)
        .saturating_sub(1);
    let before = history.count_amount(amount, time - limits.repeat_window, time, enough)?;
    let count = with_this_one(before);
    Some(Contribution {
        count: Some(count),
        amount: Some(amount),
        ..points(
            Indicator::SuspiciousPattern,
            (rule.points_per_repeat * f64::from(count)).min(rule.repeat_cap),
        )
    })
}

fn with_this_one(before: usize) -> u32 {
    u32::try_from(before).unwrap_or(u32::MAX).saturating_add(1)
}

fn points(indicator: Indicator, points: f64) -> Contribution {
    Contribution {
        indicator,
        points,
        count: None,
        amount: None,
        speed_kmh: None,
        distance_km: None,
    }
}
