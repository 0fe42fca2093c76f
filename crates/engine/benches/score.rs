//! What a score costs, beside what parsing the same JSON costs.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../tests/stream/mod.rs"]
mod stream;

use std::sync::Arc;

use divan::Bencher;
use divan::counter::ItemsCount;
use stream::{Places, Random};
use tollgate_engine::{Engine, Origin, Rules};
use tollgate_types::{Amount, Tenant, Timestamp, Transaction};

const DAY: i64 = 86_400;

fn main() {
    divan::main();
}

fn engine() -> Engine {
    Engine::new(Arc::new(Rules::default()), [3; 16])
}

/// Twenty thousand records of about 280 bytes of a thousand users, a month long.
fn lines() -> Vec<String> {
    let mut random = Random(11);
    (0..20_000_i64)
        .map(|n| {
            let user = random.below(1_000);
            let transaction =
                stream::transaction(&mut random, user, n * 30 * DAY / 20_000, Places::SixDecimals);
            let place = transaction.location.unwrap();
            format!(
                r#"{{"transaction_id": "{}", "user_id": "{}", "amount": {}, "timestamp": "{}", "location": {{"latitude": {}, "longitude": {}}}, "merchant_id": "fraud_Stroman, Hudson and Erdman", "merchant_category": "gas_transport", "currency": "USD"}}"#,
                transaction.transaction_id,
                transaction.user_id,
                transaction.amount,
                transaction.timestamp,
                place.latitude,
                place.longitude,
            )
        })
        .collect()
}

#[divan::bench]
fn parse_20k_records(bencher: Bencher<'_, '_>) {
    let lines = lines();
    bencher
        .counter(ItemsCount::new(lines.len()))
        .bench_local(|| {
            for line in &lines {
                divan::black_box(Transaction::parse(line.as_bytes()).unwrap());
            }
        });
}

#[divan::bench]
fn score_20k_records(bencher: Bencher<'_, '_>) {
    let lines = lines();
    let transactions: Vec<_> = lines
        .iter()
        .map(|line| Transaction::parse(line.as_bytes()).unwrap())
        .collect();
    bencher
        .counter(ItemsCount::new(lines.len()))
        .with_inputs(engine)
        .bench_local_values(|mut engine| {
            for transaction in &transactions {
                divan::black_box(engine.score(transaction, &Origin::default()));
            }
            engine
        });
}

#[divan::bench]
fn parse_score_and_print_20k_records(bencher: Bencher<'_, '_>) {
    let lines = lines();
    let now = Timestamp::from_micros(0).unwrap();
    bencher
        .counter(ItemsCount::new(lines.len()))
        .with_inputs(engine)
        .bench_local_values(|mut engine| {
            let version = engine.rules().version();
            let mut out = Vec::with_capacity(1_000);
            for line in &lines {
                let transaction = Transaction::parse(line.as_bytes()).unwrap();
                out.clear();
                engine
                    .score(&transaction, &Origin::default())
                    .write_decision(Tenant::DEFAULT, &transaction, now, &version, None, &mut out);
                divan::black_box(&out);
            }
            engine
        });
}

/// An engine with users of ten thousand remembered transactions each, and what comes next.
fn busy(amounts: impl Fn(&mut Random) -> Option<Amount>) -> (Engine, Vec<Transaction<'static>>) {
    let (mut engine, mut random) = (engine(), Random(12));
    let mut next = |n: i64| {
        let user = n.unsigned_abs() % 100;
        let mut transaction = stream::transaction(
            &mut random,
            user,
            n * 6 * DAY / 1_000_000,
            Places::SixDecimals,
        );
        transaction.amount = amounts(&mut random).unwrap_or(transaction.amount);
        transaction
    };
    for n in 0..1_000_000 {
        engine.score(&next(n), &Origin::default());
    }
    let following = (1_000_000..1_010_000).map(next).collect();
    (engine, following)
}

/// Scores come one by one: each is new, and the history grows by them.
fn bench_busy(
    bencher: Bencher<'_, '_>,
    (mut engine, following): (Engine, Vec<Transaction<'static>>),
) {
    let mut following = following.iter();
    assert_eq!(engine.transactions(), 1_000_000);
    bencher.bench_local(|| engine.score(following.next().unwrap(), &Origin::default()));
}

#[divan::bench(sample_count = 100, sample_size = 90)]
fn score_for_users_with_10k_transactions(bencher: Bencher<'_, '_>) {
    bench_busy(bencher, busy(|_| None));
}

/// The worst case: every entry has to be compared.
#[divan::bench(sample_count = 100, sample_size = 90)]
fn score_for_users_with_10k_transactions_of_one_amount(bencher: Bencher<'_, '_>) {
    bench_busy(bencher, busy(|_| Amount::from_ten_thousandths(99_900)));
}

/// Redelivery of what was scored long ago.
#[divan::bench(sample_count = 100, sample_size = 90)]
fn duplicate_for_users_with_10k_transactions(bencher: Bencher<'_, '_>) {
    let (mut engine, following) = busy(|_| None);
    for transaction in &following {
        engine.score(transaction, &Origin::default());
    }
    let mut following = following.iter().cycle();
    bencher.bench_local(|| engine.score(following.next().unwrap(), &Origin::default()));
}
