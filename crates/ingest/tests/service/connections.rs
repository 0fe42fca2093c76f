//! Callers that open connections and send no request, or do not read their answers.

use std::time::{Duration, Instant};

use reqwest::Client;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::support::{Answer, JSON, Service, start, transaction};

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

/// A connection with HTTP/2 on which each body is sent to `/v1/transactions`, with no window for any byte of an answer.
async fn without_a_window(service: &Service, bodies: &[String]) -> TcpStream {
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    // SETTINGS_INITIAL_WINDOW_SIZE: 0.
    bytes.extend([0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0]);
    for (stream, body) in (1_u32..).step_by(2).zip(bodies) {
        let frame = |kind: u8, flags: u8, payload: &[u8]| {
            let mut frame = u32::try_from(payload.len()).unwrap().to_be_bytes()[1..].to_vec();
            frame.extend([kind, flags]);
            frame.extend(stream.to_be_bytes());
            frame.extend(payload);
            frame
        };
        // POST, http, then literals: path, authority, content type.
        let mut head = vec![0x83, 0x86];
        for (index, value) in [
            (&[0x04][..], "/v1/transactions"),
            (&[0x01], "localhost"),
            (&[0x0f, 0x10], JSON),
        ] {
            head.extend(index);
            head.push(u8::try_from(value.len()).unwrap());
            head.extend(value.as_bytes());
        }
        bytes.extend(frame(1, 4, &head));
        bytes.extend(frame(0, 1, body.as_bytes()));
    }
    let address = service.url.trim_start_matches("http://");
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(&bytes).await.unwrap();
    stream
}

/// Sends transactions until one is answered with this status.
async fn until_answered_with(service: &Service, status: u16) {
    let waiting =
        async { while service.send(JSON, transaction("t", "u")).await.status != status {} };
    tokio::time::timeout(Duration::from_secs(20), waiting)
        .await
        .unwrap_or_else(|_| panic!("no answer with {status}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_nobody_reads_uses_a_permit_until_its_connection_ends() {
    let service = start(|config| {
        config.max_in_flight = 2;
        config.request_rejects.max = 10_000;
    })
    .await;
    // What is small uses none: more of it than there are permits.
    let small: Vec<String> = (0..8).map(|n| transaction(&format!("t{n}"), "u")).collect();
    let small = without_a_window(&service, &small).await;
    until_answered_with(&service, 202).await;
    // Each of 4,000 items gets a reason of its own.
    let large = format!("[{}0]", "0,".repeat(3_999));
    let large = without_a_window(&service, &[large.clone(), large]).await;
    until_answered_with(&service, 503).await;
    let refused = service.send(JSON, transaction("t", "u")).await;
    assert!(refused.text.contains("in flight"), "{}", refused.text);
    drop(large);
    until_answered_with(&service, 202).await;
    drop(small);
    service.stop().await;
}
