//! The OpenAPI document and its page.

use serde_json::{Value, json};

use crate::support::{Answer, JSON, start, transaction};

#[tokio::test(flavor = "multi_thread")]
async fn the_document_is_openapi_3_1_and_lists_every_status_and_both_media_types() {
    let service =
        start(|config| config.api_keys = vec![crate::keys_and_limits::key("shop", "k")]).await;
    let answer = Answer::of(service.get("/openapi.json").await).await;
    assert_eq!(answer.status, 200);
    let version = answer.body["openapi"].as_str().unwrap();
    assert!(version.starts_with("3.1."), "{version}");
    let post = &answer.body["paths"]["/v1/transactions"]["post"];
    let statuses: Vec<&String> = post["responses"].as_object().unwrap().keys().collect();
    let expected = [
        "200", "202", "400", "401", "403", "408", "413", "415", "421", "422", "429", "500", "503",
    ];
    assert_eq!(statuses, expected);
    for (status, response) in post["responses"].as_object().unwrap() {
        let problem = response["content"]["application/problem+json"].is_object();
        assert_eq!(problem, status.as_str() >= "400", "{status}");
    }
    let media: Vec<&String> = post["requestBody"]["content"]
        .as_object()
        .unwrap()
        .keys()
        .collect();
    assert_eq!(media, ["application/json", "application/x-ndjson"]);
    assert_eq!(
        post["security"],
        json!([{}, {"bearer": []}, {"api_key": []}, {"basic": []}])
    );
    let schemes = answer.body["components"]["securitySchemes"]
        .as_object()
        .unwrap();
    assert_eq!(schemes.len(), 3);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_reference_in_the_document_resolves() {
    fn references<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
        match value {
            Value::Object(members) => {
                for (name, value) in members {
                    match value {
                        Value::String(target) if name == "$ref" => found.push(target),
                        other => references(other, found),
                    }
                }
            }
            Value::Array(items) => items.iter().for_each(|item| references(item, found)),
            _ => {}
        }
    }
    let service = start(|_| ()).await;
    let answer = Answer::of(service.get("/openapi.json").await).await;
    let mut found = Vec::new();
    references(&answer.body, &mut found);
    assert!(found.len() > 10);
    for reference in found {
        let target = answer.body.pointer(reference.trim_start_matches('#'));
        assert!(target.is_some(), "{reference}");
    }
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_examples_of_the_document_are_accepted() {
    let service = start(|_| ()).await;
    let answer = Answer::of(service.get("/openapi.json").await).await;
    let content = &answer.body["paths"]["/v1/transactions"]["post"]["requestBody"]["content"];
    for (_, example) in content[JSON]["examples"].as_object().unwrap() {
        let answer = service.send(JSON, example["value"].to_string()).await;
        assert_eq!(
            (answer.status, &answer.body["rejected"]),
            (202, &json!(0)),
            "{}",
            answer.text
        );
    }
    let lines = content[crate::support::NDJSON]["example"]
        .as_str()
        .unwrap()
        .to_owned();
    let answer = service.send(crate::support::NDJSON, lines).await;
    assert_eq!((answer.status, &answer.body["accepted"]), (202, &json!(2)));
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_loads_all_its_parts_from_the_service() {
    let service = start(|_| ()).await;
    let response = service.get("/").await;
    assert!(response.status().is_redirection());
    assert_eq!(response.headers()["location"], "/docs");
    let response = service.get("/docs").await;
    assert_eq!(response.headers()["location"], "/docs/");
    let page = service.get("/docs/").await.text().await.unwrap();
    let parts: Vec<&str> = page
        .split(['"', '\''])
        .filter(|text| text.starts_with("./"))
        .collect();
    assert!(
        parts
            .iter()
            .any(|part| part.ends_with("swagger-ui-bundle.js"))
    );
    for part in parts {
        let response = service.get(&part.replacen('.', "/docs", 1)).await;
        assert_eq!(response.status(), 200, "{part}");
    }
    assert!(!page.contains("https://"), "{page}");
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_count_requests_transactions_and_rejections() {
    let service = start(|_| ()).await;
    assert_eq!(service.send(JSON, transaction("t", "u")).await.status, 202);
    service.send(JSON, "{}").await.is_problem(422);
    let metrics = service.metrics().await;
    for name in [
        "tollgate_http_requests_total{service=\"ingest\",method=\"POST\",route=\"/v1/transactions\",status=\"202\"}",
        "tollgate_http_requests_total{service=\"ingest\",method=\"POST\",route=\"/v1/transactions\",status=\"422\"}",
        "tollgate_http_request_duration_seconds_bucket",
        "tollgate_ingest_transactions_total{outcome=\"accepted\"}",
        "tollgate_ingest_transactions_total{outcome=\"rejected\"}",
        "tollgate_ingest_rejections_total{field=\"transaction_id\"}",
        "tollgate_http_in_flight_requests",
    ] {
        assert!(metrics.contains(name), "{name}: {metrics}");
    }
    service.stop().await;
}
