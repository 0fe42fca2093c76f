//! How long a history takes to restore: from a snapshot, and from the log without one.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../tests/stream/mod.rs"]
mod stream;

use std::fmt::Write as _;
use std::sync::Arc;

use divan::Bencher;
use divan::counter::ItemsCount;
use stream::{Places, Random};
use tollgate_engine::{Engine, Origin, Rules};
use tollgate_types::Transaction;

const RECORDS: u64 = 200_000;
const USERS: u64 = 5_000;

fn main() {
    divan::main();
}

fn engine() -> Engine {
    Engine::new(Arc::new(Rules::default()), [3; 16])
}

/// Six days, all inside the lookback.
fn transactions() -> Vec<Transaction<'static>> {
    let mut random = Random(21);
    (0..RECORDS)
        .map(|n| {
            let seconds = i64::try_from(n * 6 * 86_400 / RECORDS).unwrap();
            let user = random.below(USERS);
            stream::transaction(&mut random, user, seconds, Places::SixDecimals)
        })
        .collect()
}

fn full() -> Engine {
    let mut engine = engine();
    for transaction in transactions() {
        engine.score(&transaction, &Origin::default());
    }
    engine
}

#[divan::bench]
fn from_the_log_200k(bencher: Bencher<'_, '_>) {
    let lines: Vec<String> = transactions()
        .iter()
        .map(|transaction| {
            let place = transaction.location.unwrap();
            let mut line = String::new();
            write!(
                line,
                r#"{{"transaction_id":"{}","user_id":"{}","amount":"{}","timestamp":"{}","location":{{"latitude":{},"longitude":{}}}}}"#,
                transaction.transaction_id, transaction.user_id, transaction.amount,
                transaction.timestamp, place.latitude, place.longitude,
            )
            .unwrap();
            line
        })
        .collect();
    bencher
        .counter(ItemsCount::new(lines.len()))
        .with_inputs(engine)
        .bench_local_values(|mut engine| {
            for line in &lines {
                divan::black_box(engine.score(
                    &Transaction::parse(line.as_bytes()).unwrap(),
                    &Origin::default(),
                ));
            }
            engine
        });
}

#[divan::bench]
fn from_a_snapshot_200k(bencher: Bencher<'_, '_>) {
    let mut written = Vec::new();
    full().write_histories(&mut written);
    let compressed = zstd::encode_all(written.as_slice(), 1).unwrap();
    bencher
        .counter(ItemsCount::new(RECORDS))
        .with_inputs(engine)
        .bench_local_values(|mut engine| {
            let histories = zstd::decode_all(compressed.as_slice()).unwrap();
            engine.read_histories(&histories, |_| true).unwrap();
            engine
        });
}

#[divan::bench]
fn into_a_snapshot_200k(bencher: Bencher<'_, '_>) {
    let engine = full();
    bencher.counter(ItemsCount::new(RECORDS)).bench_local(|| {
        let mut written = Vec::new();
        engine.write_histories(&mut written);
        zstd::encode_all(written.as_slice(), 1).unwrap()
    });
}
