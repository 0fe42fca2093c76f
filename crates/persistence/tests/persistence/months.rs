//! PostgreSQL: a table for each month, dropped whole when it expires.

use std::sync::Arc;

use chrono::{DateTime, Datelike as _, NaiveTime, TimeDelta, Utc};
use sqlx::{Connection as _, Executor as _, PgConnection};

use crate::harness::{Kind, Sample, Service, TestLog, TestStore, until};
use crate::upgrading::insert;

#[tokio::test(flavor = "multi_thread")]
async fn a_month_gets_a_table_of_its_own_and_is_dropped_when_it_expires() {
    crate::harness::run(Kind::Postgres, dropped).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_is_stored_once_over_all_months() {
    crate::harness::run(Kind::Postgres, once).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_whole_months_a_month_is_kept_until_all_of_it_has_expired() {
    crate::harness::run(Kind::Postgres, whole).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_read_that_keeps_a_month_from_being_made_delays_no_decision() {
    crate::harness::run(Kind::Postgres, beside_a_read).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_month_that_a_long_read_holds_expires_row_by_row() {
    crate::harness::run(Kind::Postgres, held).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tables_are_changed_while_the_previous_version_writes_and_everything_is_stored_once() {
    crate::harness::run(Kind::Postgres, beside_the_previous).await;
}

async fn dropped(store: Arc<TestStore>) {
    let service = Service::start(&store).await;
    let old = Utc::now() - TimeDelta::days(200);
    let table = format!("fraud_analysis_y{:04}m{:02}", old.year(), old.month());
    let decisions = (0..50).map(|n| {
        let time = if n % 2 == 0 { old } else { Utc::now() };
        Sample::new(format!("u{}", n % 3), format!("t{n}"))
            .at(time.to_rfc3339())
            .decision()
    });
    service.log.send(decisions).await;
    service.stored(50).await;
    assert_eq!(
        store.number(&format!("SELECT count(*) FROM {table}")).await,
        25
    );
    assert_eq!(
        store
            .number("SELECT count(*) FROM fraud_analysis_other")
            .await,
        0
    );
    let log = service.stop().await;
    let service =
        Service::start_with(&store, log, |config| config.retention_days = Some(100)).await;
    service.ready().await;
    service.stored(25).await;
    let there = format!("SELECT count(*) FROM pg_class WHERE relname = '{table}'");
    assert_eq!(store.number(&there).await, 0);
    until("the keys are gone too", async || {
        store.number("SELECT count(*) FROM decision_keys").await == 25
    })
    .await;
    assert_eq!(store.number("SELECT count(*) FROM transactions").await, 25);
    service.stop().await;
}

async fn once(store: Arc<TestStore>) {
    let service = Service::start(&store).await;
    let now = Utc::now();
    let at = |days| {
        Sample::new("u", "t")
            .at((now - TimeDelta::days(days)).to_rfc3339())
            .decision()
    };
    service.log.send([at(0), at(40), at(400), at(4_000)]).await;
    service.log.wait_until_committed().await;
    service.log.send([at(80)]).await;
    service.log.wait_until_committed().await;
    service.stop().await;
    for table in ["transactions", "fraud_analysis", "decision_keys"] {
        assert_eq!(
            store.number(&format!("SELECT count(*) FROM {table}")).await,
            1,
            "{table}"
        );
    }
}

async fn whole(store: Arc<TestStore>) {
    let service = Service::start(&store).await;
    let expired = Utc::now() - TimeDelta::days(100);
    let month: DateTime<Utc> = expired
        .with_day(1)
        .unwrap()
        .with_time(NaiveTime::MIN)
        .unwrap();
    let at = |id: &str, time: DateTime<Utc>| Sample::new("u", id).at(time.to_rfc3339()).decision();
    let decisions = [
        at("kept", month),
        at("dropped", month - TimeDelta::seconds(1)),
        at("long ago", month - TimeDelta::days(4_000)),
    ];
    service.log.send(decisions).await;
    service.stored(3).await;
    let log = service.stop().await;
    let service = Service::start_with(&store, log, |config| {
        config.retention_days = Some(100);
        config.retention_whole_months = true;
    })
    .await;
    service.ready().await;
    service.stored(1).await;
    assert_eq!(service.text("/v1/decisions/kept").await.0, 200);
    until("the keys of the others are gone", async || {
        store.number("SELECT count(*) FROM decision_keys").await == 1
            && store.number("SELECT count(*) FROM expired_keys").await == 0
    })
    .await;
    service.stop().await;
}

async fn beside_a_read(store: Arc<TestStore>) {
    let service = Service::start(&store).await;
    let mut reader = PgConnection::connect(&store.url).await.unwrap();
    reader
        .execute("BEGIN; LOCK TABLE transactions IN ACCESS SHARE MODE")
        .await
        .unwrap();
    let now = Utc::now();
    let at = |id: &str, days| {
        let time = now - TimeDelta::days(days);
        Sample::new("u", id).at(time.to_rfc3339()).decision()
    };
    service.log.send([at("a", 0), at("b", 100)]).await;
    service.stored(2).await;
    service.log.send([at("a", 0), at("c", 0)]).await;
    service.stored(3).await;
    let others = "SELECT count(*) FROM fraud_analysis_other";
    assert_eq!(store.number(others).await, 3);
    reader.execute("ROLLBACK").await.unwrap();
    let log = service.stop().await;
    // Months with rows among the others stay there; the others get their tables.
    let service = Service::start_with(&store, log, |_| {}).await;
    service.ready().await;
    service.log.send([at("d", 0), at("e", 200)]).await;
    service.stored(5).await;
    assert_eq!(store.number(others).await, 4);
    for id in ["a", "b", "c", "d", "e"] {
        let (status, text) = service.text(&format!("/v1/decisions/{id}")).await;
        assert_eq!(status, 200, "{id}: {text}");
    }
    service.stop().await;
}

async fn held(store: Arc<TestStore>) {
    let service = Service::start(&store).await;
    let now = Utc::now();
    let decisions = [0, 200, 201].map(|days| {
        let time = (now - TimeDelta::days(days)).to_rfc3339();
        Sample::new("u", format!("t{days}")).at(time).decision()
    });
    service.log.send(decisions).await;
    service.stored(3).await;
    let log = service.stop().await;
    let mut reader = PgConnection::connect(&store.url).await.unwrap();
    reader
        .execute("BEGIN; LOCK TABLE transactions IN ACCESS SHARE MODE")
        .await
        .unwrap();
    let service =
        Service::start_with(&store, log, |config| config.retention_days = Some(100)).await;
    service.ready().await;
    service.stored(1).await;
    until("the keys are gone too", async || {
        store.number("SELECT count(*) FROM decision_keys").await == 1
    })
    .await;
    reader.execute("ROLLBACK").await.unwrap();
    service.stop().await;
}

/// The previous version writes everything twice, before, during and after the change of the tables, and so does this one.
async fn beside_the_previous(store: Arc<TestStore>) {
    store.migrate_to_previous().await;
    let now = Utc::now();
    let samples: Vec<Sample> = (0..60)
        .map(|n| {
            let time = now + TimeDelta::days(40 - 20 * (n % 8));
            let time = time.format("%Y-%m-%dT%H:%M:%SZ").to_string();
            Sample::new(format!("u{}", n % 3), format!("t{n}")).at(time)
        })
        .collect();
    let write = async |samples: &[Sample]| {
        for sample in samples {
            for statement in insert(sample, true) {
                store.execute(&statement).await;
            }
        }
    };
    write(&samples[..20]).await;
    let log = TestLog::open();
    log.send(samples.iter().map(Sample::decision)).await;
    let (service, ()) = tokio::join!(Service::start_with(&store, log, |_| {}), async {
        write(&samples).await;
        write(&samples).await;
    });
    service.ready().await;
    service.log.send(samples.iter().map(Sample::decision)).await;
    service.log.wait_until_committed().await;
    write(&samples).await;
    service.stored(60).await;
    for sample in &samples {
        let (status, text) = service.text(&format!("/v1/decisions/{}", sample.id)).await;
        assert_eq!((status, text), (200, sample.decision()));
    }
    service.stop().await;
    for table in ["transactions", "fraud_analysis"] {
        let rows = store.number(&format!("SELECT count(*) FROM {table}")).await;
        assert_eq!(rows, 60, "{table}");
    }
    // The rows of before are where they were, and nothing was written again.
    let before = store
        .number("SELECT count(*) FROM transactions_before")
        .await;
    assert!(before >= 20, "{before}");
}
