//! One caller that takes all it can get, beside another one.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::keys_and_limits::key;
use crate::support::{Answer, JSON, Service, eventually, start, transaction};

/// A request of the key `a` whose body has begun to arrive and does not end.
async fn begin_trickling(service: &Service) -> TcpStream {
    let address = service.url.trim_start_matches("http://");
    let mut stream = TcpStream::connect(address).await.unwrap();
    let head = format!(
        "POST /v1/transactions HTTP/1.1\r\nhost: {address}\r\nx-api-key: a\r\n\
         content-type: {JSON}\r\ncontent-length: 100000\r\nconnection: close\r\n\r\n["
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream
}

async fn send_as(service: &Service, key: &str) -> Answer {
    let request = service.post(JSON, transaction("t", "u"));
    Answer::of(request.header("x-api-key", key).send().await.unwrap()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_with_as_many_trickling_bodies_as_requests_may_be_in_flight_does_not_keep_another_out()
 {
    let service = start(|config| {
        config.api_keys = vec![key("a", "a"), key("b", "b")];
        config.max_in_flight = 64;
        config.request_timeout_ms = 60_000;
    })
    .await;
    let mut trickling = Vec::new();
    for _ in 0..64 {
        trickling.push(begin_trickling(&service).await);
    }
    eventually("the key has its share", async || {
        send_as(&service, "a").await.status == 429
    })
    .await;
    let begun = Instant::now();
    let answer = send_as(&service, "b").await;
    assert_eq!(answer.status, 202, "{}", answer.text);
    assert!(begun.elapsed() < Duration::from_secs(2));
    // Its bodies are given up long before the timeout of a whole body.
    let (mut slow, mut beyond) = (0, 0);
    for mut stream in trickling {
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        match answer.split(' ').nth(1) {
            Some("408") => slow += 1,
            Some("429") => beyond += 1,
            _ => panic!("{answer}"),
        }
    }
    // Three quarters at most; this test's own requests of the key took some.
    assert!(slow + beyond == 64 && beyond >= 16, "{slow} {beyond}");
    assert!(begun.elapsed() < Duration::from_secs(30));
    let metrics = service.metrics().await;
    assert!(metrics.contains("tollgate_ingest_shed_total{reason=\"share\"}"));
    assert_eq!(send_as(&service, "a").await.status, 202);
    service.stop().await;
}
