//! Documents that try to exhaust the stack, memory or time, or that say the same in another way.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::{Duration, Instant};

use tollgate_policy::{FaultKind, Report, check};

const HEAD: &str = "language = 1\nname = \"a\"\n";

fn document(rest: &str) -> Report {
    check(&format!("{HEAD}{rest}"))
}

fn hash(source: &str) -> String {
    let report = check(source);
    assert!(report.faults.is_empty(), "{:?}", report.faults);
    report.policy.unwrap().hash.to_string()
}

#[test]
fn keys_and_values_nested_without_end_are_refused() {
    for nested in [
        format!("a{} = 1\n", ".a".repeat(100_000)),
        format!("[a{}]\n", ".a".repeat(100_000)),
        format!("a = {}\n", "[".repeat(100_000)),
        format!("a = {}1{}\n", "[".repeat(100_000), "]".repeat(100_000)),
        format!("a = {}", "{ a = ".repeat(100_000)),
    ] {
        let report = document(&nested);
        assert_eq!(report.faults[0].kind, FaultKind::Toml);
    }
}

#[test]
fn a_document_full_of_faults_is_checked_within_seconds() {
    let mut text = String::from("[members]\n");
    for n in 0..5_000 {
        text.push_str(&format!("member_number_{n} = \"number\"\n"));
    }
    for n in 0..1_000 {
        let unknown = format!("membr_number_{n} > 1 || ").repeat(20);
        text.push_str(&format!(
            "[[rules]]\nid = \"r{n}\"\npoints = 1\nwhen = \"{unknown} member_number_1 > 1\"\n"
        ));
    }
    let begun = Instant::now();
    let report = document(&text);
    assert_eq!(report.faults.len(), 20_000);
    assert!(
        begun.elapsed() < Duration::from_secs(20),
        "{:?}",
        begun.elapsed()
    );
    assert!(
        report.faults[0]
            .message
            .contains("did you mean member_number_0?")
    );
}

#[test]
fn a_policy_with_thousands_of_rules_is_checked_within_seconds() {
    let mut text = String::from("[members]\nchannel = \"string\"\n");
    for n in 0..5_000 {
        text.push_str(&format!(
            "[[rules]]\nid = \"r{n}\"\npoints = 1\nwhen = \"channel == 'c{n}' && user_id != 'u{n}'\"\n"
        ));
    }
    let begun = Instant::now();
    let policy = document(&text).policy.unwrap();
    assert_eq!(policy.rules.len(), 5_000);
    assert!(
        begun.elapsed() < Duration::from_secs(20),
        "{:?}",
        begun.elapsed()
    );
}

#[test]
fn documents_that_say_the_same_have_one_hash() {
    let first = hash("language = 1\nname = \"a\"\n[thresholds]\nreview = 35\nblock = 70\n");
    for same in [
        "name = \"a\"\r\nlanguage = 1.0\r\n[thresholds] # a comment\r\nblock = 7_0\r\nreview = 3.5e1\r\n",
        "thresholds = { review = 0x23, block = 70.0 }\nname = 'a'\nlanguage = 1",
        "thresholds.review = 35\nthresholds.block = +70\nlanguage = 1\nname = \"\\u0061\"",
    ] {
        assert_eq!(hash(same), first, "{same}");
    }
    let other = hash("language = 1\nname = \"a\"\n[thresholds]\nreview = 35.5\nblock = 70\n");
    assert_ne!(other, first);
}

#[test]
fn line_ends_of_another_system_move_no_fault() {
    let text = "[[rules]]\nid = \"r\"\npoints = 1\nwhen = '''\namount > 1 &&\n  chanel == 'x\u{1f600}' && nothing'''\n";
    let places = |report: Report| {
        let places = report
            .faults
            .iter()
            .map(|fault| (fault.line, fault.column, fault.kind));
        places.collect::<Vec<_>>()
    };
    let expected = [
        (8, 3, FaultKind::UnknownName),
        (8, 21, FaultKind::UnknownName),
    ];
    let text = format!("{HEAD}{text}");
    assert_eq!(places(check(&text)), expected);
    assert_eq!(places(check(&text.replace('\n', "\r\n"))), expected);
}

#[test]
fn a_language_of_a_later_version_is_refused() {
    let report = check("language = 2\nname = \"a\"\n");
    assert_eq!(report.faults.len(), 1);
    assert_eq!(report.faults[0].kind, FaultKind::Value);
    assert!(report.policy.is_none());
}

#[test]
fn tables_that_belong_elsewhere_are_kept_and_their_shape_is_checked() {
    let text = "[brake]\ndecisions = 1000\n[[tests]]\nname = \"t\"\n[model]\nhash = \"x\"\n[explore]\nshare = 0.5\n";
    let policy = document(text).policy.unwrap();
    assert_eq!(
        policy.tables.brake,
        Some(serde_json::json!({"decisions": 1000}))
    );
    assert_eq!(policy.tables.tests, [serde_json::json!({"name": "t"})]);
    assert!(policy.tables.model.is_some() && policy.tables.explore.is_some());
    let faults = document("brake = 5\ntests = [1]\n").faults;
    let places: Vec<_> = faults
        .iter()
        .map(|fault| (fault.line, fault.column, fault.kind))
        .collect();
    assert_eq!(
        places,
        [(3, 9, FaultKind::Value), (4, 10, FaultKind::Value)]
    );
}

#[test]
fn the_risk_of_the_model_is_known_only_with_a_model() {
    let rule = "[[rules]]\nid = \"r\"\npoints = 1\nwhen = \"model.risk > 0.5\"\n";
    assert_eq!(document(rule).faults[0].kind, FaultKind::UnknownName);
    assert!(document(&format!("[model]\n{rule}")).policy.is_some());
}

#[test]
fn a_policy_is_shared_between_threads() {
    fn is_shared<T: Send + Sync + 'static>() {}
    is_shared::<tollgate_policy::Policy>();
}
