//! The built-in policy, and the built-in indicators under a published one.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tollgate_policy::{Money, Policy, check};
use tollgate_types::Amount;

use crate::rules::Rules;

/// The plain document; that of rules has more.
const PLAIN: &str = "language = 1\nname = \"built-in\"\n";
const INDICATORS: [&str; 5] = [
    "high_velocity",
    "high_amount",
    "geographic_anomaly",
    "suspicious_pattern",
    "conflicting_duplicate",
];

/// The policy of these rules, and its hash: that of the document which has `language`, `name`, and what differs from the
/// defaults. Its parameters of the built-in indicators are not used: the rules are.
///
/// Rules that no document can express, such as a window beyond 35 days, have the hash of the text of that document.
pub(super) fn policy(rules: &Rules) -> Option<(Arc<Policy>, Arc<str>)> {
    let document = document(rules);
    let mut policy = check(PLAIN).policy?;
    let hash = match check(&document).policy {
        Some(policy) => policy.hash.to_string(),
        None => hexadecimal(&Sha256::digest(document.as_bytes())),
    };
    policy.thresholds.review = rules.status.review;
    policy.thresholds.block = rules.status.blocked;
    policy.thresholds.late_status = rules.late_status;
    Some((Arc::new(policy), hash.into()))
}

fn hexadecimal(bytes: &[u8]) -> String {
    let mut text = String::new();
    for byte in bytes {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// The document of these rules.
fn document(rules: &Rules) -> String {
    let ours = serde_json::to_value(rules).unwrap_or_default();
    let usual = serde_json::to_value(Rules::default()).unwrap_or_default();
    let mut tables: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    let mut compare = |table: &str, key: &str, ours: Option<&Value>, usual: Option<&Value>| {
        if let (Some(ours), true) = (ours, ours != usual) {
            let keys = tables.entry(table.to_owned()).or_default();
            keys.insert(key.to_owned(), ours.to_string());
        }
    };
    for name in INDICATORS {
        let settings = ours.get(name).and_then(Value::as_object);
        for (key, value) in settings.into_iter().flatten() {
            let usual = usual.get(name).and_then(|table| table.get(key));
            compare(&format!("builtin.{name}"), key, Some(value), usual);
        }
    }
    let status =
        |of: &'_ Value, key: &str| of.get("status").and_then(|table| table.get(key)).cloned();
    for (key, setting) in [("review", "review"), ("block", "blocked")] {
        let (ours, usual) = (status(&ours, setting), status(&usual, setting));
        compare("thresholds", key, ours.as_ref(), usual.as_ref());
    }
    compare(
        "thresholds",
        "late_status",
        ours.get("late_status"),
        usual.get("late_status"),
    );
    let mut text = String::from(PLAIN);
    for (table, keys) in tables {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "[{table}]");
        for (key, value) in keys {
            let _ = writeln!(text, "{key} = {value}");
        }
    }
    text
}

/// Rules with the parameters of a policy's built-in indicators, and the currencies and bounds of the settings.
pub(super) fn rules(policy: &Policy, settings: &Rules) -> Rules {
    let builtin = &policy.builtin;
    let count = |count: u64| u32::try_from(count).unwrap_or(u32::MAX);
    let amount = |money: Money| {
        let value = i64::try_from(money.ten_thousandths()).ok();
        value
            .and_then(Amount::from_ten_thousandths)
            .unwrap_or(Amount::MAX)
    };
    let mut rules = settings.clone();
    let (velocity, found) = (&mut rules.high_velocity, &builtin.high_velocity);
    velocity.window_seconds = found.window_seconds;
    velocity.minimum_count = count(found.minimum_count);
    velocity.points_per_transaction = found.points_per_transaction;
    velocity.cap = found.cap;
    let (high, found) = (&mut rules.high_amount, &builtin.high_amount);
    high.threshold = amount(found.threshold);
    high.points_per_threshold = found.points_per_threshold;
    high.cap = found.cap;
    let (place, found) = (&mut rules.geographic_anomaly, &builtin.geographic_anomaly);
    place.window_seconds = found.window_seconds;
    place.minimum_km = found.minimum_km;
    place.null_island = found.null_island;
    place.threshold_kmh = found.threshold_kmh;
    place.kmh_per_point = found.kmh_per_point;
    place.cap = found.cap;
    let (pattern, found) = (&mut rules.suspicious_pattern, &builtin.suspicious_pattern);
    pattern.round_multiple = amount(found.round_multiple);
    pattern.round_minimum = amount(found.round_minimum);
    pattern.round_points = found.round_points;
    pattern.repeat_window_seconds = found.repeat_window_seconds;
    pattern.repeat_minimum_count = count(found.repeat_minimum_count);
    pattern.points_per_repeat = found.points_per_repeat;
    pattern.repeat_cap = found.repeat_cap;
    rules.conflicting_duplicate.points = builtin.conflicting_duplicate.points;
    rules
}
