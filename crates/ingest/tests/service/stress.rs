//! More than the service takes, and a log that takes nothing.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rdkafka::mocking::MockCluster;

use crate::support::{
    Answer, JSON, NDJSON, cluster_at, config, eventually, start, start_with, transaction,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_storm_is_shed_with_a_time_to_come_again_and_whatever_was_accepted_is_on_the_log() {
    const CLIENTS: usize = 48;
    const REQUESTS: usize = 20;
    const ITEMS: usize = 5;
    let service = Arc::new(start(|config| config.max_in_flight = 4).await);
    let shed = Arc::new(AtomicUsize::new(0));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|client| {
            let (service, shed) = (Arc::clone(&service), Arc::clone(&shed));
            tokio::spawn(async move {
                for request in 0..REQUESTS {
                    let items = (0..ITEMS)
                        .map(|item| transaction(&format!("{client}-{request}-{item}"), "u"));
                    let body = items.collect::<Vec<_>>().join("\n");
                    // The same ids again until they are taken.
                    loop {
                        let answer =
                            Answer::of(service.post(NDJSON, body.clone()).send().await.unwrap())
                                .await;
                        if answer.status == 202 {
                            assert_eq!(answer.body["accepted"], ITEMS);
                            break;
                        }
                        answer.is_problem(503);
                        assert_eq!(answer.retry_after(), 1);
                        shed.fetch_add(1, Ordering::Relaxed);
                    }
                }
            })
        })
        .collect();
    for client in clients {
        client.await.unwrap();
    }
    assert!(
        shed.load(Ordering::Relaxed) > 0,
        "nothing was shed, so nothing was shown"
    );
    let all = CLIENTS * REQUESTS * ITEMS;
    // A request that was shed has left nothing behind.
    let ids: HashSet<String> = service
        .records(all)
        .into_iter()
        .map(|record| record.payload)
        .collect();
    assert_eq!(ids.len(), all);
    let service = Arc::into_inner(service).unwrap();
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_acknowledges_nothing_lets_a_few_callers_wait_and_the_rest_know_at_once() {
    let cluster = MockCluster::new(1).unwrap();
    for topic in ["transactions", "replies"] {
        cluster.create_topic(topic, 2, 1).unwrap();
    }
    let mut config = config();
    config.acknowledge_timeout_ms = 100;
    let service = start_with(cluster_at(&cluster.bootstrap_servers()), config).await;
    eventually("the service is ready", async || {
        service.readiness().await.status == 200
    })
    .await;
    cluster.broker_down(1).unwrap();
    let mut waited = 0;
    let told = loop {
        let begun = Instant::now();
        let answer = service.send(JSON, transaction("t", "u")).await;
        answer.is_problem(503);
        assert!(answer.retry_after() >= 1);
        if begun.elapsed() < Duration::from_millis(100) {
            break answer;
        }
        waited += 1;
    };
    assert_eq!(waited, 3, "{}", told.text);
    assert!(
        told.text.contains("nothing of this request was taken"),
        "{}",
        told.text
    );
    cluster.broker_up(1).unwrap();
    eventually("it accepts again", async || {
        service.send(JSON, transaction("t", "u")).await.status == 202
    })
    .await;
    service.stop().await;
}
