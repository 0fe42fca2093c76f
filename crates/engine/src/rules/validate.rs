//! Which rules can be used: each setting by itself, and how they relate.

use tollgate_types::Amount;

use super::{LEAST_MAX_USER_TRANSACTIONS, MAX_LOOKBACK_SECONDS, Rules};

/// A setting that cannot be used, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{setting}: {reason}")]
pub struct RulesError {
    /// The setting's name, such as `high_velocity.window_seconds`.
    pub setting: &'static str,
    /// What is wrong with it, for a person.
    pub reason: &'static str,
}

impl Rules {
    /// Checks each setting and how they relate.
    ///
    /// # Errors
    /// The first setting that cannot be used.
    pub fn validate(&self) -> Result<(), RulesError> {
        let (velocity, amount) = (&self.high_velocity, &self.high_amount);
        let (geographic, pattern) = (&self.geographic_anomaly, &self.suspicious_pattern);
        let fail = |setting, reason| Err(RulesError { setting, reason });
        for (setting, value) in [
            ("high_velocity.window_seconds", velocity.window_seconds),
            ("high_velocity.minimum_count", velocity.minimum_count.into()),
            (
                "geographic_anomaly.window_seconds",
                geographic.window_seconds,
            ),
            (
                "suspicious_pattern.repeat_window_seconds",
                pattern.repeat_window_seconds,
            ),
            (
                "suspicious_pattern.repeat_minimum_count",
                pattern.repeat_minimum_count.into(),
            ),
        ] {
            if value == 0 {
                return fail(setting, "must be at least 1");
            }
        }
        for (setting, value) in [
            (
                "high_velocity.points_per_transaction",
                velocity.points_per_transaction,
            ),
            ("high_velocity.cap", velocity.cap),
            (
                "high_amount.points_per_threshold",
                amount.points_per_threshold,
            ),
            ("high_amount.cap", amount.cap),
            ("geographic_anomaly.minimum_km", geographic.minimum_km),
            ("geographic_anomaly.threshold_kmh", geographic.threshold_kmh),
            ("geographic_anomaly.kmh_per_point", geographic.kmh_per_point),
            ("geographic_anomaly.cap", geographic.cap),
            ("suspicious_pattern.round_points", pattern.round_points),
            (
                "suspicious_pattern.points_per_repeat",
                pattern.points_per_repeat,
            ),
            ("suspicious_pattern.repeat_cap", pattern.repeat_cap),
            (
                "conflicting_duplicate.points",
                self.conflicting_duplicate.points,
            ),
            ("status.review", self.status.review),
            ("status.blocked", self.status.blocked),
        ] {
            // A million points are beyond any use, and their sum is far from where floats lose units.
            if !(0.0..=1e6).contains(&value) || value.is_sign_negative() {
                return fail(setting, "must be a number from 0 to 1000000");
            }
        }
        if geographic.kmh_per_point < 1e-6 {
            return fail(
                "geographic_anomaly.kmh_per_point",
                "must be at least 0.000001",
            );
        }
        for (setting, value) in [
            ("high_amount.threshold", amount.threshold),
            ("suspicious_pattern.round_multiple", pattern.round_multiple),
        ] {
            if value == Amount::default() {
                return fail(setting, "must be above 0");
            }
        }
        if self.status.review > self.status.blocked {
            return fail("status.review", "must be at most status.blocked");
        }
        if self.max_user_transactions < LEAST_MAX_USER_TRANSACTIONS {
            return fail("max_user_transactions", "must be at least 1000");
        }
        if let Some(money) = &self.money
            && money.rates.contains_key(&money.base)
        {
            return fail("money.rates", "must not have the base currency");
        }
        if self.lookback_seconds() >= MAX_LOOKBACK_SECONDS {
            return fail(
                "lateness_seconds",
                "with the longest window must stay below 8 years",
            );
        }
        Ok(())
    }
}
