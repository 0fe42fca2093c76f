//! A web page of another site in the browser of somebody who can reach the service.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::{Answer, JSON, Service, start, transaction};

const PATHS: [&str; 3] = ["/v1/transactions", "/v1/events", "/v1/functions/streaming"];

fn body_for(path: &str) -> String {
    let transaction = transaction("t", "u");
    match path {
        "/v1/events" => format!(
            r#"{{"specversion":"1.0","id":"1","type":"t","source":"s","data":{transaction}}}"#
        ),
        "/v1/functions/streaming" => format!(r#"{{"messages":[{{"value":{transaction}}}]}}"#),
        _ => transaction,
    }
}

/// Nothing was written: neither transactions nor dead letters.
fn wrote_nothing(service: &Service) {
    assert!(service.all(&service.kafka.topics().transactions).is_empty());
    assert!(service.letters().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_page_may_send_without_asking_first_is_not_taken_as_json() {
    let service = start(|config| config.functions_wait_ms = 0).await;
    for path in PATHS {
        for kind in [
            "text/plain",
            "application/x-www-form-urlencoded",
            "multipart/form-data; boundary=x",
            "",
        ] {
            let headers = [("content-type", kind)];
            let answer = service.post_to(path, &headers, body_for(path)).await;
            answer.is_problem(415);
        }
    }
    wrote_nothing(&service);
    // Oracle's Notifications is recognised by a header that a page may not send.
    let headers = [("content-type", "text/plain"), ("x-oci-ns-messageid", "1")];
    let answer = service
        .post_to("/v1/events", &headers, body_for("/v1/events"))
        .await;
    assert_eq!(answer.status, 202, "{}", answer.text);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_origin_is_refused_and_the_own_page_is_answered() {
    let service = start(|config| config.functions_wait_ms = 0).await;
    for path in PATHS {
        for origin in ["https://evil.example", "null", "http://127.0.0.1:1"] {
            let headers = [("content-type", JSON), ("origin", origin)];
            let answer = service.post_to(path, &headers, body_for(path)).await;
            answer.is_problem(403);
        }
    }
    wrote_nothing(&service);
    let headers = [("content-type", JSON), ("origin", service.url.as_str())];
    let answer = service
        .post_to(PATHS[0], &headers, body_for(PATHS[0]))
        .await;
    assert_eq!(answer.status, 202, "{}", answer.text);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_was_made_to_resolve_to_this_machine_is_not_answered_on_either_port() {
    let service = start(|_| ()).await;
    // The page is of the same origin for its browser, so that it may send any type and read the answers.
    let rebound = [
        ("content-type", JSON),
        ("host", "rebound.evil.example:8080"),
        ("origin", "http://rebound.evil.example:8080"),
    ];
    let answer = service
        .post_to(PATHS[0], &rebound, body_for(PATHS[0]))
        .await;
    answer.is_problem(421);
    wrote_nothing(&service);
    for path in ["/metrics", "/imports", "/log"] {
        let request = service.client.get(format!("{}{path}", service.admin));
        let request = request.header("host", "rebound.evil.example");
        Answer::of(request.send().await.unwrap())
            .await
            .is_problem(421);
    }
    let request = service.client.put(format!("{}/log", service.admin));
    let request = request.header("origin", "https://evil.example").body("off");
    Answer::of(request.send().await.unwrap())
        .await
        .is_problem(403);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_are_configured_are_answered_and_others_are_not() {
    let service = start(|config| config.http.hosts = vec!["pay.example.com".into()]).await;
    for (host, status) in [("pay.example.com", 202), ("other.example.com", 421)] {
        let headers = [("content-type", JSON), ("host", host)];
        let answer = service
            .post_to(PATHS[0], &headers, body_for(PATHS[0]))
            .await;
        assert_eq!(answer.status, status, "{host}: {}", answer.text);
    }
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_with_two_hosts_or_none_is_malformed() {
    let service = start(|_| ()).await;
    let address = service.url.trim_start_matches("http://");
    for head in [
        format!("GET /docs/ HTTP/1.1\r\nhost: {address}\r\nhost: evil.example\r\n"),
        format!("GET /docs/ HTTP/1.1\r\nhost: {address}\r\nhost: {address}\r\n"),
        format!("GET http://evil.example/docs/ HTTP/1.1\r\nhost: {address}\r\n"),
        "GET /docs/ HTTP/1.1\r\n".to_owned(),
    ] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("{head}connection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 400 "), "{head}: {answer}");
    }
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_confines_what_a_browser_makes_of_it() {
    let service = start(|_| ()).await;
    let page = Answer::of(service.get("/docs/").await).await;
    assert_eq!(page.status, 200);
    let policy = page.header("content-security-policy").unwrap();
    assert!(policy.contains("frame-ancestors 'none'") && policy.contains("default-src 'self'"));
    // The page has no script of its own, which its policy would forbid.
    assert!(!page.text.contains("<script>"), "{}", page.text);
    let rejected = service.send(JSON, "{}").await;
    let accepted = service.send(JSON, transaction("t", "u")).await;
    for answer in [page, rejected, accepted, service.readiness().await] {
        for (name, value) in [
            ("x-content-type-options", "nosniff"),
            ("x-frame-options", "DENY"),
            ("referrer-policy", "no-referrer"),
            ("cross-origin-resource-policy", "same-origin"),
        ] {
            assert_eq!(answer.header(name), Some(value), "{name}");
        }
        assert!(answer.header("cache-control").is_some());
    }
    service.stop().await;
}
