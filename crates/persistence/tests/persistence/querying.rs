//! Analysts' queries over all rows work, whatever is in one of them.

use std::sync::Arc;

use crate::harness::{Kind, Sample, Service, TestStore, on_each_store, until};
use crate::upgrading::insert;

on_each_store!(
    a_query_over_all_rows_never_fails_because_of_one_row,
    rows_of_the_previous_version_can_be_queried_after_the_update,
);

/// Members that JSON permits and the stores' JSON functions do not.
const HOSTILE: [&str; 8] = [
    r#","memo":"a\u0000b""#,
    r#","\u0000":{"\u0000":["\u0000"]}"#,
    r#","memo":"\ud800","list":["\udc00x","\ud83d\ude00"]"#,
    r#","memo":"\ud800\ud83d\ude00\udbff\\u0000""#,
    r#","n":1e400"#,
    r#","n":-1e-400,"list":[1e400000,1e-400000,0e-20000,0e99999999999]"#,
    r#","n":1,"n":2e400,"n":2"#,
    r#","n":{"n":[1e999]},"memo":"""#,
];

fn samples() -> Vec<Sample> {
    let members = HOSTILE.map(|more| format!(r#"{more},"currency":"EUR""#));
    let long = [
        format!(r#","currency":"EUR","n":{}"#, "9".repeat(150_000)),
        format!(r#","currency":"EUR","n":0.{}1"#, "0".repeat(20_000)),
        r#","currency":"EUR","n":12.5,"memo":"ünïcödé 😀 \ud83d\ude00""#.to_owned(),
    ];
    let members = members.into_iter().chain(long).enumerate();
    let sample = |(n, more)| Sample {
        more,
        ..Sample::new("u", format!("t{n}"))
    };
    members.map(sample).collect()
}

/// What an analyst may ask, and the answers.
async fn ask(store: &TestStore, rows: i64) {
    let numbers: &[(&str, i64)] = match store.kind {
        Kind::Postgres => &[
            (
                "SELECT count(*) FROM transactions WHERE body->>'currency' = 'EUR'",
                rows,
            ),
            (
                "SELECT count(*) FROM transactions WHERE body::jsonb @> '{\"currency\":\"EUR\"}'",
                rows,
            ),
            (
                "SELECT count(DISTINCT transaction_id) FROM transactions, json_each_text(body) WHERE value <> ''",
                rows,
            ),
            (
                "SELECT count(*) FROM transactions WHERE (body->>'amount')::numeric = 12.5 AND (body->>'amount')::float8 = 12.5",
                rows,
            ),
            // Whatever is a number is one in both types.
            (
                "SELECT count((body->>'n')::numeric) FROM transactions WHERE json_typeof(body->'n') = 'number'",
                2,
            ),
            (
                "SELECT count((body->>'n')::float8) FROM transactions WHERE json_typeof(body->'n') = 'number'",
                2,
            ),
            (
                "SELECT count(*) FROM fraud_analysis WHERE json_array_length(contributions) = 0",
                rows,
            ),
        ],
        Kind::Sqlite => &[
            (
                "SELECT count(*) FROM transactions WHERE json_extract(body, '$.currency') = 'EUR'",
                rows,
            ),
            (
                "SELECT count(*) FROM transactions WHERE json_valid(body)",
                rows,
            ),
            (
                "SELECT count(*) FROM transactions WHERE instr(json_extract(body, '$.memo'), char(65533)) > 0",
                3,
            ),
            (
                "SELECT count(DISTINCT t.rowid) FROM transactions t, json_tree(t.body)",
                rows,
            ),
        ],
    };
    for (sql, expected) in numbers {
        assert_eq!(store.number(sql).await, *expected, "{sql}");
    }
    let memo = match store.kind {
        Kind::Postgres => {
            "SELECT coalesce(body->>'memo', '') FROM transactions ORDER BY transaction_id"
        }
        Kind::Sqlite => {
            "SELECT coalesce(json_extract(body, '$.memo'), '') FROM transactions ORDER BY transaction_id"
        }
    };
    let memos = store.texts(memo).await;
    assert_eq!(memos[0], "a\u{fffd}b");
    let originals = "SELECT original FROM transactions WHERE transaction_id = 't0'";
    assert_eq!(store.texts(originals).await, [samples()[0].transaction()]);
    // Where nothing is replaced, the text is stored once.
    let plain =
        "SELECT count(*) FROM transactions WHERE transaction_id = 't10' AND original IS NULL";
    assert_eq!(store.number(plain).await, 1);
}

async fn a_query_over_all_rows_never_fails_because_of_one_row(store: Arc<TestStore>) {
    let service = Service::start(&store).await;
    let samples = samples();
    service.log.send(samples.iter().map(Sample::decision)).await;
    service.stored(11).await;
    ask(&store, 11).await;
    // The read API returns what the producer wrote.
    for sample in &samples {
        let (status, text) = service.text(&format!("/v1/decisions/{}", sample.id)).await;
        assert_eq!((status, text), (200, sample.decision()));
    }
    let log = service.stop().await;
    assert_eq!(log.count_dead_letters(), 0);
    assert_eq!(
        store
            .number("SELECT count(*) FROM body_repair WHERE done")
            .await,
        1
    );
}

async fn rows_of_the_previous_version_can_be_queried_after_the_update(store: Arc<TestStore>) {
    store.migrate_to_previous().await;
    let samples = samples();
    for sample in &samples {
        for statement in insert(sample, store.kind == Kind::Postgres) {
            store.execute(&statement).await;
        }
    }
    let service = Service::start(&store).await;
    let repaired = "SELECT count(*) FROM transactions WHERE original IS NOT NULL";
    until("all are repaired", async || {
        store.number(repaired).await == 10
    })
    .await;
    ask(&store, 11).await;
    for sample in &samples {
        let (status, text) = service.text(&format!("/v1/decisions/{}", sample.id)).await;
        assert_eq!((status, text), (200, sample.decision()));
    }
    let log = service.stop().await;
    // Replicas of the previous version may still write for some time: later, one more pass ends it.
    let done = "SELECT count(*) FROM body_repair WHERE done";
    assert_eq!(store.number(done).await, 0);
    let late = Sample {
        more: HOSTILE[0].to_owned(),
        ..Sample::new("u", "t99")
    };
    for statement in insert(&late, store.kind == Kind::Postgres) {
        store.execute(&statement).await;
    }
    store
        .execute("UPDATE body_repair SET since = '2026-01-01T00:00:00.000000Z'")
        .await;
    let service = Service::start_with(&store, log, |_| {}).await;
    until("the pass has ended", async || store.number(done).await == 1).await;
    assert_eq!(store.number(repaired).await, 11);
    service.stop().await;
}
