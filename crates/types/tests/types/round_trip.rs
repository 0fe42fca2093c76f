//! What is printed is read back the same: transactions with whatever their producers put in, and decisions.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::borrow::Cow;

use icu_normalizer::ComposingNormalizerBorrowed;
use proptest::prelude::*;
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use tollgate_types::{
    Amount, BaseAmount, Contribution, Contributions, Decision, Indicator, Location, MemberTable,
    NewTransaction, Status, Timestamp, TraceContext, Transaction,
};

const NFC: ComposingNormalizerBorrowed<'static> = ComposingNormalizerBorrowed::new_nfc();

/// An id that is accepted as it is, often with characters that JSON escapes.
fn id() -> impl Strategy<Value = String> {
    let text = prop_oneof![
        "[a-z0-9-]{1,40}",
        "[\"\\\\/é漢🦀]{1,20}",
        "[\\p{Lu}\\p{Ll}\\p{Nd}\\p{P}]{1,20}".prop_map(|text| NFC.normalize(&text).into_owned()),
        "[🦀]{32}",
    ];
    text.prop_filter("1 to 128 bytes", |id| (1..=128).contains(&id.len()))
}

/// Any JSON, nested some levels.
fn json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        (-1e300..1e300).prop_map(Value::from),
        ".{0,20}".prop_map(Value::from),
        "[\\\\\"{}\\[\\]:,\\n]{0,10}".prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 40, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::vec((".{0,8}", inner), 0..5)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

fn extra() -> impl Strategy<Value = Map<String, Value>> {
    let known = [
        "transaction_id",
        "user_id",
        "amount",
        "timestamp",
        "location",
    ];
    let name = prop_oneof!["[a-z_]{0,12}", ".{0,6}", Just("Amount".to_owned())]
        .prop_filter("not a known member", move |name| {
            !known.contains(&name.as_str())
        });
    prop::collection::vec((name, json()), 0..6).prop_map(|members| members.into_iter().collect())
}

fn amount() -> impl Strategy<Value = Amount> {
    prop_oneof![0..100_000_000_i64, 0..=Amount::MAX.ten_thousandths()]
        .prop_map(|value| Amount::from_ten_thousandths(value).unwrap())
}

fn timestamp() -> impl Strategy<Value = Timestamp> {
    (Timestamp::MIN.micros()..=Timestamp::MAX.micros())
        .prop_map(|micros| Timestamp::from_micros(micros).unwrap())
}

fn location() -> impl Strategy<Value = Option<Location>> {
    let coordinates = (-90.0..=90.0, -180.0..=180.0);
    prop::option::of(coordinates.prop_map(|(latitude, longitude)| Location {
        latitude,
        longitude,
    }))
}

prop_compose! {
    fn new_transaction()(
        transaction_id in id(),
        user_id in id(),
        amount in amount(),
        timestamp in timestamp(),
        location in location(),
        extra in extra(),
    ) -> NewTransaction {
        NewTransaction { transaction_id, user_id, amount, timestamp, location, extra }
    }
}

/// The same JSON with white space wherever it may stand, lines included.
fn spaced(json: &str, seed: u64) -> String {
    let (mut out, mut in_string, mut escaped, mut random) = (String::new(), false, false, seed);
    for character in json.chars() {
        let structural = !in_string && "{}[]:,".contains(character);
        let mut pad = |out: &mut String| {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            out.push_str(["", " ", "\n", "\r\n", "\t"][(random >> 33) as usize % 5]);
        };
        if structural {
            pad(&mut out);
        }
        out.push(character);
        if structural {
            pad(&mut out);
        }
        match character {
            _ if escaped => escaped = false,
            '\\' if in_string => escaped = true,
            '"' => in_string = !in_string,
            _ => {}
        }
    }
    out
}

/// Built-in indicators, and others of a version or a rule that this one does not know.
fn indicator() -> impl Strategy<Value = Indicator> {
    prop_oneof![
        (0..5_usize).prop_map(|index| Indicator::BUILT_IN[index]),
        (0..40_u32).prop_map(|n| Indicator::intern(&format!("rule_{n}")).unwrap()),
    ]
}

fn trace() -> impl Strategy<Value = TraceContext> {
    (1..u128::MAX, 1..u64::MAX, any::<bool>())
        .prop_map(|(trace, span, sampled)| TraceContext::new(trace, span, sampled).unwrap())
}

proptest! {
    #[test]
    fn a_transaction_read_back_is_the_one_printed_and_keeps_every_member(
        new in new_transaction(), seed: u64,
    ) {
        let printed = new.to_json();
        for text in [printed.clone(), spaced(&printed, seed)] {
            let read = Transaction::parse(text.as_bytes()).unwrap();
            prop_assert_eq!(&read.transaction_id, &new.transaction_id);
            prop_assert_eq!(&read.user_id, &new.user_id);
            prop_assert_eq!(read.amount, new.amount);
            prop_assert_eq!(read.timestamp, new.timestamp);
            prop_assert_eq!(read.location, new.location);
            prop_assert_eq!(&read.json, text.trim());
            let expected: Value = serde_json::from_str(&printed).unwrap();
            prop_assert_eq!(&serde_json::from_str::<Value>(&read.json).unwrap(), &expected);
            let line = read.one_line();
            prop_assert!(!line.contains(['\n', '\r']));
            prop_assert_eq!(&serde_json::from_str::<Value>(&line).unwrap(), &expected);
            let id = Transaction::id_of_rejected(text.as_bytes());
            prop_assert_eq!(id.as_ref(), Some(&new.transaction_id));
        }
    }

    #[test]
    fn a_transaction_in_a_trace_says_so_and_is_the_same_otherwise(
        new in new_transaction(), seed: u64, trace in trace(), own in trace(),
    ) {
        let text = spaced(&new.to_json(), seed);
        let untraced = Transaction::parse(text.as_bytes()).unwrap();
        let line = untraced.one_line_in(Some(trace));
        let traced = Transaction::parse(line.as_bytes()).unwrap();
        prop_assert_eq!(traced.trace(), Some(trace));
        prop_assert_eq!(&traced.transaction_id, &untraced.transaction_id);
        let mut members: Value = serde_json::from_str(&line).unwrap();
        members.as_object_mut().unwrap().remove("traceparent");
        prop_assert_eq!(members, serde_json::from_str::<Value>(&untraced.one_line()).unwrap());
        // The producer's own stays, also where it is none.
        for kept in [format!("\"{own}\""), "null".to_owned(), "[1]".to_owned()] {
            let text = text.trim_start().replacen('{', &format!("{{\"traceparent\":{kept},"), 1);
            let given = Transaction::parse(text.as_bytes()).unwrap();
            prop_assert_eq!(given.trace(), kept.contains('-').then_some(own));
            prop_assert_eq!(given.one_line_in(Some(trace)), given.one_line());
        }
    }

    #[test]
    fn a_decision_read_back_is_the_one_printed_to_the_bit(
        new in new_transaction(),
        seed: u64,
        score in prop_oneof![0.0..200.0, (0..400_u32).prop_map(|half| f64::from(half) / 2.0)],
        fired in prop::collection::vec(indicator(), 0..20),
        status in 0..3_usize,
        processed_at in timestamp(),
        measured in prop::collection::vec(
            (indicator(), 0.0..100.0, prop::option::of(any::<u32>()), prop::option::of(amount()),
             prop::option::of(0.0..1e12), prop::option::of(0.0..2e4)),
            0..12,
        ),
        version in id(),
        late: bool,
        duplicate: bool,
        conflict: bool,
        tenant in prop::option::of("[a-z0-9-]{1,32}"),
        trace in prop::option::of(trace()),
    ) {
        let text = spaced(&new.to_json(), seed);
        let transaction = Transaction::parse(text.as_bytes()).unwrap();
        let raw = RawValue::from_string(transaction.one_line().into_owned()).unwrap();
        let mut contributions = Contributions::default();
        for (indicator, points, count, amount, speed_kmh, distance_km) in measured {
            let amount_base = amount.map(BaseAmount::from);
            contributions.insert(Contribution { indicator, points, count, amount, amount_base, speed_kmh, distance_km });
        }
        let decision = Decision {
            transaction_id: Cow::Borrowed(&transaction.transaction_id),
            user_id: Cow::Borrowed(&transaction.user_id),
            fraud_score: score,
            fraud_indicators: fired.into_iter().collect(),
            status: Status::ALL[status],
            processed_at,
            contributions: contributions.clone(),
            ruleset_version: Cow::Borrowed(&version),
            late,
            duplicate,
            conflict,
            tenant: tenant.clone().map(Cow::Owned),
            traceparent: trace.map(|trace| trace.to_string().into()),
            transaction: &raw,
        };
        let mut line = Vec::new();
        decision.write_to(&mut line);
        prop_assert!(!line.contains(&b'\n') && !line.contains(&b'\r'));
        let read = Decision::parse(&line).unwrap();
        prop_assert_eq!(read.fraud_score.to_bits(), score.to_bits());
        prop_assert_eq!(&read.transaction_id, &decision.transaction_id);
        prop_assert_eq!(&read.user_id, &decision.user_id);
        prop_assert_eq!(read.trace(), trace);
        prop_assert_eq!(&read.fraud_indicators, &decision.fraud_indicators);
        prop_assert_eq!(read.status, decision.status);
        prop_assert_eq!(read.processed_at, decision.processed_at);
        prop_assert_eq!(&read.contributions, &contributions);
        prop_assert_eq!(contributions.indicators().iter().count(), contributions.iter().count());
        prop_assert_eq!(&read.ruleset_version, &decision.ruleset_version);
        prop_assert_eq!((read.late, read.duplicate, read.conflict), (late, duplicate, conflict));
        prop_assert_eq!(read.tenant.as_deref(), tenant.as_deref());
        prop_assert_eq!(read.transaction.get(), raw.get());
        let mut again = Vec::new();
        read.write_to(&mut again);
        prop_assert_eq!(&again, &line);
        let mut around = Vec::new();
        decision.write_around(&transaction.one_line(), &mut around);
        prop_assert_eq!(around, line);
    }

    #[test]
    fn no_bytes_make_the_reading_of_a_decision_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = Decision::parse(&bytes);
    }
}

#[test]
fn a_decision_of_a_version_that_knows_more_indicators_is_read_and_written_as_it_was() {
    let text = r#"{"transaction_id":"t","user_id":"u","fraud_score":61.5,"fraud_indicators":["high_amount","zz_new_device","card_testing"],"status":"review","processed_at":"2026-03-01T00:00:00Z","contributions":[{"indicator":"high_amount","points":26.5,"amount":"2650"},{"indicator":"zz_new_device","points":0.0},{"indicator":"card_testing","points":35.0,"count":6}],"ruleset_version":"r","late":false,"duplicate":false,"transaction":{}}"#;
    let read = Decision::parse(text.as_bytes()).unwrap();
    let names: Vec<_> = read.fraud_indicators.iter().map(Indicator::name).collect();
    assert_eq!(names, ["high_amount", "zz_new_device", "card_testing"]);
    let mut again = Vec::new();
    read.write_to(&mut again);
    assert_eq!(String::from_utf8(again).unwrap(), text);
    for name in ["", "high amount", "a,b"] {
        let broken = text.replace("card_testing", name);
        assert!(Decision::parse(broken.as_bytes()).is_err(), "{name:?}");
    }
}

#[test]
fn registered_members_are_found_in_the_pass_that_checks_the_transaction() {
    let mut table = MemberTable::default();
    let merchant = table.register("merchant_id").unwrap();
    let device = table.register("device").unwrap();
    assert_eq!(table.register("merchant_id"), Some(merchant));
    assert_eq!(table.register("amount"), None);
    let core =
        r#""transaction_id":"t","user_id":"u","amount":1,"timestamp":"2026-03-01T00:00:00Z""#;
    let text = format!(
        r#"{{"other":1,"device":{{"os":"x"}},{core},"merchant_id":"m\u00e9","merchant_id":2}}"#
    );
    let read = Transaction::parse_with(text.as_bytes(), &table).unwrap();
    assert_eq!(read.members.get(merchant), Some(r#""m\u00e9""#));
    assert_eq!(read.members.get(device), Some(r#"{"os":"x"}"#));
    let text = format!("{{{core}}}");
    let read = Transaction::parse_with(text.as_bytes(), &table).unwrap();
    assert_eq!(read.members.get(device), None);
    assert_eq!(
        Transaction::parse(text.as_bytes())
            .unwrap()
            .members
            .get(device),
        None
    );
    // More members than have room without an allocation.
    let slots: Vec<_> = (0..20)
        .map(|n| table.register(&format!("m{n}")).unwrap())
        .collect();
    let many: String = (0..20).map(|n| format!(",\"m{n}\":{n}")).collect();
    let text = format!("{{{core}{many}}}");
    let read = Transaction::parse_with(text.as_bytes(), &table).unwrap();
    for (n, slot) in slots.into_iter().enumerate() {
        assert_eq!(read.members.get(slot), Some(&*n.to_string()));
    }
    // A registered member is no way round the limit of nesting.
    let deep = format!("{{{core},\"device\":{}{}}}", "[".repeat(70), "]".repeat(70));
    assert!(Transaction::parse_with(deep.as_bytes(), &table).is_err());
}
