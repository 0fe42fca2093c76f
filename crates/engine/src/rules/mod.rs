//! Every window, threshold, cap and weight of the rules (README, "Scoring"), as configuration.
//!
//! The defaults are in `defaults.rs`. Rules that [`Rules::validate`] accepts cannot make the engine
//! divide by zero, score NaN or exceed the 48 bits in which it packs a time.

mod defaults;
mod money;
mod validate;

use std::hash::Hasher as _;

pub use money::Money;
use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize};
use siphasher::sip::SipHasher13;
use tollgate_types::{Amount, Status};
pub use validate::RulesError;

pub(crate) use crate::state::layout::MAX_LOOKBACK_SECONDS;

/// Least value of [`Rules::max_user_transactions`]: more than a block of a history has.
const LEAST_MAX_USER_TRANSACTIONS: u32 = 1_000;

/// The rules of scoring. Windows are in event time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Rules {
    /// Many transactions in a short time.
    pub high_velocity: HighVelocity,
    /// A large amount.
    pub high_amount: HighAmount,
    /// Two places that no traveller reaches in the time between.
    pub geographic_anomaly: GeographicAnomaly,
    /// A round or a repeated amount.
    pub suspicious_pattern: SuspiciousPattern,
    /// A transaction id that is used for another amount.
    pub conflicting_duplicate: ConflictingDuplicate,
    /// From which score on a transaction is reviewed or blocked.
    pub status: StatusThresholds,
    /// The mildest status of a transaction that is older than the history, unless it is backfill.
    pub late_status: Status,
    /// How far beyond the longest window a transaction may be late and still be scored exactly.
    pub lateness_seconds: u64,
    /// Most transactions that are remembered of a user. Beyond it the oldest are dropped, windows that reach back to them
    /// are counted without them, and the status is at least `review`.
    pub max_user_transactions: u32,
    /// The currency of the thresholds, and the rates of others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub money: Option<Money>,
}

/// `min(points_per_transaction · n, cap)` for n ≥ `minimum_count` transactions in (t − window, t + window), or records in
/// (r − window, r], whichever are more; r is the timestamp of the record.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HighVelocity {
    /// Length of the window; by the transactions' own timestamps it is as long on each side.
    pub window_seconds: u64,
    /// Fewest transactions that count as many, the scored one included.
    pub minimum_count: u32,
    /// Points for each transaction in the window.
    pub points_per_transaction: f64,
    /// Most points.
    pub cap: f64,
    /// A record that is more hours later than its transaction's own timestamp is not counted by its arrival.
    pub arrival_within_hours: u32,
}

/// `min(amount / threshold · points_per_threshold, cap)` for an amount above `threshold`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HighAmount {
    /// Amounts above this one are high.
    #[serde(deserialize_with = "amount_setting")]
    pub threshold: Amount,
    /// Points for each multiple of the threshold.
    pub points_per_threshold: f64,
    /// Most points.
    pub cap: f64,
}

/// `min(speed / kmh_per_point, cap)` for a speed above `threshold_kmh` from the latest place in (t − window, t] or to the
/// earliest in (t, t + window), whichever is faster.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GeographicAnomaly {
    /// Length of the window on each side.
    pub window_seconds: u64,
    /// Shorter distances are no travel, in km.
    pub minimum_km: f64,
    /// Whether a location of exactly 0/0 is taken for none.
    pub null_island: bool,
    /// Speeds above this one are anomalous, in km/h.
    pub threshold_kmh: f64,
    /// Speed that is worth one point, in km/h.
    pub kmh_per_point: f64,
    /// Most points.
    pub cap: f64,
}

/// `round_points` for a round amount; else `min(points_per_repeat · n, repeat_cap)` for n ≥ `repeat_minimum_count`
/// transactions of exactly this amount in (t − window, t + window).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SuspiciousPattern {
    /// An amount that is a multiple of this one is round.
    #[serde(deserialize_with = "amount_setting")]
    pub round_multiple: Amount,
    /// Smallest round amount that is suspicious.
    #[serde(deserialize_with = "amount_setting")]
    pub round_minimum: Amount,
    /// Points for a round amount.
    pub round_points: f64,
    /// Length of the window in which repeated amounts are counted, on each side.
    pub repeat_window_seconds: u64,
    /// Fewest transactions that count as a repetition, the scored one included.
    pub repeat_minimum_count: u32,
    /// Points for each transaction of the amount.
    pub points_per_repeat: f64,
    /// Most points for a repeated amount.
    pub repeat_cap: f64,
}

/// `points` for a transaction whose id the user has in history with another amount. Its status is at least `review`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ConflictingDuplicate {
    /// Points.
    pub points: f64,
}

/// A score at or above a threshold has its status.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StatusThresholds {
    /// Least score that is reviewed.
    pub review: f64,
    /// Least score that is blocked.
    pub blocked: f64,
}

impl Rules {
    /// How far back from a user's newest transaction the history reaches, in seconds: the longest window
    /// and the allowed lateness.
    #[must_use]
    pub fn lookback_seconds(&self) -> u64 {
        self.high_velocity
            .window_seconds
            .max(self.geographic_anomaly.window_seconds)
            .max(self.suspicious_pattern.repeat_window_seconds)
            .saturating_add(self.lateness_seconds)
    }

    /// A fingerprint of the rules: 12 hexadecimal digits, the same in every process and release
    /// as long as every setting is the same.
    #[must_use]
    pub fn version(&self) -> String {
        // The members of a struct are printed in the order of its declaration, so the text is canonical.
        let text = serde_json::to_vec(self).unwrap_or_default();
        let mut hasher = SipHasher13::new();
        hasher.write(&text);
        format!("{:012x}", hasher.finish() >> 16)
    }
}

/// An amount as a configuration file writes it: a number or a decimal string.
fn amount_setting<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Amount, D::Error> {
    struct Setting;
    impl Visitor<'_> for Setting {
        type Value = Amount;
        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("an amount, as a number or a decimal string")
        }
        fn visit_str<E: de::Error>(self, text: &str) -> Result<Amount, E> {
            Amount::parse_decimal(text).map_err(E::custom)
        }
        fn visit_i64<E: de::Error>(self, number: i64) -> Result<Amount, E> {
            self.visit_str(&number.to_string())
        }
        fn visit_u64<E: de::Error>(self, number: u64) -> Result<Amount, E> {
            self.visit_str(&number.to_string())
        }
        fn visit_f64<E: de::Error>(self, number: f64) -> Result<Amount, E> {
            // The shortest text that gives this float is the one that a person wrote.
            self.visit_str(&number.to_string())
        }
    }
    deserializer.deserialize_any(Setting)
}

#[cfg(test)]
mod tests;
