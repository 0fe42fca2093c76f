//! What a score costs a user with a long history, compared with a short one.
//!
//! Alone in its process, and by ratios with a wide margin: other work of the machine slows both sides.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test fails by panicking, and prints its figures"
)]

mod stream;

use std::sync::Arc;
use std::time::{Duration, Instant};

use stream::{Places, Random, transaction};
use tollgate_engine::{Engine, Origin, Rules};
use tollgate_types::{Amount, Timestamp, Transaction};

/// Times that are compared are the least of so many.
const ROUNDS: usize = 7;

fn engine() -> Engine {
    Engine::new(Arc::new(Rules::default()), [9; 16])
}

fn origin(n: i64) -> Origin {
    Origin {
        timestamp_ms: Some(1_772_000_000_000 + n),
        ..Origin::default()
    }
}

/// How the times of a user's payments follow each other.
#[derive(Debug, Clone, Copy)]
enum Order {
    Ascending,
    Descending,
    Mixed,
    AllAtOnce,
}

fn payments(order: Order, count: i64, same_amount: bool) -> Vec<Transaction<'static>> {
    let mut random = Random(5);
    (0..count)
        .map(|n| {
            let mut payment = transaction(&mut random, 1, 0, Places::SixDecimals);
            // Within six days, so that nothing is evicted.
            let micros = match order {
                Order::Ascending => n * 1_000_000,
                Order::Descending => -n * 1_000_000,
                Order::Mixed => i64::try_from(random.below(500_000)).unwrap() * 1_000_000,
                Order::AllAtOnce => 0,
            };
            payment.timestamp = Timestamp::from_micros(1_772_000_000_000_000 + micros).unwrap();
            if same_amount {
                payment.amount = Amount::from_ten_thousandths(99_900).unwrap();
            }
            payment
        })
        .collect()
}

/// The least time of a score after `before` payments, over [`ROUNDS`] times 50 further ones.
fn time_of_a_score(all: &[Transaction<'static>], before: usize) -> Duration {
    let mut engine = engine();
    for (n, payment) in (0..).zip(&all[..before]) {
        engine.score(payment, &origin(n));
    }
    let next = |round: usize| &all[before + round * 50..][..50];
    let rounds = (0..ROUNDS).map(|round| {
        let begun = Instant::now();
        for payment in next(round) {
            engine.score(payment, &origin(i64::try_from(before).unwrap()));
        }
        begun.elapsed() / 50
    });
    rounds.min().unwrap()
}

#[test]
fn a_score_costs_a_user_with_100_000_payments_little_more_than_one_with_100() {
    for order in [
        Order::Ascending,
        Order::Descending,
        Order::Mixed,
        Order::AllAtOnce,
    ] {
        for same_amount in [false, true] {
            let all = payments(order, 101_000, same_amount);
            // The target is 3; the machine may be busy.
            let mut ratios = (0..5).map(|_| {
                let (few, many) = (time_of_a_score(&all, 100), time_of_a_score(&all, 100_000));
                println!("{order:?}, same amount {same_amount}: {few:?} after 100, {many:?} after 100,000");
                many.as_secs_f64() / few.as_secs_f64().max(200e-9)
            });
            assert!(ratios.any(|ratio| ratio < 6.0), "{order:?} {same_amount}");
        }
    }
}

#[test]
fn a_hot_user_costs_as_much_newest_first_as_in_order() {
    let time = |order| {
        let all = payments(order, 150_000, true);
        let begun = Instant::now();
        let mut engine = engine();
        for (n, payment) in (0..).zip(&all) {
            engine.score(payment, &origin(n));
        }
        for (n, payment) in (0..).zip(all.iter().step_by(3)) {
            assert!(engine.score(payment, &origin(n)).duplicate);
        }
        println!(
            "150,000 payments and 50,000 duplicates, {order:?}: {:?}",
            begun.elapsed()
        );
        begun.elapsed()
    };
    let mut ratios = (0..3).map(|_| {
        let ascending = time(Order::Ascending);
        time(Order::Descending).as_secs_f64() / ascending.as_secs_f64()
    });
    assert!(ratios.any(|ratio| ratio < 8.0));
}
