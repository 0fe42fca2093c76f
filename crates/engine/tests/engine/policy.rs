//! Deciding by policies: the vectors of an independent implementation, and histories that move under a policy.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tollgate_engine::{Control, Engine, MarkerOutcome, Origin, Rules};
use tollgate_types::{Tenant, Timestamp, Transaction};

const KEY: [u8; 16] = [9; 16];

fn engine() -> Engine {
    let mut engine = Engine::new(Arc::new(Rules::default()), KEY);
    engine.follow_changes();
    engine
}

/// The lines of the vectors, which are kept compressed: as they are they have 2.8 MB.
fn golden() -> String {
    let bytes = zstd::decode_all(&include_bytes!("../data/policy-golden.jsonl.zst")[..]).unwrap();
    String::from_utf8(bytes).unwrap()
}

/// The decision, without the members that a vector does not have. The transaction in it need not be what a float can hold.
fn decision(engine: &mut Engine, transaction: &str, origin: &Origin) -> Value {
    let transaction = Transaction::parse(transaction.as_bytes()).unwrap();
    let mut out = Vec::new();
    engine.score(&transaction, origin).write_decision(
        Tenant::DEFAULT,
        &transaction,
        Timestamp::from_micros(0).unwrap(),
        "",
        None,
        &mut out,
    );
    let mut members: BTreeMap<String, &RawValue> = serde_json::from_slice(&out).unwrap();
    for addition in ["processed_at", "ruleset_version", "transaction"] {
        members.remove(addition).unwrap();
    }
    let members = members.into_iter();
    members
        .map(|(name, value)| (name, serde_json::from_str::<Value>(value.get()).unwrap()))
        .collect()
}

/// Equal, numbers by value.
fn same(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Number(one), Value::Number(other)) => one.as_f64() == other.as_f64(),
        (Value::Array(one), Value::Array(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(one, other)| same(one, other))
        }
        (Value::Object(one), Value::Object(other)) => {
            one.len() == other.len()
                && one
                    .iter()
                    .all(|(key, value)| other.get(key).is_some_and(|other| same(value, other)))
        }
        _ => one == other,
    }
}

fn outcome(outcome: &MarkerOutcome<'_>) -> &'static str {
    match outcome {
        MarkerOutcome::InForce => "in_force",
        MarkerOutcome::NothingNew => "nothing_new",
        MarkerOutcome::UnknownChange => "unknown_change",
        MarkerOutcome::Stopped { .. } => "stopped",
    }
}

/// A line of the vectors: a change, a marker or a transaction.
#[derive(Deserialize)]
struct Vector<'a> {
    change: Option<u64>,
    marker: Option<u64>,
    outcome: Option<String>,
    #[serde(borrow)]
    transaction: Option<&'a RawValue>,
    decision: Option<Value>,
}

/// Goes over all vectors; `disturb` may replace the engine before each.
fn reproduce(mut disturb: impl FnMut(usize, Engine) -> Engine) -> (usize, usize) {
    let (mut engine, mut control) = (engine(), Control::default());
    let (mut decisions, mut markers, mut stopped) = (0, 0, false);
    for (number, line) in (1..).zip(golden().lines()) {
        engine = disturb(number, engine);
        let vector: Vector<'_> = serde_json::from_str(line).unwrap();
        if vector.change.is_some() {
            control.append(line.as_bytes());
        } else if let Some(marker) = vector.marker {
            let found = control.pass_marker(marker, None, &mut engine);
            assert_eq!(
                Some(outcome(&found)),
                vector.outcome.as_deref(),
                "line {number}"
            );
            stopped |= matches!(found, MarkerOutcome::Stopped { .. });
            markers += 1;
        } else {
            decisions += 1;
            let Some(expected) = vector.decision else {
                assert!(stopped, "line {number}");
                continue;
            };
            let transaction = vector.transaction.unwrap().get();
            let found = decision(&mut engine, transaction, &Origin::default());
            assert!(
                same(&found, &expected),
                "line {number}:\n{transaction}\nis      {found}\nshould  {expected}"
            );
        }
    }
    (decisions, markers)
}

#[test]
fn every_vector_of_policies_is_reproduced() {
    assert_eq!(reproduce(|_, engine| engine), (2_538, 162));
}

fn moved(old: &Engine) -> Engine {
    let mut written = Vec::new();
    old.write_histories(&mut written);
    let mut new = Engine::new(Arc::new(Rules::default()), KEY);
    new.read_histories(&written, |_| true).unwrap();
    assert_eq!(new.transactions(), old.transactions());
    assert_eq!(new.policy(), old.policy());
    assert_eq!(new.next_change(), old.next_change());
    new
}

#[test]
fn every_vector_of_policies_is_reproduced_by_engines_that_go_on_from_written_histories() {
    let moved_engine = |number: usize, engine: Engine| {
        if number.is_multiple_of(97) {
            moved(&engine)
        } else {
            engine
        }
    };
    assert_eq!(reproduce(moved_engine), (2_538, 162));
}

fn policy_change(document: &str, expects: Option<u64>) -> Vec<u8> {
    let report = tollgate_policy::check(document);
    let policy = report
        .policy
        .unwrap_or_else(|| panic!("{:?}", report.faults));
    let change = json!({"kind": "policy", "document": document, "hash": policy.hash.to_string(), "expects": expects});
    serde_json::to_vec(&change).unwrap()
}

#[test]
fn a_policy_that_expects_another_than_the_one_in_force_is_ignored() {
    let (mut engine, mut control) = (engine(), Control::default());
    let document = |name: &str| format!("language = 1\nname = \"{name}\"\n");
    control.append(&policy_change(&document("a"), None));
    control.append(&policy_change(&document("b"), None));
    control.append(&policy_change(&document("c"), Some(0)));
    for (marker, in_force) in [(0, 0), (1, 0), (2, 2)] {
        control.pass_marker(marker, None, &mut engine);
        assert_eq!(engine.policy().unwrap().change, Some(in_force));
    }
}

#[test]
fn a_marker_with_another_hash_than_the_changes_puts_nothing_in_force() {
    let (mut engine, mut control) = (engine(), Control::default());
    let change = policy_change("language = 1\nname = \"a\"\n", None);
    control.append(&change);
    let found = control.pass_marker(0, Some(&[0; 32]), &mut engine);
    assert_eq!(outcome(&found), "unknown_change");
    assert_eq!(engine.policy().unwrap().change, None);
    use sha2::Digest as _;
    let hash = sha2::Sha256::digest(&change).into();
    let found = control.pass_marker(0, Some(&hash), &mut engine);
    assert_eq!(outcome(&found), "in_force");
}

#[test]
fn changes_that_cannot_be_read_stop_the_engine_whatever_is_wrong() {
    let good = policy_change("language = 1\nname = \"a\"\n", None);
    let good = String::from_utf8(good).unwrap();
    for wrong in [
        "",
        "{",
        "[]",
        "{}",
        r#"{"kind": "telepathy"}"#,
        r#"{"kind": "list"}"#,
        r#"{"kind": "list", "name": "x", "add": [{"value": 1}]}"#,
        r#"{"kind": "list", "name": "x", "add": [{"value": "a", "expires_at": "soon"}]}"#,
        r#"{"kind": "suppression", "rule": "x", "user_id": "u"}"#,
        &good.replace("language = 1", "language = 2"),
        &good.replace("\\\"a\\\"", "\\\"b\\\""),
    ] {
        let (mut engine, mut control) = (engine(), Control::default());
        control.append(wrong.as_bytes());
        control.append(br#"{"kind": "model"}"#);
        let found = control.pass_marker(1, None, &mut engine);
        assert!(
            matches!(found, MarkerOutcome::Stopped { change: 0, .. }),
            "{wrong}"
        );
    }
}

#[test]
fn the_built_in_policy_is_named_by_what_differs_from_the_defaults() {
    let hash = |document: &str| {
        tollgate_policy::check(document)
            .policy
            .unwrap()
            .hash
            .to_string()
    };
    let plain = "language = 1\nname = \"built-in\"\n";
    assert_eq!(&*engine().policy().unwrap().hash, hash(plain));
    let mut rules = Rules::default();
    rules.status.blocked = 71.5;
    rules.high_velocity.minimum_count = 6;
    rules.geographic_anomaly.null_island = false;
    let mut engine = Engine::new(Arc::new(rules), KEY);
    engine.follow_changes();
    let document = format!(
        "{plain}[thresholds]\nblock = 71.5\n[builtin.high_velocity]\nminimum_count = 6\n\
         [builtin.geographic_anomaly]\nnull_island = false\n"
    );
    assert_eq!(&*engine.policy().unwrap().hash, hash(&document));
}
