//! Parameters of the built-in indicators. What a document does not say is as in the scoring rules, whatever `scorer.rules` says.

use super::fields::{Document, Fields, LONGEST_WINDOW};
use crate::money::Money;
use crate::policy::{
    Builtin, ConflictingDuplicate, GeographicAnomaly, HighAmount, HighVelocity, SuspiciousPattern,
};

/// The built-in indicators, in the order in which their points are added.
pub(super) const INDICATORS: [&str; 5] = [
    "high_velocity",
    "high_amount",
    "geographic_anomaly",
    "suspicious_pattern",
    "conflicting_duplicate",
];

const MOST_COUNT: u32 = 1_000_000;

/// The parameters, and the longest window among them in seconds.
pub(super) fn builtin(document: &mut Document, root: Fields<'_>) -> (Builtin, u64) {
    let fields = document.table(root.item("builtin"));
    document.only(fields, &INDICATORS);
    let [velocity, amount, place, pattern, conflict] =
        INDICATORS.map(|name| document.table(fields.item(name)));
    let found = Builtin {
        high_velocity: high_velocity(document, velocity),
        high_amount: high_amount(document, amount),
        geographic_anomaly: geographic_anomaly(document, place),
        suspicious_pattern: suspicious_pattern(document, pattern),
        conflicting_duplicate: conflicting_duplicate(document, conflict),
    };
    let longest = found
        .high_velocity
        .window_seconds
        .max(found.geographic_anomaly.window_seconds)
        .max(found.suspicious_pattern.repeat_window_seconds);
    (found, longest)
}

fn high_velocity(document: &mut Document, fields: Fields<'_>) -> HighVelocity {
    document.only(
        fields,
        &[
            "mode",
            "window_seconds",
            "minimum_count",
            "points_per_transaction",
            "cap",
            "arrival_within_hours",
        ],
    );
    HighVelocity {
        mode: document.mode(fields),
        window_seconds: document.whole(fields, "window_seconds", LONGEST_WINDOW, 300),
        minimum_count: document.whole(fields, "minimum_count", MOST_COUNT, 5),
        points_per_transaction: document.points(fields, "points_per_transaction", 5.0),
        cap: document.points(fields, "cap", 30.0),
        arrival_within_hours: document.points(fields, "arrival_within_hours", 72.0),
    }
}

fn high_amount(document: &mut Document, fields: Fields<'_>) -> HighAmount {
    document.only(
        fields,
        &["mode", "threshold", "points_per_threshold", "cap"],
    );
    HighAmount {
        mode: document.mode(fields),
        threshold: document.money(fields, "threshold", SMALLEST, units(1_000)),
        points_per_threshold: document.points(fields, "points_per_threshold", 10.0),
        cap: document.points(fields, "cap", 50.0),
    }
}

fn geographic_anomaly(document: &mut Document, fields: Fields<'_>) -> GeographicAnomaly {
    document.only(
        fields,
        &[
            "mode",
            "window_seconds",
            "threshold_kmh",
            "kmh_per_point",
            "minimum_km",
            "cap",
            "null_island",
        ],
    );
    GeographicAnomaly {
        mode: document.mode(fields),
        window_seconds: document.whole(fields, "window_seconds", LONGEST_WINDOW, 7_200),
        threshold_kmh: document.points(fields, "threshold_kmh", 100.0),
        kmh_per_point: document.number(fields, "kmh_per_point", (1e-6, 1e6), 10.0),
        minimum_km: document.points(fields, "minimum_km", 1.0),
        cap: document.points(fields, "cap", 40.0),
        null_island: document.bool(fields, "null_island", true),
    }
}

fn suspicious_pattern(document: &mut Document, fields: Fields<'_>) -> SuspiciousPattern {
    document.only(
        fields,
        &[
            "mode",
            "round_multiple",
            "round_minimum",
            "round_points",
            "repeat_window_seconds",
            "repeat_minimum_count",
            "points_per_repeat",
            "repeat_cap",
        ],
    );
    SuspiciousPattern {
        mode: document.mode(fields),
        round_multiple: document.money(fields, "round_multiple", SMALLEST, units(100)),
        round_minimum: document.money(fields, "round_minimum", units(0), units(500)),
        round_points: document.points(fields, "round_points", 15.0),
        repeat_window_seconds: document.whole(
            fields,
            "repeat_window_seconds",
            LONGEST_WINDOW,
            604_800,
        ),
        repeat_minimum_count: document.whole(fields, "repeat_minimum_count", MOST_COUNT, 3),
        points_per_repeat: document.points(fields, "points_per_repeat", 5.0),
        repeat_cap: document.points(fields, "repeat_cap", 25.0),
    }
}

fn conflicting_duplicate(document: &mut Document, fields: Fields<'_>) -> ConflictingDuplicate {
    document.only(fields, &["mode", "points"]);
    ConflictingDuplicate {
        mode: document.mode(fields),
        points: document.points(fields, "points", 40.0),
    }
}

const SMALLEST: Money = ten_thousandths(1);

const fn units(value: i128) -> Money {
    ten_thousandths(value * 10_000)
}

const fn ten_thousandths(value: i128) -> Money {
    match Money::from_ten_thousandths(value) {
        Some(money) => money,
        // Only values in range stand above.
        None => Money::MAX,
    }
}
