//! The data of one user is exported and erased, and old decisions expire.

use std::sync::Arc;

use tollgate_persistence::{PersistenceConfig, UserData};

use crate::harness::{Kind, Sample, Service, TestStore, on_each_store, until};

on_each_store!(
    a_user_who_was_erased_does_not_come_back_when_the_log_is_read_again,
    decisions_expire_in_both_tables_and_the_others_stay,
);

async fn user_data(store: &TestStore) -> UserData {
    let config = PersistenceConfig {
        database_url: store.url.as_str().into(),
        ..PersistenceConfig::default()
    };
    UserData::open(&config).await.unwrap()
}

async fn a_user_who_was_erased_does_not_come_back_when_the_log_is_read_again(
    store: Arc<TestStore>,
) {
    let service = Service::start(&store).await;
    let mut decisions: Vec<String> = (0..200)
        .map(|n| Sample::new(format!("u{}", n % 4), format!("t{n:03}")).decision())
        .collect();
    // The same id in another tenant is another user.
    decisions.push(Sample::new("u1", "other").decision().replace(
        "\"duplicate\":false",
        "\"duplicate\":false,\"tenant\":\"shop\"",
    ));
    service.log.send(&decisions).await;
    service.stored(201).await;
    let data = user_data(&store).await;
    let mut exported = Vec::new();
    let each = |decision: &[u8]| {
        exported.push(String::from_utf8(decision.to_vec())?);
        Ok(())
    };
    data.each("", "u1", each).await.unwrap();
    let of_user: Vec<String> = (0..200)
        .filter(|n| n % 4 == 1)
        .map(|n| decisions[n].clone())
        .collect();
    assert_eq!(exported, of_user);
    assert_eq!(data.count("", "u1").await.unwrap(), 50);

    // Beside the running service, which reads everything again at the same time.
    let (erased, ()) = tokio::join!(data.erase("", "u1"), service.log.send(&decisions));
    let erased = erased.unwrap();
    assert_eq!((erased.rows, erased.user_hash.len()), (50, 64));
    service.log.send(&decisions).await;
    service.log.wait_until_committed().await;
    service.stored(151).await;
    service
        .problem("/v1/decisions?user_id=u1&limit=0", 400)
        .await;
    assert_eq!(service.get("/v1/users/u1/summary").await["transactions"], 1);
    assert_eq!(data.count("", "u1").await.unwrap(), 0);
    assert_eq!(data.count("shop", "u1").await.unwrap(), 1);
    // It can be repeated, and what the user does afterwards is stored.
    assert_eq!(
        data.erase("", "u1").await.unwrap().user_hash,
        erased.user_hash
    );
    let later = Sample::new("u1", "later")
        .at("2099-01-01T00:00:00Z")
        .decision();
    let later = later.replace("2026-03-01T12:00:01.000001Z", "2099-01-01T00:00:01Z");
    service.log.send([later]).await;
    service.stored(152).await;
    service.stop().await;
    for table in ["transactions", "fraud_analysis"] {
        let rows = format!("SELECT count(*) FROM {table} WHERE user_id = 'u1' AND tenant = ''");
        assert_eq!(store.number(&rows).await, 1, "{table}");
    }
    if store.kind == Kind::Postgres {
        let keys = "SELECT count(*) FROM decision_keys WHERE user_id = 'u1' AND tenant = ''";
        assert_eq!(store.number(keys).await, 1);
    }
    let named = "SELECT count(*) FROM erased_users WHERE user_hash LIKE '%u1%'";
    assert_eq!(store.number(named).await, 0);
}

async fn decisions_expire_in_both_tables_and_the_others_stay(store: Arc<TestStore>) {
    let service = Service::start(&store).await;
    // The first request installs the recorder: what is counted before is lost.
    service.metrics().await;
    // More than one step.
    let old = (0..6_000).map(|n| {
        let sample = Sample::new(format!("u{}", n % 7), format!("old{n}"));
        sample.at("2020-01-01T00:00:00Z").decision()
    });
    let ahead = Sample::new("u1", "ahead").at("2999-01-01T00:00:00Z");
    let ahead_too = Sample::new("u1", "ahead too").at("2999-01-01T00:00:00Z");
    let recent = chrono::Utc::now() - chrono::TimeDelta::days(29);
    let recent = Sample::new("u1", "recent").at(recent.to_rfc3339());
    service.log.send(old).await;
    service
        .log
        .send([&ahead, &ahead_too, &recent].map(Sample::decision))
        .await;
    service.stored(6_003).await;
    // The first scrape sets the recorder up; what is counted before it is lost.
    service.metrics().await;
    let log = service.stop().await;
    store
        .execute("UPDATE fraud_analysis SET created_at = '2020-01-01T00:00:00.000000Z' WHERE transaction_id = 'ahead too'")
        .await;
    let service = Service::start_with(&store, log, |config| config.retention_days = Some(30)).await;
    service.ready().await;
    service.stored(2).await;
    until("the metric counts them", async || {
        let metrics = service.metrics().await;
        metrics.contains("tollgate_persistence_rows_expired_total")
    })
    .await;
    assert_eq!(service.get("/v1/stats").await["by_status"]["approved"], 2);
    service.stop().await;
    for table in ["transactions", "fraud_analysis"] {
        let ids = format!("SELECT transaction_id FROM {table} ORDER BY transaction_id");
        assert_eq!(store.texts(&ids).await, ["ahead", "recent"], "{table}");
    }
}
