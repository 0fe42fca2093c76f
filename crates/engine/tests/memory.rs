//! What a history costs, counted by the allocator.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test fails by panicking, and prints its figures"
)]

mod stream;

use std::alloc::System;
use std::sync::{Arc, Mutex, PoisonError};

use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};
use stream::{Places, Random, transaction};
use tollgate_engine::{Engine, Origin, Rules};
use tollgate_types::Amount;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// The allocator counts for the whole process: one measurement at a time.
static ALONE: Mutex<()> = Mutex::new(());

const DAY: i64 = 86_400;
/// Header and rounding that the system's allocator adds to an allocation.
const OVERHEAD: usize = 16;

/// Bytes in use, with the allocator's own.
fn in_use() -> usize {
    let stats = ALLOCATOR.stats();
    stats.bytes_allocated - stats.bytes_deallocated
        + (stats.allocations - stats.deallocations) * OVERHEAD
}

fn engine() -> Engine {
    Engine::new(Arc::new(Rules::default()), [9; 16])
}

struct Case {
    users: u64,
    each: i64,
    places: Places,
    /// Of a hundred transactions, those with a high amount.
    flagged: u64,
}

/// Bytes for each transaction beyond 200 for each user.
fn measure(case: &Case) -> f64 {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let before = in_use();
    let mut engine = engine();
    let mut random = Random(1);
    for turn in 0..case.each {
        for user in 0..case.users {
            let seconds = turn * (7 * DAY / case.each) + i64::try_from(user % 1_000).unwrap();
            let mut transaction = transaction(&mut random, user, seconds, case.places);
            if random.below(100) < case.flagged {
                transaction.amount = Amount::parse_decimal("1234.56").unwrap();
            }
            engine.score(&transaction, &Origin::default());
        }
    }
    let used = in_use() - before;
    let (users, transactions) = (engine.users(), engine.transactions());
    assert_eq!(u64::try_from(users).unwrap(), case.users);
    assert_eq!(transactions, users * usize::try_from(case.each).unwrap());
    let reported = engine.memory_bytes();
    assert!(
        reported.abs_diff(used) <= used / 50,
        "the engine reports {reported} bytes, the allocator {used}"
    );
    let each = (used as f64 - 200.0 * users as f64) / transactions as f64;
    println!(
        "{users} users x {} transactions, {:?}, {} % flagged: {:.1} MB, {:.1} bytes a transaction in all, \
         {each:.1} beyond 200 a user",
        case.each,
        case.places,
        case.flagged,
        used as f64 / 1e6,
        used as f64 / transactions as f64,
    );
    each
}

#[test]
fn a_remembered_transaction_costs_at_most_42_bytes_and_a_user_200() {
    for (users, each, places, flagged) in [
        (10_000, 1, Places::None, 0),
        (10_000, 1, Places::SixDecimals, 20),
        (10_000, 2, Places::SixDecimals, 20),
        (10_000, 7, Places::SixDecimals, 0),
        (10_000, 7, Places::SixDecimals, 20),
        (10_000, 100, Places::SixDecimals, 0),
        (10_000, 100, Places::SixDecimals, 20),
        (400, 500, Places::SixDecimals, 20),
    ] {
        let bytes = measure(&Case {
            users,
            each,
            places,
            flagged,
        });
        assert!(bytes <= 42.0, "{bytes} bytes");
    }
}

#[test]
fn the_indexes_of_a_long_history_cost_at_most_as_much_again() {
    for flagged in [0, 20] {
        let bytes = measure(&Case {
            users: 20,
            each: 10_000,
            places: Places::SixDecimals,
            flagged,
        });
        assert!(bytes <= 84.0, "{bytes} bytes");
    }
}

#[test]
fn full_precision_coordinates_cost_at_most_eight_bytes_more() {
    for flagged in [0, 20] {
        let bytes = measure(&Case {
            users: 10_000,
            each: 100,
            places: Places::Full,
            flagged,
        });
        assert!(bytes <= 50.0, "{bytes} bytes");
    }
}

#[test]
fn a_year_of_a_steady_user_takes_no_more_memory_than_a_month() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let before = in_use();
    let mut engine = engine();
    let mut random = Random(2);
    let mut after_a_month = 0;
    for minute in 0..365 * 24 * 60 {
        // One a minute: ten thousand remembered, each of them flagged for velocity.
        let mut transaction = transaction(&mut random, 1, minute * 60, Places::SixDecimals);
        if minute % 5 == 0 {
            transaction.amount = Amount::MAX;
        }
        engine.score(&transaction, &Origin::default());
        let used = in_use() - before - transaction.transaction_id.len() - transaction.user_id.len();
        if minute == 30 * 24 * 60 {
            after_a_month = used;
        }
        if minute > 30 * 24 * 60 {
            assert!(
                used <= after_a_month + after_a_month / 20,
                "{used} bytes at minute {minute}"
            );
        }
    }
    assert_eq!(engine.transactions(), 7 * 24 * 60 + 60 + 1);
    println!(
        "a steady user: {after_a_month} bytes after a month, {} after a year",
        in_use() - before
    );
}

#[test]
fn memory_is_freed_when_a_busy_user_returns_after_a_long_pause() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut engine = engine();
    let mut random = Random(3);
    let fresh = {
        engine.score(
            &transaction(&mut random, 1, 0, Places::Full),
            &Origin::default(),
        );
        engine.memory_bytes()
    };
    for second in 1..10_000 {
        engine.score(
            &transaction(&mut random, 1, second, Places::Full),
            &Origin::default(),
        );
    }
    assert!(engine.memory_bytes() > fresh + 400_000);
    engine.score(
        &transaction(&mut random, 1, 30 * DAY, Places::Full),
        &Origin::default(),
    );
    assert_eq!((engine.transactions(), engine.memory_bytes()), (1, fresh));
}

#[test]
fn a_score_allocates_only_to_grow() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut engine = engine();
    let mut random = Random(4);
    let stream: Vec<_> = (0..10_000)
        .map(|n| transaction(&mut random, 1, n, Places::SixDecimals))
        .collect();
    let before = ALLOCATOR.stats().allocations;
    for transaction in &stream {
        engine.score(transaction, &Origin::default());
    }
    let allocations = ALLOCATOR.stats().allocations - before;
    println!("10000 scores of one user: {allocations} allocations");
    assert!(allocations < 200, "{allocations} allocations");
}
