//! Callers that open connections and send no request.

use std::time::{Duration, Instant};

use reqwest::Client;
use tokio::net::TcpStream;

use crate::support::{Answer, JSON, start, transaction};

/// A client without connections of its own yet.
fn fresh() -> Client {
    Client::builder()
        .timeout(Duration::from_secs(10))
        .build()
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payment_and_a_health_check_are_answered_while_1100_connections_send_nothing() {
    let service = start(|config| config.http.max_connections = 128).await;
    let mut silent = Vec::new();
    for address in [&service.url, &service.admin] {
        let address = address.trim_start_matches("http://");
        for _ in 0..1_100 {
            silent.push(TcpStream::connect(address).await.unwrap());
        }
    }
    let begun = Instant::now();
    let payment = fresh()
        .post(format!("{}/v1/transactions", service.url))
        .header("content-type", JSON)
        .body(transaction("t", "u"));
    let payment = Answer::of(payment.send().await.unwrap()).await;
    assert_eq!(payment.status, 202, "{}", payment.text);
    let health = fresh().get(format!("{}/livez", service.admin));
    assert_eq!(health.send().await.unwrap().status(), 200);
    assert!(begun.elapsed() < Duration::from_secs(5));
    let metrics = service.metrics().await;
    for listener in ["ingest.listen", "ingest.admin_listen"] {
        let evicted = format!(
            "tollgate_http_connections_refused_total{{listener=\"{listener}\",reason=\"evicted\"}}"
        );
        assert!(metrics.contains(&evicted), "{metrics}");
    }
    drop(silent);
    service.stop().await;
}
