//! Features against a plain model: whole histories, every value computed anew, for random policies, orders, policies that
//! follow one another, and engines that go on from written histories.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Value, json};
use tollgate_engine::{Control, Engine, Origin, Rules, Shown};
use tollgate_types::{Timestamp, Transaction};

const KEY: [u8; 16] = [4; 16];
const MINUTE: i64 = 60_000_000;
const DAY: i64 = 1_440 * MINUTE;
const KINDS: [&str; 4] = ["online", "pos", "", "Straße"];

#[derive(Debug, Clone)]
struct FeatureCase {
    of: &'static str,
    member: Option<&'static str>,
    by: Vec<&'static str>,
    minutes: i64,
    condition: Option<&'static str>,
}

#[derive(Debug, Clone)]
struct Payment {
    /// Microseconds since 1970.
    time: i64,
    user: u8,
    amount: i64,
    channel: Option<usize>,
    risk: Option<i32>,
    vip: Option<bool>,
}

#[derive(Debug, Clone)]
enum Step {
    Pay(Payment),
    Policy(Vec<FeatureCase>),
    Move,
}

fn feature() -> impl Strategy<Value = FeatureCase> {
    let of = select(vec![
        ("count", None),
        ("seconds_since_last", None),
        ("seconds_since_first", None),
        ("distinct", Some("channel")),
        ("sum", Some("amount")),
        ("mean", Some("amount")),
        ("min", Some("amount")),
        ("max", Some("amount")),
        ("sum", Some("risk")),
        ("mean", Some("risk")),
        ("min", Some("risk")),
        ("max", Some("risk")),
    ]);
    let by = select(vec![
        vec![],
        vec!["channel"],
        vec!["vip"],
        vec!["amount"],
        vec!["vip", "channel"],
    ]);
    let condition = select(vec![
        None,
        Some("channel == 'online'"),
        Some("amount > 2 && vip"),
        Some("!has(risk)"),
    ]);
    let minutes = select(vec![1, 10, 1_440, 10_080, 14_400]);
    (of, by, minutes, condition).prop_map(|((of, member), by, minutes, condition)| FeatureCase {
        of,
        member,
        by,
        minutes,
        condition,
    })
}

fn step() -> impl Strategy<Value = Step> {
    let ahead = prop_oneof![
        6 => 0..20 * MINUTE,
        2 => select(vec![0, MINUTE, 10 * MINUTE, DAY]),
        2 => 0..4 * DAY,
        3 => -3 * DAY..0,
    ];
    let payment = (
        ahead,
        0..2_u8,
        select(vec![0, 1, 10_000, 20_000, 30_001]),
        prop::option::weighted(0.8, 0..KINDS.len()),
        prop::option::weighted(0.8, -3..4_i32),
        prop::option::of(any::<bool>()),
    );
    prop_oneof![
        30 => payment.prop_map(|(time, user, amount, channel, risk, vip)| {
            Step::Pay(Payment { time, user, amount, channel, risk, vip })
        }),
        2 => prop::collection::vec(feature(), 1..6).prop_map(Step::Policy),
        1 => Just(Step::Move),
    ]
}

/// The rules of features read literally.
#[derive(Default)]
struct Model {
    features: Vec<FeatureCase>,
    lookback: i64,
    rows: BTreeMap<u8, Vec<Payment>>,
    newest: Option<i64>,
    held: BTreeMap<&'static str, Option<i64>>,
}

impl Model {
    fn publish(&mut self, features: &[FeatureCase]) {
        let longest = features.iter().map(|each| each.minutes).max().unwrap() * MINUTE;
        let grown = self.lookback.max(longest + 60 * MINUTE);
        if let (true, Some(newest)) = (grown > self.lookback, self.newest) {
            for since in self.held.values_mut() {
                *since = (*since).max(Some(newest - self.lookback));
            }
        }
        self.lookback = grown;
        for feature in features {
            for member in reads(feature) {
                self.held.entry(member).or_insert(self.newest);
            }
        }
        self.features = features.to_vec();
    }

    fn decide(&mut self, payment: &Payment) -> Vec<Option<f64>> {
        for since in self.held.values_mut() {
            since.get_or_insert(payment.time);
        }
        let rows = self.rows.entry(payment.user).or_default();
        let newest = rows.iter().map(|row| row.time).fold(payment.time, i64::max);
        let mut all = rows.clone();
        let at = all.partition_point(|row| row.time <= payment.time);
        all.insert(at, payment.clone());
        let values = self.features.iter().map(|feature| {
            let start = payment.time - feature.minutes * MINUTE;
            let held = reads(feature);
            let held = held.iter().map(|member| self.held[member].unwrap());
            let since = held.fold(self.held[""].unwrap(), i64::max);
            if start < since || start < newest - self.lookback {
                return None;
            }
            value(feature, &all, at)
        });
        let values = values.collect();
        if payment.time >= newest - self.lookback {
            all.retain(|row| row.time >= newest - self.lookback);
            *rows = all;
            self.newest = self.newest.max(Some(payment.time));
        }
        values
    }
}

fn reads(feature: &FeatureCase) -> BTreeSet<&'static str> {
    let mut found: BTreeSet<_> = feature.by.iter().copied().chain(feature.member).collect();
    match feature.condition {
        Some(text) if text.contains("channel") => found.insert("channel"),
        Some(text) if text.contains("vip") => found.insert("vip"),
        Some(_) => found.insert("risk"),
        None => false,
    };
    found.remove("amount");
    found
}

fn key(feature: &FeatureCase, row: &Payment) -> Option<Vec<String>> {
    let parts = feature.by.iter().map(|member| match *member {
        "channel" => row.channel.map(|at| KINDS[at].to_owned()),
        "vip" => row.vip.map(|vip| vip.to_string()),
        _ => Some(row.amount.to_string()),
    });
    parts.collect()
}

fn holds(feature: &FeatureCase, row: &Payment) -> bool {
    match feature.condition {
        None => true,
        Some(text) if text.contains("channel") => row.channel == Some(0),
        Some(text) if text.contains("vip") => row.amount > 20_000 && row.vip == Some(true),
        Some(_) => row.risk.is_none(),
    }
}

/// The value over these rows, of which the one at `own` is decided on. Money is in ten-thousandths.
fn value(feature: &FeatureCase, rows: &[Payment], own: usize) -> Option<f64> {
    let payment = &rows[own];
    let wanted = key(feature, payment)?;
    let found: Vec<(usize, &Payment)> = rows
        .iter()
        .enumerate()
        .filter(|(_, row)| (row.time - payment.time).abs() < feature.minutes * MINUTE)
        .filter(|(_, row)| key(feature, row).as_ref() == Some(&wanted) && holds(feature, row))
        .collect();
    let seconds = |micros: i64| micros as f64 / 1e6;
    let is_money = feature.member == Some("amount");
    let values: Vec<f64> = found
        .iter()
        .filter_map(|(_, row)| match is_money {
            true => Some(row.amount as f64),
            false => row.risk.map(|risk| f64::from(risk) / 10.0),
        })
        .collect();
    let sum = values.iter().fold(0.0, |sum, value| sum + value);
    let mean = (!values.is_empty()).then(|| sum / values.len() as f64);
    match feature.of {
        "count" => Some(found.len() as f64),
        "seconds_since_last" => found
            .iter()
            .filter(|(at, _)| *at != own)
            .map(|(_, row)| seconds((row.time - payment.time).abs()))
            .reduce(f64::min),
        "seconds_since_first" => {
            let first = found.first()?.1.time;
            (first <= payment.time).then(|| seconds(payment.time - first))
        }
        "distinct" => {
            let texts: BTreeSet<_> = found.iter().filter_map(|(_, row)| row.channel).collect();
            Some(texts.len() as f64)
        }
        "sum" => Some(sum),
        "mean" if is_money => mean.map(f64::round_ties_even),
        "mean" => mean,
        "min" => values.into_iter().reduce(f64::min),
        _ => values.into_iter().reduce(f64::max),
    }
}

fn document(features: &[FeatureCase]) -> String {
    let mut text = String::from(
        "language = 1\nname = \"random\"\n[members]\nchannel = \"string\"\nrisk = \"number\"\nvip = \"bool\"\n",
    );
    let mut known = Vec::new();
    for (number, feature) in features.iter().enumerate() {
        text += &format!(
            "[[features]]\nname = \"f{number}\"\nof = \"{}\"\nwindow = \"{}m\"\nby = {:?}\n",
            feature.of, feature.minutes, feature.by
        );
        if let Some(member) = feature.member {
            text += &format!("member = \"{member}\"\n");
        }
        if let Some(condition) = feature.condition {
            text += &format!("where = \"{condition}\"\n");
        }
        known.push(format!("has(f{number}) || !has(f{number})"));
    }
    text + &format!(
        "[[rules]]\nid = \"probe\"\nwhen = \"{}\"\npoints = 0\n",
        known.join(" || ")
    )
}

fn transaction(number: usize, payment: &Payment) -> String {
    let members: Value = json!({
        "transaction_id": format!("t{number}"),
        "user_id": format!("u{}", payment.user),
        "amount": format!("{}.{:04}", payment.amount / 10_000, payment.amount % 10_000),
        "timestamp": Timestamp::from_micros(payment.time).unwrap().to_string(),
        "channel": payment.channel.map(|at| KINDS[at]),
        "risk": payment.risk.map(|risk| f64::from(risk) / 10.0),
        "vip": payment.vip,
    });
    members.to_string()
}

fn shown(value: &Shown, is_money: bool) -> Option<f64> {
    match value {
        Shown::Number(number) => Some(*number),
        Shown::Text(text) if is_money => Some((text.parse::<f64>().unwrap() * 10_000.0).round()),
        Shown::Unknown => None,
        other => panic!("{other:?}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn every_feature_is_that_of_a_model_that_computes_it_anew(
        first in prop::collection::vec(feature(), 1..6), steps in prop::collection::vec(step(), 1..120),
    ) {
        let mut engine = Engine::new(Arc::new(Rules::default()), KEY);
        engine.follow_changes();
        let mut control = Control::default();
        let mut model = Model { lookback: 7 * DAY + 60 * MINUTE, ..Model::default() };
        model.held.insert("", None);
        let mut now = 20_000 * DAY;
        let mut in_force = None;
        let steps = std::iter::once(Step::Policy(first)).chain(steps);
        for (number, step) in steps.enumerate() {
            match step {
                Step::Policy(features) => {
                    let document = document(&features);
                    let hash = tollgate_policy::check(&document).policy.unwrap().hash.to_string();
                    let change = json!({"kind": "policy", "document": document, "hash": hash, "expects": in_force});
                    let change = control.append(change.to_string().as_bytes());
                    control.pass_marker(change, None, &mut engine);
                    in_force = Some(change);
                    model.publish(&features);
                }
                Step::Move => {
                    let mut written = Vec::new();
                    engine.write_histories(&mut written);
                    engine = Engine::new(Arc::new(Rules::default()), KEY);
                    engine.read_histories(&written, |_| true).unwrap();
                }
                Step::Pay(mut payment) => {
                    payment.time += now;
                    now = now.max(payment.time);
                    let text = transaction(number, &payment);
                    let transaction = Transaction::parse(text.as_bytes()).unwrap();
                    let verdict = engine.score(&transaction, &Origin::default());
                    let expected = model.decide(&payment);
                    let ruling = verdict.ruling.unwrap();
                    let probe = ruling.contributions.iter().find(|fired| fired.indicator == "probe").unwrap();
                    let values: Vec<_> = probe.values.iter().zip(&model.features)
                        .map(|((_, value), feature)| shown(value, feature.member == Some("amount")))
                        .collect();
                    prop_assert_eq!(values, expected, "step {}: {:?} by {:?}", number, payment, model.features);
                }
            }
        }
        let rows: usize = model.rows.values().map(Vec::len).sum();
        prop_assert_eq!(engine.transactions(), rows);
    }
}
