use serde_json::Value;

use super::*;

#[test]
fn the_defaults_are_valid_and_reach_back_seven_days_and_an_hour() {
    let rules = Rules::default();
    assert_eq!(rules.validate(), Ok(()));
    assert_eq!(rules.lookback_seconds(), 7 * 86_400 + 3_600);
}

#[test]
fn a_setting_left_out_keeps_its_default_and_an_unknown_one_is_an_error() {
    let text =
        r#"{"high_amount":{"threshold":2000.5},"suspicious_pattern":{"round_multiple":"50"}}"#;
    let rules: Rules = serde_json::from_str(text).unwrap();
    assert_eq!(
        rules.high_amount.threshold,
        Amount::parse_decimal("2000.5").unwrap()
    );
    assert_eq!(rules.high_amount.cap, 50.0);
    assert_eq!(rules.high_velocity, HighVelocity::default());
    for text in [
        r#"{"velocity":{}}"#,
        r#"{"high_velocity":{"window":1}}"#,
        r#"{"high_amount":{"threshold":-1}}"#,
    ] {
        assert!(serde_json::from_str::<Rules>(text).is_err(), "{text}");
    }
}

#[test]
fn rules_read_back_are_the_rules_that_were_printed() {
    let mut rules = Rules::default();
    rules.high_amount.threshold = Amount::parse_decimal("999999999999.9999").unwrap();
    rules.geographic_anomaly.kmh_per_point = 0.1 + 0.2;
    let text = serde_json::to_string(&rules).unwrap();
    assert_eq!(serde_json::from_str::<Rules>(&text).unwrap(), rules);
}

#[test]
fn the_version_changes_with_any_setting_and_with_nothing_else() {
    let text = serde_json::to_value(Rules::default()).unwrap();
    let mut versions = vec![Rules::default().version()];
    for (section, value) in text.as_object().unwrap() {
        let settings: Vec<_> = match value.as_object() {
            Some(settings) => settings
                .keys()
                .map(|key| format!("/{section}/{key}"))
                .collect(),
            None => vec![format!("/{section}")],
        };
        for setting in settings {
            let mut changed = text.clone();
            let value = changed.pointer_mut(&setting).unwrap();
            *value = match value {
                Value::Bool(value) => (!*value).into(),
                Value::String(text) if text == "review" => "blocked".into(),
                _ => 7.into(),
            };
            versions.push(serde_json::from_value::<Rules>(changed).unwrap().version());
        }
    }
    assert_eq!(versions.len(), 28);
    assert!(versions.iter().all(|version| version.len() == 12));
    assert_eq!(
        versions[0], "a01ac42c659e",
        "unchanged rules have a new version"
    );
    versions.sort_unstable();
    versions.dedup();
    assert_eq!(versions.len(), 28);
}

#[test]
fn what_cannot_be_used_is_refused_by_name() {
    type Change = fn(&mut Rules);
    let cases: [(&str, Change); 12] = [
        ("high_velocity.window_seconds", |r| {
            r.high_velocity.window_seconds = 0
        }),
        ("high_velocity.minimum_count", |r| {
            r.high_velocity.minimum_count = 0
        }),
        ("high_velocity.cap", |r| r.high_velocity.cap = f64::NAN),
        ("high_amount.points_per_threshold", |r| {
            r.high_amount.points_per_threshold = -1.0
        }),
        ("high_amount.threshold", |r| {
            r.high_amount.threshold = Amount::default()
        }),
        ("geographic_anomaly.kmh_per_point", |r| {
            r.geographic_anomaly.kmh_per_point = 0.0
        }),
        ("geographic_anomaly.minimum_km", |r| {
            r.geographic_anomaly.minimum_km = -1.0
        }),
        ("conflicting_duplicate.points", |r| {
            r.conflicting_duplicate.points = f64::NAN
        }),
        ("max_user_transactions", |r| r.max_user_transactions = 999),
        ("status.blocked", |r| r.status.blocked = f64::INFINITY),
        ("status.review", |r| r.status.review = 70.5),
        ("lateness_seconds", |r| r.lateness_seconds = u64::MAX),
    ];
    for (setting, change) in cases {
        let mut rules = Rules::default();
        change(&mut rules);
        assert_eq!(rules.validate().unwrap_err().setting, setting);
    }
}
