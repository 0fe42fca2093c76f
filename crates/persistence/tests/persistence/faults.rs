//! What goes wrong keeps nothing else from being stored.

use std::sync::Arc;

use crate::harness::{Kind, Sample, Service, TestLog, TestStore, on_each_store, until};

on_each_store!(
    rows_that_the_store_refuses_are_dead_lettered_and_all_others_stored,
    a_store_that_goes_away_is_waited_for_and_nothing_is_dead_lettered,
    a_service_that_starts_before_its_store_becomes_ready_with_it,
    a_shutdown_while_the_store_is_down_completes_and_the_next_instance_stores_everything,
    a_store_with_somebody_elses_tables_ends_the_service_with_a_word_on_what_to_do,
);

async fn rows_that_the_store_refuses_are_dead_lettered_and_all_others_stored(
    store: Arc<TestStore>,
) {
    let service = Service::start(&store).await;
    store
        .execute(match store.kind {
            // SQLite then rolls back by itself, as it does on a full disk.
            Kind::Sqlite => {
                "CREATE TRIGGER poison BEFORE INSERT ON fraud_analysis WHEN new.transaction_id LIKE 'poison%'
                 BEGIN SELECT RAISE(ROLLBACK, 'poison'); END"
            }
            Kind::Postgres => "ALTER TABLE fraud_analysis ADD CONSTRAINT poison CHECK (transaction_id NOT LIKE 'poison%')",
        })
        .await;
    let id = |n: usize| {
        if n % 113 == 7 {
            format!("poison{n}")
        } else {
            format!("t{n}")
        }
    };
    let mut records: Vec<String> = (0..1000)
        .map(|n| Sample::new(format!("u{}", n % 5), id(n)).decision())
        .collect();
    // PostgreSQL has no text with NUL.
    records.push(
        Sample::new("u", "nul")
            .decision()
            .replace("r-1", "r-\\u0000"),
    );
    service.log.send(&records).await;
    let poison: Vec<&String> = records
        .iter()
        .filter(|record| record.contains("poison"))
        .collect();
    let refused = poison.len() + usize::from(store.kind == Kind::Postgres);
    let letters = service.log.dead_letters(refused).await;
    assert_eq!(
        letters
            .iter()
            .filter(|letter| poison
                .iter()
                .any(|record| record.as_bytes() == letter.payload))
            .count(),
        poison.len()
    );
    assert!(
        letters
            .iter()
            .all(|letter| letter.header("error.kind") == Some("refused"))
    );
    assert!(
        letters
            .iter()
            .all(|letter| letter.header("error.reason").unwrap().contains("code"))
    );
    service
        .stored(i64::try_from(records.len() - refused).unwrap())
        .await;
    let log = service.stop().await;
    assert_eq!(
        store.number("SELECT count(*) FROM transactions").await,
        i64::try_from(records.len() - refused).unwrap()
    );
    assert_eq!(usize::try_from(log.count_dead_letters()).unwrap(), refused);
}

async fn a_store_that_goes_away_is_waited_for_and_nothing_is_dead_lettered(store: Arc<TestStore>) {
    let service = Service::start(&store).await;
    service
        .log
        .send((0..100).map(|n| Sample::new("u", format!("before{n}")).decision()))
        .await;
    service.stored(100).await;
    let outage = store.break_down().await;
    service
        .log
        .send((0..100).map(|n| Sample::new("u", format!("during{n}")).decision()))
        .await;
    until("the service reports that the store is down", async || {
        let (status, body) = service.readiness().await;
        status == 503 && body["reasons"]["store"].is_string()
    })
    .await;
    if store.kind == Kind::Postgres {
        let response = service
            .request(reqwest::Method::GET, "/v1/stats")
            .send()
            .await
            .unwrap();
        assert_eq!(response.status(), 503);
        assert!(response.headers().contains_key("retry-after"));
        service.problem("/v1/decisions/before0", 503).await;
    }
    outage.repair().await;
    until("it is ready again", async || {
        service.readiness().await.0 == 200
    })
    .await;
    service
        .log
        .send((0..100).map(|n| Sample::new("u", format!("after{n}")).decision()))
        .await;
    until("everything is stored", async || {
        service
            .text("/v1/stats")
            .await
            .1
            .contains("\"decisions\":300,")
    })
    .await;
    let log = service.stop().await;
    assert_eq!(log.count_dead_letters(), 0);
}

async fn a_service_that_starts_before_its_store_becomes_ready_with_it(store: Arc<TestStore>) {
    let outage = store.break_down().await;
    let service = Service::start_with(&store, TestLog::open(), |_| {}).await;
    service.log.send([Sample::new("u", "t").decision()]).await;
    until("the service reports that the store is down", async || {
        let (status, body) = service.readiness().await;
        status == 503
            && body["reasons"]["store"]
                .as_str()
                .is_some_and(|reason| reason != "starting")
    })
    .await;
    service.problem("/v1/stats", 503).await;
    outage.repair().await;
    service.ready().await;
    service.stored(1).await;
    service.stop().await;
}

async fn a_shutdown_while_the_store_is_down_completes_and_the_next_instance_stores_everything(
    store: Arc<TestStore>,
) {
    let service = Service::start(&store).await;
    let outage = store.break_down().await;
    service
        .log
        .send((0..2000).map(|n| Sample::new(format!("u{n}"), "t").decision()))
        .await;
    until("the service reports that the store is down", async || {
        service.readiness().await.1["reasons"]["store"].is_string()
    })
    .await;
    let log = service.stop().await;
    outage.repair().await;
    let service = Service::start_with(&store, log, |_| {}).await;
    service.ready().await;
    service.stored(2000).await;
    service.stop().await;
}

async fn a_store_with_somebody_elses_tables_ends_the_service_with_a_word_on_what_to_do(
    store: Arc<TestStore>,
) {
    store
        .execute("CREATE TABLE transactions (something_else INTEGER)")
        .await;
    let service = Service::start_with(&store, TestLog::open(), |_| {}).await;
    let failure = service.failure().await;
    assert!(failure.contains("persistence.database_url"), "{failure}");
    assert!(failure.contains("transactions"), "{failure}");
}
