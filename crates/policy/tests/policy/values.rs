//! Conditions over slots, as the engine evaluates them.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use tollgate_policy::{
    Action, Aggregate, Effect, Input, Member, MemberType, Mode, Money, Policy, Slot, Slots, Value,
    check,
};
use tollgate_types::Timestamp;

const DOCUMENT: &str = r#"
language = 1
name = "values"
lists = ["trusted", "watched"]

[members]
channel = "string"
currency = "string"
fee = "money"
risk = "number"
is_vip = "bool"
"card.bin" = "string"

[[features]]
name = "count_10m"
of = "count"
window = "10m"

[[features]]
name = "fee_1d"
of = "mean"
member = "fee"
by = ["card.bin", "is_vip"]
window = "24h"
where = "channel == 'online' && risk > 0"

[[rules]]
id = "testing"
when = "count_10m >= 5 && amount < 5.00 && currency == 'EUR'"
points = 35

[[rules]]
id = "listed"
when = "channel in lists.watched && !(card.bin in lists.trusted)"
action = "review"
mode = "shadow"
rollout = 12.34

[[rules]]
id = "fees"
when = "!has(fee_1d) || fee > fee_1d * 2"
points = 0.5
mode = "off"
"#;

fn policy() -> Policy {
    let report = check(DOCUMENT);
    assert!(report.faults.is_empty(), "{:?}", report.faults);
    report.policy.unwrap()
}

fn slot(policy: &Policy, name: &str) -> Slot {
    policy.layout.entry(name).unwrap().slot
}

fn money(text: &str) -> Option<Money> {
    Money::parse_decimal(text)
}

#[test]
fn a_checked_policy_says_what_the_document_says() {
    let policy = policy();
    assert_eq!(policy.longest_window, 604_800);
    let [count, fee] = &policy.features[..] else {
        panic!("two features");
    };
    assert_eq!((count.of, count.window), (Aggregate::Count, 600));
    assert!(count.reads.is_empty());
    assert_eq!(fee.by, ["card.bin", "is_vip"]);
    let reads: Vec<(&str, MemberType)> = fee
        .reads
        .iter()
        .map(|Member { path, kind }| (path.as_str(), *kind))
        .collect();
    let expected = [
        ("card.bin", MemberType::String),
        ("channel", MemberType::String),
        ("fee", MemberType::Money),
        ("is_vip", MemberType::Bool),
        ("risk", MemberType::Number),
    ];
    assert_eq!(reads, expected);
    let [testing, listed, fees] = &policy.rules[..] else {
        panic!("three rules");
    };
    assert_eq!(testing.effect, Effect::Points(35.0));
    assert_eq!((testing.mode, testing.rollout), (Mode::Live, 10_000));
    assert!(testing.condition.compares_money);
    assert_eq!(listed.effect, Effect::Action(Action::Review));
    assert_eq!((listed.mode, listed.rollout), (Mode::Shadow, 1_234));
    assert_eq!(fees.mode, Mode::Off);
    let names: Vec<&str> = listed
        .condition
        .reads
        .iter()
        .map(|read| read.name.as_str())
        .collect();
    let expected = [
        "channel",
        "channel in lists.watched",
        "card.bin",
        "card.bin in lists.trusted",
    ];
    assert_eq!(names, expected);
}

#[test]
fn the_layout_says_what_each_slot_is_filled_with() {
    let policy = policy();
    let input = |name: &str| policy.layout.entry(name).unwrap().input.clone();
    assert_eq!(
        input("card.bin"),
        Input::Member(["card".to_owned(), "bin".to_owned()].into())
    );
    assert_eq!(input("fee_1d"), Input::Feature(1));
    let string = slot(&policy, "channel");
    assert_eq!(
        input("channel in lists.watched"),
        Input::Lookup { string, list: 1 }
    );
    let places = |name: &str| {
        policy
            .layout
            .entries()
            .iter()
            .position(|entry| entry.name == name)
    };
    assert!(places("channel") < places("channel in lists.watched"));
}

#[test]
fn a_rule_fires_only_where_its_condition_is_known_to_be_true() {
    let policy = policy();
    let rule = &policy.rules[0].condition;
    let mut slots = Slots::new(&policy.layout);
    assert_eq!(rule.evaluate(&slots), None);
    slots.set_number(slot(&policy, "count_10m"), Some(5.0));
    slots.set_money(slot(&policy, "amount"), money("4.9999"));
    assert_eq!(rule.evaluate(&slots), None);
    slots.set_string(slot(&policy, "currency"), Some("EUR"));
    assert_eq!(rule.evaluate(&slots), Some(true));
    slots.set_money(slot(&policy, "amount"), money("5"));
    assert_eq!(rule.evaluate(&slots), Some(false));
    slots.set_number(slot(&policy, "count_10m"), None);
    assert_eq!(
        rule.evaluate(&slots),
        Some(false),
        "false && unknown is false"
    );

    let fees = &policy.rules[2].condition;
    assert_eq!(fees.evaluate(&slots), Some(true), "has tells");
    slots.set_money(slot(&policy, "fee_1d"), money("1.5"));
    assert_eq!(fees.evaluate(&slots), None);
    slots.set_money(slot(&policy, "fee"), money("3.0001"));
    assert_eq!(fees.evaluate(&slots), Some(true));
}

#[test]
fn slots_that_are_used_again_remember_nothing() {
    let policy = policy();
    let mut slots = Slots::new(&policy.layout);
    {
        let text = "EUR".to_owned();
        slots.set_string(slot(&policy, "currency"), Some(&text));
        slots.set_timestamp(Timestamp::from_micros(0).unwrap());
        slots = slots.reuse(&policy.layout);
    }
    for entry in policy.layout.entries() {
        assert_eq!(slots.value(entry.slot), Value::Unknown, "{}", entry.name);
    }
    // A value of another type than the slot's is not taken.
    slots.set_bool(slot(&policy, "currency"), Some(true));
    slots.set_number(slot(&policy, "count_10m"), Some(f64::INFINITY));
    assert_eq!(slots.value(slot(&policy, "count_10m")), Value::Unknown);
}

#[test]
fn a_where_reads_slots_like_a_rule() {
    let policy = policy();
    let condition = policy.features[1].condition.as_ref().unwrap();
    let mut slots = Slots::new(&policy.layout);
    slots.set_string(slot(&policy, "channel"), Some("online"));
    slots.set_number(slot(&policy, "risk"), Some(0.5));
    assert_eq!(condition.evaluate(&slots), Some(true));
}
