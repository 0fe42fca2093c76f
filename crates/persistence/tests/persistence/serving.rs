//! The HTTP face and the admin port.

use std::sync::Arc;

use reqwest::Method;
use tollgate_service::http::{ApiKeyConfig, ApiKeys, Scope};

use crate::harness::{Sample, Service, TestLog, TestStore, on_each_store, until};

on_each_store!(
    the_interface_describes_itself_and_every_error_is_a_problem,
    only_a_key_that_may_read_opens_the_api,
    the_admin_port_tells_health_and_counts,
    a_page_is_bounded_in_bytes_and_the_next_one_goes_on_behind_it,
    callers_that_never_read_hold_only_their_share_and_only_until_the_timeout,
);

async fn the_interface_describes_itself_and_every_error_is_a_problem(store: Arc<TestStore>) {
    let service = Service::start(&store).await;
    let document = service.get("/openapi.json").await;
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"));
    let paths: Vec<&String> = document["paths"].as_object().unwrap().keys().collect();
    assert_eq!(paths.len(), 4, "{paths:?}");
    for (path, item) in document["paths"].as_object().unwrap() {
        for status in ["200", "401", "403", "421", "429", "500", "503"] {
            assert!(
                item["get"]["responses"][status].is_object(),
                "{path} {status}"
            );
        }
    }
    let (status, page) = service.text("/docs/").await;
    assert!(status == 200 && page.contains("swagger-ui"));
    // The root leads there.
    let (status, page) = service.text("/").await;
    assert!(status == 200 && page.contains("swagger-ui"));
    for path in [
        "/v1",
        "/v2/decisions",
        "/v1/decisions/",
        "/v1/decisions/a/b",
    ] {
        service.problem(path, 404).await;
    }
    for method in [Method::POST, Method::DELETE] {
        let response = service
            .request(method, "/v1/decisions")
            .send()
            .await
            .unwrap();
        assert_eq!(response.status(), 405);
        assert!(
            response.headers()["allow"]
                .to_str()
                .unwrap()
                .contains("GET")
        );
        assert_eq!(
            response.headers()["content-type"],
            "application/problem+json"
        );
    }
    service.stop().await;
}

async fn only_a_key_that_may_read_opens_the_api(store: Arc<TestStore>) {
    let key = |name: &str, scope: Scope| ApiKeyConfig {
        name: name.into(),
        hash: ApiKeys::hash_of(name),
        scopes: vec![scope],
        ..ApiKeyConfig::default()
    };
    let service = Service::start_with(&store, TestLog::open(), |config| {
        config.api_keys = vec![
            key("reader", Scope::DECISIONS_READ),
            key("writer", Scope::TRANSACTIONS_WRITE),
        ];
    })
    .await;
    service.ready().await;
    let problem = service.problem("/v1/stats", 401).await;
    assert!(problem["detail"].as_str().unwrap().contains("API key"));
    for (given, expected) in [("reader", 200), ("writer", 403), ("nobody", 401)] {
        let response = service
            .request(Method::GET, "/v1/stats")
            .bearer_auth(given)
            .send()
            .await
            .unwrap();
        assert_eq!(response.status(), expected, "{given}");
    }
    // The document is no secret.
    service.get("/openapi.json").await;
    service.stop().await;
}

async fn the_admin_port_tells_health_and_counts(store: Arc<TestStore>) {
    let service = Service::start(&store).await;
    assert_eq!(service.readiness().await.0, 200);
    // The first scrape sets the recorder up.
    service.metrics().await;
    service
        .log
        .send([
            Sample::new("u", "t").decision(),
            Sample::new("u", "t").decision(),
        ])
        .await;
    service.stored(1).await;
    service.get("/v1/decisions/t").await;
    let expected = [
        "tollgate_persistence_rows_total{outcome=\"stored\"}",
        "tollgate_persistence_batch_records_bucket",
        "tollgate_persistence_write_duration_seconds_bucket",
        "tollgate_http_requests_total{service=\"persistence\",method=\"GET\",route=\"/v1/decisions/{transaction_id}\",status=\"200\"}",
    ];
    until("the metrics are there", async || {
        let metrics = service.metrics().await;
        expected.iter().all(|name| metrics.contains(name))
    })
    .await;
    service.stop().await;
}

/// Decisions on transactions of 200 kB.
fn large_decisions(count: usize) -> Vec<String> {
    (0..count)
        .map(|n| {
            let sample = Sample {
                more: format!(r#","long":"{}""#, "x".repeat(200_000)),
                ..Sample::new("u", format!("t{n:03}"))
            };
            sample.decision()
        })
        .collect()
}

async fn a_page_is_bounded_in_bytes_and_the_next_one_goes_on_behind_it(store: Arc<TestStore>) {
    let service = Service::start_with(&store, TestLog::open(), |config| {
        config.page_max_bytes = 500_000;
    })
    .await;
    service.ready().await;
    service.log.send(large_decisions(23)).await;
    // Larger than a page: it comes alone.
    let huge = Sample {
        more: format!(r#","long":"{}""#, "x".repeat(700_000)),
        ..Sample::new("u", "t009x")
    };
    service.log.send([huge.decision()]).await;
    service.stored(24).await;
    let (mut after, mut seen, mut pages) = (String::new(), Vec::new(), 0);
    loop {
        let path = format!("/v1/decisions?limit=1000{after}");
        let (status, text) = service.text(&path).await;
        assert_eq!(status, 200);
        let page: serde_json::Value = serde_json::from_str(&text).unwrap();
        let decisions = page["decisions"].as_array().unwrap();
        assert!(text.len() < 510_000 || decisions.len() == 1);
        seen.extend(
            decisions
                .iter()
                .map(|decision| decision["transaction_id"].as_str().unwrap().to_owned()),
        );
        pages += 1;
        let Some(next) = page["next"].as_str() else {
            break;
        };
        after = format!("&after={next}");
    }
    let mut expected: Vec<String> = (0..23).map(|n| format!("t{n:03}")).collect();
    expected.push("t009x".to_owned());
    expected.sort();
    expected.reverse();
    assert_eq!(seen, expected);
    assert!(pages > 11, "{pages} pages");
    service.stop().await;
}

async fn callers_that_never_read_hold_only_their_share_and_only_until_the_timeout(
    store: Arc<TestStore>,
) {
    let key = |name: &str| ApiKeyConfig {
        name: name.into(),
        hash: ApiKeys::hash_of(name),
        scopes: vec![Scope::DECISIONS_READ],
        ..ApiKeyConfig::default()
    };
    let service = Service::start_with(&store, TestLog::open(), |config| {
        config.api_keys = vec![key("greedy"), key("other")];
        // More than the buffers of two sockets take.
        config.page_max_bytes = 16 * 1024 * 1024;
        (config.requests_max, config.requests_per_key) = (6, 4);
        config.unread_timeout_ms = 10_000;
    })
    .await;
    service.ready().await;
    service.log.send(large_decisions(100)).await;
    service.log.wait_until_committed().await;
    let status = async |caller: &str| {
        let request = service.request(Method::GET, "/v1/decisions?limit=1");
        let response = request.bearer_auth(caller).send().await.unwrap();
        let retry = response.headers().get("retry-after").cloned();
        (response.status().as_u16(), retry.is_some())
    };
    let mut unread = Vec::new();
    for _ in 0..4 {
        let request = service.request(Method::GET, "/v1/decisions?limit=1000");
        let response = request.bearer_auth("greedy").send().await.unwrap();
        assert_eq!(response.status(), 200);
        unread.push(response);
    }
    assert_eq!(status("greedy").await, (429, true));
    assert_eq!(status("other").await, (200, false));
    until("the unread answers are dropped", async || {
        service
            .metrics()
            .await
            .contains("tollgate_http_connections_refused_total{listener=\"persistence.listen\",reason=\"write_timeout\"}")
            && status("greedy").await.0 == 200
    })
    .await;
    let mut dropped = 0;
    for response in unread {
        match response.bytes().await {
            Ok(page) => {
                let whole = serde_json::from_slice::<serde_json::Value>(&page);
                assert!(whole.is_ok(), "a part looks like the whole");
            }
            Err(_) => dropped += 1,
        }
    }
    assert!(dropped > 0);
    service.stop().await;
}
