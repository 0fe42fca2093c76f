//! How many decisions a second each store writes, and how long reads take over them.
//!
//! `cargo bench -p tollgate-persistence`: SQLite in a temporary directory, and PostgreSQL if `TEST_POSTGRES_URL` is set.
//! `MEASURE_ROWS` is the number of rows, 200,000 unless set.
#![allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    unused_imports,
    reason = "the store is private to the library, so that its modules are compiled here again; not all of them is used"
)]
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a benchmark fails by panicking, and prints its results"
)]

#[path = "../src/audit/config.rs"]
mod audit;
#[path = "../src/config.rs"]
mod config;
#[path = "../src/cursor.rs"]
mod cursor;
#[path = "../src/queryable.rs"]
mod queryable;
#[path = "../src/retention.rs"]
mod retention;
#[path = "../src/rows.rs"]
mod rows;
#[path = "../src/store/mod.rs"]
mod store;

use std::time::{Duration, Instant};

use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection};
use tollgate_service::health::Health;
use tollgate_service::resilience::CallPolicy;

use config::PersistenceConfig;
use rows::Row;
use store::{Filter, Store};

const BATCH: usize = 1_000;

/// A decision as the scorer writes it, with the usual members of a transaction.
fn payload(n: usize) -> String {
    let (user, status) = (
        n.wrapping_mul(2_654_435_761) % 20_000,
        if n.is_multiple_of(50) {
            "review"
        } else {
            "approved"
        },
    );
    let (minute, second) = (n / 60 % 60, n % 60);
    format!(
        r#"{{"transaction_id":"tx-{n:012}","user_id":"user-{user:06}","fraud_score":{score},"fraud_indicators":["high_amount"],"status":"{status}","processed_at":"2026-03-01T12:00:01.000001Z","contributions":[{{"indicator":"high_amount","points":17.25,"amount":"1725.5"}}],"ruleset_version":"a1b2c3d4e5f60718","late":false,"duplicate":false,"transaction":{{"transaction_id":"tx-{n:012}","user_id":"user-{user:06}","amount":1725.5,"timestamp":"2026-03-{day:02}T12:{minute:02}:{second:02}.{micros:06}Z","location":{{"latitude":48.137154,"longitude":11.576124}},"currency":"EUR","merchant_id":"m-{merchant}","merchant_category":"5411","country":"DE","channel":"pos","device_id":"d-{user:06}"}}}}"#,
        score = n % 70,
        day = 1 + n / 100_000 % 28,
        micros = n % 1_000_000,
        merchant = n % 997,
    )
}

async fn measure(url: &str, total: usize) {
    let config = PersistenceConfig {
        database_url: url.into(),
        query_timeout_ms: 60_000,
        ..PersistenceConfig::default()
    };
    let store = Store::open(&config, Health::default()).await.unwrap();
    let policy = CallPolicy::unlimited();
    store.migrate(&policy).await.unwrap();
    let (mut writing, mut reading) = (Duration::ZERO, Duration::ZERO);
    for start in (0..total).step_by(BATCH) {
        let payloads: Vec<String> = (start..start + BATCH).map(payload).collect();
        let begun = Instant::now();
        let mut rows: Vec<Row<'_>> = payloads
            .iter()
            .map(|payload| Row::read(payload.as_bytes()).unwrap())
            .collect();
        rows.sort_by(|a, b| a.key().cmp(&b.key()));
        reading += begun.elapsed();
        let begun = Instant::now();
        assert_eq!(
            store.write(&rows, &policy).await.1.unwrap().stored,
            BATCH as u64
        );
        writing += begun.elapsed();
        if (start + BATCH).is_multiple_of(100_000) {
            println!(
                "{:>9} rows: {:.0} rows/s so far",
                start + BATCH,
                (start + BATCH) as f64 / writing.as_secs_f64()
            );
        }
    }
    println!(
        "parsing and sorting: {:.0} rows/s",
        total as f64 / reading.as_secs_f64()
    );
    let payloads: Vec<String> = (0..BATCH).map(payload).collect();
    let mut rows: Vec<Row<'_>> = payloads
        .iter()
        .map(|payload| Row::read(payload.as_bytes()).unwrap())
        .collect();
    rows.sort_by(|a, b| a.key().cmp(&b.key()));
    let begun = Instant::now();
    for _ in 0..10 {
        assert_eq!(
            store.write(&rows, &policy).await.1.unwrap().known,
            BATCH as u64
        );
    }
    println!(
        "again, all known: {:.0} rows/s",
        10.0 * BATCH as f64 / begun.elapsed().as_secs_f64()
    );
    let alerts = Filter {
        status: Some(tollgate_types::Status::Review),
        ..Filter::default()
    };
    let user = Filter {
        user_id: Some("user-000001".into()),
        ..Filter::default()
    };
    for round in 0..2 {
        let begun = Instant::now();
        store.counts(None).await.unwrap();
        let counts = begun.elapsed();
        let mut pages = Vec::new();
        for filter in [&Filter::default(), &alerts, &user] {
            let begun = Instant::now();
            store.page(filter, 51, usize::MAX).await.unwrap();
            pages.push(begun.elapsed());
        }
        let begun = Instant::now();
        assert_eq!(
            store
                .decisions(None, "tx-000000000007", None)
                .await
                .unwrap()
                .len(),
            1
        );
        println!(
            "round {round}: stats {counts:?}, pages (all, alerts, user) {pages:?}, one {:?}",
            begun.elapsed()
        );
    }
    store.close().await;
}

fn total() -> usize {
    std::env::var("MEASURE_ROWS")
        .ok()
        .and_then(|rows| rows.parse().ok())
        .unwrap_or(200_000)
}

#[tokio::main]
async fn main() {
    let directory = tempfile::tempdir().unwrap();
    println!("SQLite");
    let url = format!("sqlite://{}/measure.db", directory.path().display());
    measure(&url, total()).await;
    let Ok(url) = std::env::var("TEST_POSTGRES_URL") else {
        println!("PostgreSQL: skipped, TEST_POSTGRES_URL is not set");
        return;
    };
    println!("PostgreSQL");
    let (server, _) = url.rsplit_once('/').unwrap();
    let name = format!("measure_{:08x}", rand::random::<u32>());
    let mut admin = PgConnection::connect(&url).await.unwrap();
    admin
        .execute(AssertSqlSafe(format!("CREATE DATABASE {name}")))
        .await
        .unwrap();
    measure(&format!("{server}/{name}"), total()).await;
    admin
        .execute(AssertSqlSafe(format!("DROP DATABASE {name} WITH (FORCE)")))
        .await
        .unwrap();
}
