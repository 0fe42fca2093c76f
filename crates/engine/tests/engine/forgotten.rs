//! Users without records are forgotten as the log goes on, and no score depends on it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;

use tollgate_engine::{Engine, Origin, Rules, Verdict};
use tollgate_types::{Timestamp, Transaction};

use crate::stream::{self, Places, Random};

const HOUR: i64 = 3_600;
const DAY: i64 = 24 * HOUR;
const START: i64 = 1_772_000_000;

fn engine() -> Engine {
    Engine::new(Arc::new(Rules::default()), [4; 16])
}

fn at(seconds: i64) -> Origin {
    Origin {
        timestamp_ms: Some(seconds * 1_000),
        ..Origin::default()
    }
}

fn pay(engine: &mut Engine, random: &mut Random, user: u64, seconds: i64) -> Verdict {
    let payment = stream::transaction(random, user, seconds, Places::SixDecimals);
    engine.score(&payment, &at(seconds))
}

#[test]
fn users_without_a_record_for_twelve_days_take_no_memory() {
    const MADE_UP: u64 = 50_000;
    let (mut engine, mut random) = (engine(), Random(1));
    for user in 0..MADE_UP {
        pay(&mut engine, &mut random, user, START);
    }
    let full = engine.memory_bytes();
    // One user goes on for 12 days.
    for n in 0..5_000 {
        pay(
            &mut engine,
            &mut random,
            MADE_UP,
            START + n * 12 * DAY / 5_000,
        );
    }
    assert_eq!(engine.users(), usize::try_from(MADE_UP).unwrap() + 1);
    for n in 0..30_000 {
        pay(
            &mut engine,
            &mut random,
            MADE_UP,
            START + 13 * DAY + n / 100,
        );
    }
    assert_eq!(engine.users(), 1);
    assert!(
        engine.memory_bytes() < full / 2,
        "{} of {full} bytes",
        engine.memory_bytes()
    );
    let mut written = Vec::new();
    engine.write_histories(&mut written);
    let mut restored = self::engine();
    restored.read_histories(&written, |_| true).unwrap();
    assert_eq!(restored.users(), 1);
    assert_eq!(restored.transactions(), engine.transactions());
}

/// Payments of a user who pauses for days and weeks, with timestamps up to three days older than their records.
fn payments() -> Vec<(Transaction<'static>, i64)> {
    let mut random = Random(2);
    let mut now = START;
    (0..300)
        .map(|_| {
            now += match random.below(4) {
                0 => i64::try_from(random.below(20)).unwrap() * DAY,
                1 => 7 * DAY,
                _ => 60,
            };
            let age = i64::try_from(random.below(72)).unwrap() * HOUR;
            let mut payment = stream::transaction(&mut random, 7, now, Places::SixDecimals);
            payment.timestamp = Timestamp::from_micros((now - age) * 1_000_000).unwrap();
            (payment, now)
        })
        .collect()
}

#[test]
fn a_users_scores_are_the_same_whatever_other_users_do_in_between() {
    let (mut alone, mut among, mut random) = (engine(), engine(), Random(3));
    for (payment, now) in payments() {
        for _ in 0..1_100 {
            let other = 100 + random.below(50);
            pay(&mut among, &mut random, other, now);
        }
        // The other engine sees no other records, so that nobody is swept there.
        assert_eq!(
            among.score(&payment, &at(now)),
            alone.score(&payment, &at(now))
        );
    }
}

#[test]
fn a_user_is_forgotten_when_the_log_is_five_days_beyond_the_lookback_of_the_latest_record() {
    let lookback = 7 * DAY + HOUR;
    for (pause, kept) in [
        (lookback + 5 * DAY, true),
        (lookback + 5 * DAY + 2 * HOUR, false),
    ] {
        let mut engine = engine();
        let mut random = Random(4);
        let first = stream::transaction(&mut random, 1, START, Places::None);
        engine.score(&first, &at(START));
        // As many as the time of the log is reckoned by, and a few.
        for n in 0..2_100 {
            pay(&mut engine, &mut random, 2, START + pause + n / 100);
        }
        assert_eq!(engine.users(), if kept { 2 } else { 1 });
        assert_eq!(engine.score(&first, &at(START + pause)).duplicate, kept);
    }
}
