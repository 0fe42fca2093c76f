//! Overload, and a log that does not acknowledge.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rdkafka::mocking::MockCluster;

use crate::support::{
    Answer, JSON, NDJSON, cluster_at, config, eventually, journaled, start_with, transaction,
};

#[tokio::test(flavor = "multi_thread")]
async fn under_overload_requests_are_rejected_with_retry_after_and_every_accepted_transaction_is_on_the_log()
 {
    const CLIENTS: usize = 48;
    const REQUESTS: usize = 20;
    const ITEMS: usize = 5;
    // A log that has to wait for its disk.
    let directory = tempfile::tempdir().unwrap();
    let mut config = config();
    config.max_in_flight = 4;
    let service = start_with(journaled(&directory.path().join("journal.db")), config).await;
    eventually("the service is ready", async || {
        service.readiness().await.status == 200
    })
    .await;
    let service = Arc::new(service);
    let shed = Arc::new(AtomicUsize::new(0));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|client| {
            let (service, shed) = (Arc::clone(&service), Arc::clone(&shed));
            tokio::spawn(async move {
                for request in 0..REQUESTS {
                    let items = (0..ITEMS)
                        .map(|item| transaction(&format!("{client}-{request}-{item}"), "u"));
                    let body = items.collect::<Vec<_>>().join("\n");
                    // The same ids again until they are accepted.
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
        "no request was rejected, so the test has shown nothing"
    );
    let all = CLIENTS * REQUESTS * ITEMS;
    // A rejected request has written nothing.
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
async fn when_the_log_does_not_acknowledge_a_few_requests_wait_and_further_ones_are_rejected_at_once()
 {
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
    let rejected = loop {
        let begun = Instant::now();
        let answer = service.send(JSON, transaction("t", "u")).await;
        answer.is_problem(503);
        assert!(answer.retry_after() >= 1);
        if begun.elapsed() < Duration::from_millis(100) {
            break answer;
        }
        waited += 1;
    };
    assert_eq!(waited, 3, "{}", rejected.text);
    assert!(
        rejected
            .text
            .contains("nothing of this request was accepted"),
        "{}",
        rejected.text
    );
    cluster.broker_up(1).unwrap();
    eventually("it accepts again", async || {
        service.send(JSON, transaction("t", "u")).await.status == 202
    })
    .await;
    service.stop().await;
}
