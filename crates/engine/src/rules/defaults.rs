//! The defaults of the rules, as the section "Scoring" of the README lists them.

use tollgate_types::{Amount, Status};

use super::{
    ConflictingDuplicate, GeographicAnomaly, HighAmount, HighVelocity, Rules, StatusThresholds,
    SuspiciousPattern,
};

impl Default for Rules {
    fn default() -> Self {
        Self {
            high_velocity: HighVelocity::default(),
            high_amount: HighAmount::default(),
            geographic_anomaly: GeographicAnomaly::default(),
            suspicious_pattern: SuspiciousPattern::default(),
            conflicting_duplicate: ConflictingDuplicate::default(),
            status: StatusThresholds::default(),
            late_status: Status::Review,
            lateness_seconds: 3_600,
            max_user_transactions: 200_000,
            money: None,
        }
    }
}

impl Default for HighVelocity {
    fn default() -> Self {
        Self {
            window_seconds: 300,
            minimum_count: 5,
            points_per_transaction: 5.0,
            cap: 30.0,
            arrival_within_hours: 72,
        }
    }
}

impl Default for HighAmount {
    fn default() -> Self {
        Self {
            threshold: whole(1_000),
            points_per_threshold: 10.0,
            cap: 50.0,
        }
    }
}

impl Default for GeographicAnomaly {
    fn default() -> Self {
        Self {
            window_seconds: 7_200,
            minimum_km: 1.0,
            null_island: true,
            threshold_kmh: 100.0,
            kmh_per_point: 10.0,
            cap: 40.0,
        }
    }
}

impl Default for SuspiciousPattern {
    fn default() -> Self {
        Self {
            round_multiple: whole(100),
            round_minimum: whole(500),
            round_points: 15.0,
            repeat_window_seconds: 7 * 86_400,
            repeat_minimum_count: 3,
            points_per_repeat: 5.0,
            repeat_cap: 25.0,
        }
    }
}

impl Default for ConflictingDuplicate {
    fn default() -> Self {
        Self { points: 40.0 }
    }
}

impl Default for StatusThresholds {
    fn default() -> Self {
        Self {
            review: 40.0,
            blocked: 70.0,
        }
    }
}

fn whole(units: i64) -> Amount {
    Amount::from_ten_thousandths(units * 10_000).unwrap_or_default()
}
