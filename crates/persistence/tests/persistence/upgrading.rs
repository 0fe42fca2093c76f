//! Tables of an earlier version are upgraded without losing or repeating a row.

use std::sync::Arc;

use crate::harness::{Kind, Sample, Service, TestStore, on_each_store};

on_each_store!(
    rows_of_the_previous_version_are_kept_counted_and_not_stored_again,
    the_previous_version_writes_to_the_tables_of_this_one,
);

/// What the previous version wrote for [`Sample::decision`], as SQL.
pub(crate) fn insert(sample: &Sample, cast: bool) -> [String; 2] {
    let (transaction, quoted) = (sample.transaction(), |text: &str| format!("'{text}'"));
    let json = |text: &str| format!("{}{}", quoted(text), if cast { "::json" } else { "" });
    let number = if cast { "" } else { "'" };
    [
        format!(
            "INSERT INTO transactions (user_id, transaction_id, amount, event_time, body) \
             VALUES ('{}', '{}', {number}{}{number}, '{}', {}) ON CONFLICT DO NOTHING",
            sample.user,
            sample.id,
            sample.amount,
            sample.time.replace('Z', ".000000Z"),
            json(&transaction),
        ),
        format!(
            "INSERT INTO fraud_analysis (user_id, transaction_id, fraud_score, status, fraud_indicators, event_time, \
             processed_at, ruleset_version, late, contributions) \
             VALUES ('{}', '{}', {:?}, '{}', '', '{}', '2026-03-01T12:00:01.000001Z', 'r-1', {}, {}) ON CONFLICT DO NOTHING",
            sample.user,
            sample.id,
            sample.score,
            sample.status,
            sample.time.replace('Z', ".000000Z"),
            if cast { "false" } else { "0" },
            json("[]"),
        ),
    ]
}

/// Months apart, one of them far in the future.
fn samples() -> Vec<Sample> {
    let times = [
        "2024-01-31T23:59:59Z",
        "2026-03-01T12:00:00Z",
        "2026-12-01T00:00:00Z",
        "9999-12-31T23:59:59Z",
    ];
    (0..40)
        .map(|n| {
            let sample = Sample::new(format!("u{}", n % 3), format!("t{n}")).at(times[n % 4]);
            if n % 5 == 0 {
                sample.alert("review", 40.0, &[])
            } else {
                sample
            }
        })
        .collect()
}

async fn rows_of_the_previous_version_are_kept_counted_and_not_stored_again(store: Arc<TestStore>) {
    store.migrate_to_previous().await;
    let samples = samples();
    for sample in &samples {
        for statement in insert(sample, store.kind == Kind::Postgres) {
            store.execute(&statement).await;
        }
    }
    let service = Service::start(&store).await;
    service.stored(40).await;
    // The same decisions are on the log still, and a new one of another month.
    service.log.send(samples.iter().map(Sample::decision)).await;
    let new = Sample::new("u0", "new").at("2025-06-01T00:00:00Z");
    service.log.send([new.decision()]).await;
    service.stored(41).await;
    service.log.wait_until_committed().await;
    for sample in samples.iter().chain([&new]) {
        let path = format!("/v1/decisions/{}", sample.id);
        let (status, text) = service.text(&path).await;
        assert_eq!((status, text), (200, sample.decision()));
    }
    let stats = service.get("/v1/stats").await;
    assert_eq!(
        (&stats["decisions"], &stats["by_status"]["review"]),
        (&41.into(), &8.into())
    );
    assert_eq!(stats["last_event_time"], "9999-12-31T23:59:59Z");
    let page = service.get("/v1/decisions?limit=1000").await;
    assert_eq!(page["decisions"].as_array().unwrap().len(), 41);
    service.stop().await;
    for table in ["transactions", "fraud_analysis"] {
        let rows = store.number(&format!("SELECT count(*) FROM {table}")).await;
        assert_eq!(rows, 41, "{table}");
    }
}

async fn the_previous_version_writes_to_the_tables_of_this_one(store: Arc<TestStore>) {
    let service = Service::start(&store).await;
    // As in a rolling update: the old replica writes some, and again after a crash; the new one reads some of the same.
    let samples = samples();
    for sample in samples.iter().chain(&samples) {
        for statement in insert(sample, store.kind == Kind::Postgres) {
            store.execute(&statement).await;
        }
    }
    service
        .log
        .send(samples[20..].iter().map(Sample::decision))
        .await;
    service.log.wait_until_committed().await;
    assert_eq!(service.get("/v1/stats").await["decisions"], 40);
    for sample in &samples {
        let path = format!("/v1/decisions/{}", sample.id);
        let (status, text) = service.text(&path).await;
        assert_eq!((status, text), (200, sample.decision()));
    }
    service.stop().await;
    let rows = store.number("SELECT count(*) FROM transactions").await;
    assert_eq!(rows, 40);
}
