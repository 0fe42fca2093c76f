//! Starting without a log, losing the log, and stopping.

use std::sync::mpsc;
use std::time::{Duration, Instant};

use rdkafka::mocking::MockCluster;
use tollgate_log::{KafkaConfig, Log};

use crate::support::{
    Answer, JSON, Scorer, cluster_at, config, eventually, start, start_with, transaction,
};

#[tokio::test(flavor = "multi_thread")]
async fn without_a_broker_the_service_is_alive_but_not_ready_and_rejects_requests_at_once() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = closed.local_addr().unwrap();
    drop(closed);
    let service = start_with(cluster_at(&address.to_string()), config()).await;
    let asked = Instant::now();
    let answer = service.send(JSON, transaction("t", "u")).await;
    answer.is_problem(503);
    assert!(answer.retry_after() >= 1);
    assert!(asked.elapsed() < Duration::from_secs(1));
    eventually("the reason names the broker", async || {
        let answer = service.readiness().await;
        assert_eq!(answer.status, 503);
        let reason = answer.body["reasons"]["log"].as_str().unwrap();
        reason.contains(&address.to_string())
    })
    .await;
    let alive = service.client.get(format!("{}/livez", service.admin));
    assert_eq!(alive.send().await.unwrap().status(), 200);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_topic_is_named_and_the_service_is_ready_once_it_exists() {
    let cluster = MockCluster::new(1).unwrap();
    let kafka = Log::open(KafkaConfig {
        brokers: cluster.bootstrap_servers(),
        topic_prefix: "shop.".to_owned(),
        ..KafkaConfig::default()
    })
    .unwrap();
    let service = start_with(kafka, config()).await;
    eventually("the reason names the topic", async || {
        let answer = service.readiness().await;
        assert_eq!(answer.status, 503);
        let reason = answer.body["reasons"]["log"].as_str().unwrap();
        reason == "topic shop.transactions does not exist; `tollgate topics create` makes it"
    })
    .await;
    service
        .send(JSON, transaction("t", "u"))
        .await
        .is_problem(503);
    for topic in ["shop.transactions", "shop.replies"] {
        cluster.create_topic(topic, 2, 1).unwrap();
    }
    eventually("the service is ready", async || {
        service.readiness().await.status == 200
    })
    .await;
    let answer = service.send(JSON, transaction("t", "u")).await;
    assert_eq!(answer.status, 202, "{}", answer.text);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_loss_of_a_broker_is_detected_and_what_it_did_not_acknowledge_was_not_accepted() {
    let cluster = MockCluster::new(1).unwrap();
    for topic in ["transactions", "replies"] {
        cluster.create_topic(topic, 2, 1).unwrap();
    }
    let mut config = config();
    config.acknowledge_timeout_ms = 200;
    let service = start_with(cluster_at(&cluster.bootstrap_servers()), config).await;
    eventually("the service is ready", async || {
        service.readiness().await.status == 200
    })
    .await;
    cluster.broker_down(1).unwrap();
    // The loss is not detected yet: this request times out.
    let answer = service.send(JSON, transaction("t", "u")).await;
    answer.is_problem(503);
    assert!(answer.retry_after() >= 1);
    eventually("the service is not ready", async || {
        service.readiness().await.body["reasons"]["log"].is_string()
    })
    .await;
    service
        .send(JSON, transaction("t", "u"))
        .await
        .is_problem(503);
    cluster.broker_up(1).unwrap();
    eventually("the service is ready again", async || {
        service.readiness().await.status == 200
    })
    .await;
    eventually("it accepts again", async || {
        service.send(JSON, transaction("t", "u")).await.status == 202
    })
    .await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_in_flight_at_the_shutdown_gets_its_answer_and_new_ones_are_refused() {
    let service = start(|_| ()).await;
    let (received, seen) = mpsc::channel();
    let (release, held) = mpsc::channel::<()>();
    let scorer = Scorer::start(&service.kafka, move |record| {
        received.send(()).unwrap();
        held.recv().unwrap();
        vec![record.payload.clone()]
    });
    let waiting = service.post(JSON, transaction("t", "u"));
    let waiting = tokio::spawn(waiting.header("prefer", "wait=20").send());
    tokio::task::spawn_blocking(move || seen.recv().unwrap())
        .await
        .unwrap();
    service.shutdown.begin();
    eventually("it is draining", async || {
        service.readiness().await.body["reasons"]["shutdown"] == "draining"
    })
    .await;
    let fresh = reqwest::Client::new();
    eventually("new connections are refused", async || {
        fresh
            .get(format!("{}/openapi.json", service.url))
            .send()
            .await
            .is_err()
    })
    .await;
    release.send(()).unwrap();
    let answer = Answer::of(waiting.await.unwrap().unwrap()).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    drop(scorer);
    let admin = format!("{}/livez", service.admin);
    service.stop().await;
    assert!(fresh.get(admin).send().await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_waits_at_the_shutdown_is_answered_within_the_grace_period() {
    let service = start(|_| ()).await;
    let waiting = service.post(JSON, transaction("t", "u"));
    let waiting = tokio::spawn(waiting.header("prefer", "wait=30").send());
    assert_eq!(service.records(1).len(), 1);
    service.stop().await;
    let answer = Answer::of(waiting.await.unwrap().unwrap()).await;
    assert_eq!(answer.status, 202, "{}", answer.text);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_in_use_is_refused_with_the_name_of_its_setting() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut config = config();
    config.listen = taken.local_addr().unwrap();
    let refused = tollgate_ingest::start(config, crate::support::embedded(), Default::default());
    let message = refused.await.unwrap_err().to_string();
    assert!(message.starts_with("ingest.listen: "), "{message}");
}
