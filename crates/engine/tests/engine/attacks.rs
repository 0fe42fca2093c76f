//! How a fraudster would get around the rules, and that it does not work.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::borrow::Cow;
use std::sync::Arc;

use tollgate_engine::{Engine, Origin, Rules, Sender, Verdict};
use tollgate_types::{Amount, Indicator, Location, Members, Status, Timestamp, Transaction};

const SECOND: i64 = 1_000_000;
const HOUR: i64 = 3_600 * SECOND;
const DAY: i64 = 24 * HOUR;
const START: i64 = 1_772_000_000 * SECOND;

fn engine() -> Engine {
    Engine::new(Arc::new(Rules::default()), [5; 16])
}

fn payment(
    id: &str,
    micros: i64,
    amount: &str,
    location: Option<Location>,
) -> Transaction<'static> {
    Transaction {
        transaction_id: Cow::Owned(id.to_owned()),
        user_id: Cow::Borrowed("u"),
        amount: Amount::parse_decimal(amount).unwrap(),
        timestamp: Timestamp::from_micros(micros).unwrap(),
        location,
        traceparent: None,
        currency: None,
        members: Members::default(),
        json: "".into(),
    }
}

/// A record written at this time.
fn at(micros: i64) -> Origin {
    Origin {
        timestamp_ms: Some(micros / 1_000),
        ..Origin::default()
    }
}

fn blocked(order: impl Iterator<Item = i64>) -> usize {
    const CONTINENTS: [(f64, f64); 4] = [(52.5, 13.4), (40.7, -74.0), (-33.9, 151.2), (-1.3, 36.8)];
    let mut engine = engine();
    let verdicts = order.map(|n| {
        let (latitude, longitude) = CONTINENTS[usize::try_from(n % 4).unwrap()];
        let place = Location {
            latitude,
            longitude,
        };
        let amount = format!("{}.{:02}", 1 + n / 100, n % 100);
        let payment = payment(&format!("p{n}"), START + n * 1_000, &amount, Some(place));
        engine.score(&payment, &Origin::default())
    });
    verdicts
        .filter(|verdict| verdict.status == Status::Blocked)
        .count()
}

#[test]
fn payments_sent_newest_first_are_blocked_as_those_sent_in_order() {
    assert_eq!(blocked(0..2_000), 1_995);
    assert_eq!(blocked((0..2_000).rev()), 1_995);
    // Neither does any other order help; 7 and 2,000 have no common divisor.
    assert_eq!(blocked((0..2_000).map(|n| n * 7 % 2_000)), 1_995);
}

#[test]
fn payments_with_made_up_timestamps_hours_apart_are_counted_by_their_arrival() {
    let mut engine = engine();
    let now = START + 3 * DAY;
    let verdicts: Vec<Verdict> = (0..20)
        .map(|n| {
            let payment = payment(&format!("p{n}"), now - n * 3 * HOUR, "1500", None);
            engine.score(&payment, &at(now + n * SECOND))
        })
        .collect();
    for (n, verdict) in verdicts.iter().enumerate() {
        let counted = verdict.contributions.iter().find_map(|each| each.count);
        let expected = (n >= 4).then(|| u32::try_from(n + 1).unwrap());
        assert_eq!(counted, expected);
        assert_eq!(verdict.status == Status::Review, n >= 4);
    }
    // As an import they are no burst.
    let backfill = Origin {
        backfill: true,
        ..at(now)
    };
    let imported = engine.score(&payment("p20", now, "1500", None), &backfill);
    assert!(!imported.indicators.contains(Indicator::HIGH_VELOCITY));
}

#[test]
fn old_payments_behind_a_current_one_are_late_and_reviewed() {
    let mut engine = engine();
    engine.score(&payment("current", START, "1", None), &at(START));
    for n in 0..20 {
        let old = payment(&format!("p{n}"), START - 8 * DAY + n, "12.34", None);
        let verdict = engine.score(&old, &at(START + n));
        assert!(verdict.late);
        assert_eq!((verdict.score, verdict.status), (0.0, Status::Review));
        let backfill = Origin {
            backfill: true,
            ..at(START + n)
        };
        let verdict = engine.score(&old, &backfill);
        assert!(verdict.late);
        assert_eq!(verdict.status, Status::Approved, "backfill may be late");
    }
}

#[test]
fn a_known_id_with_another_amount_is_a_conflict_and_no_duplicate() {
    let mut engine = engine();
    let first = engine.score(&payment("id", START, "1.00", None), &at(START));
    assert_eq!((first.score, first.status), (0.0, Status::Approved));
    for again in 0..3 {
        let other = engine.score(&payment("id", START, "98765.00", None), &at(START + again));
        assert!(other.conflict && !other.duplicate);
        assert_eq!((other.score, other.status), (90.0, Status::Blocked));
        let indicators: Vec<_> = other.indicators.iter().collect();
        assert_eq!(
            indicators,
            [Indicator::HIGH_AMOUNT, Indicator::CONFLICTING_DUPLICATE]
        );
        let same = engine.score(&payment("id", START + again, "1.0", None), &at(START));
        assert!(same.duplicate && !same.conflict);
        assert_eq!(same.score.to_bits(), first.score.to_bits());
    }
    let harmless = engine.score(&payment("id", START, "1.01", None), &at(START));
    assert_eq!((harmless.score, harmless.status), (40.0, Status::Review));
    assert_eq!(engine.transactions(), 1, "a conflict enters no history");
}

#[test]
fn the_verdict_on_an_id_is_foreign_to_any_other_sender() {
    let from = |name: &[u8]| Origin {
        sender: Sender::from_header(name),
        ..Origin::default()
    };
    let mut engine = engine();
    let own = from(b"00112233aabbccdd");
    engine.score(&payment("id", START, "1", None), &own);
    let again = engine.score(&payment("id", START, "1", None), &own);
    assert!(again.duplicate && !again.foreign);
    for other in [from(b"ffeeddccbbaa0099"), from(b"")] {
        let probe = engine.score(&payment("id", START, "1", None), &other);
        assert!(probe.duplicate && probe.foreign);
    }
    engine.score(&payment("nobody's", START, "1", None), &from(b""));
    assert!(
        !engine
            .score(&payment("nobody's", START, "1", None), &own)
            .foreign
    );
}

#[test]
fn the_jitter_of_a_receiver_and_a_place_of_zero_are_no_travel() {
    let place = |latitude, longitude| {
        Some(Location {
            latitude,
            longitude,
        })
    };
    let mut engine = engine();
    for (n, location) in [
        place(52.5, 13.4),
        place(52.500_3, 13.4),
        place(0.0, -0.0),
        place(52.5, 13.4),
    ]
    .into_iter()
    .enumerate()
    {
        let time = START + i64::try_from(n).unwrap() * SECOND / 10;
        let verdict = engine.score(&payment(&format!("p{n}"), time, "1.5", location), &at(time));
        assert!(!verdict.indicators.contains(Indicator::GEOGRAPHIC_ANOMALY));
    }
}

#[test]
fn a_user_with_more_transactions_than_are_remembered_is_reviewed() {
    let rules = Rules {
        max_user_transactions: 1_000,
        ..Rules::default()
    };
    let mut engine = Engine::new(Arc::new(rules), [5; 16]);
    let mut score = |n: i64, amount: &str| {
        let time = START + n * 400 * SECOND;
        engine.score(&payment(&format!("p{n}"), time, amount, None), &at(time))
    };
    for n in 0..=1_000 {
        let verdict = score(n, &format!("{n}.01"));
        assert!(!verdict.approximate && verdict.status == Status::Approved);
    }
    // The oldest was dropped for the thousand-and-first.
    let verdict = score(1_001, "7.77");
    assert!(verdict.approximate);
    assert_eq!((verdict.score, verdict.status), (0.0, Status::Review));
    assert!(!score(0, "0.01").duplicate, "its id is forgotten");
    // After a week and an hour nothing that was dropped would be visible any more.
    let verdict = score(3_000, "8.88");
    assert!(!verdict.approximate && verdict.status == Status::Approved);
}
