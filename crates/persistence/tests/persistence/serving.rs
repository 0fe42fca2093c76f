//! The HTTP face and the admin port.

use std::sync::Arc;

use reqwest::Method;
use tollgate_service::http::{ApiKeyConfig, ApiKeys, Scope};

use crate::harness::{Sample, Service, TestLog, TestStore, on_each_store, until};

on_each_store!(
    the_interface_describes_itself_and_every_error_is_a_problem,
    only_a_key_that_may_read_opens_the_api,
    the_admin_port_tells_health_and_counts,
);

async fn the_interface_describes_itself_and_every_error_is_a_problem(store: Arc<TestStore>) {
    let service = Service::start(&store).await;
    let document = service.get("/openapi.json").await;
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"));
    let paths: Vec<&String> = document["paths"].as_object().unwrap().keys().collect();
    assert_eq!(paths.len(), 4, "{paths:?}");
    let (status, page) = service.text("/docs/").await;
    assert!(status == 200 && page.contains("swagger-ui"));
    for path in [
        "/",
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
