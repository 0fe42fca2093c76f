//! What is accepted, how it is answered, and what is on the log afterwards.

use serde_json::json;
use tollgate_types::Partitioner;

use crate::support::{Answer, JSON, NDJSON, Pieces, start, transaction};

#[tokio::test(flavor = "multi_thread")]
async fn one_object_is_accepted_and_is_on_the_log_with_its_user_as_key() {
    let service = start(|_| ()).await;
    let answer = service.send(JSON, transaction("t-1", "u-1")).await;
    assert_eq!(answer.status, 202);
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let expected = json!({
        "accepted": 1,
        "rejected": 0,
        "late": 0,
        "results": [{"index": 0, "transaction_id": "t-1", "status": "accepted"}],
    });
    assert_eq!(answer.body, expected);
    let records = service.records(1);
    assert_eq!(records[0].payload, transaction("t-1", "u-1"));
    assert_eq!(records[0].key, "u-1");
    let partition = Partitioner::Murmur2.partition(b"u-1", 3);
    assert_eq!(records[0].partition, partition);
    assert!(records[0].headers.is_empty());
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn array_and_ndjson_give_a_result_for_each_item_and_keep_their_order() {
    let service = start(|_| ()).await;
    let [a, b] = ["a", "b"].map(|id| transaction(id, "u"));
    let wrong =
        r#"{"transaction_id":"w","user_id":"u","amount":-1,"timestamp":"2026-03-01T12:30:00Z"}"#;
    let expected = json!({
        "accepted": 2,
        "rejected": 1,
        "late": 0,
        "results": [
            {"index": 0, "transaction_id": "a", "status": "accepted"},
            {"index": 1, "transaction_id": "w", "status": "rejected", "field": "amount", "reason": "must not be negative"},
            {"index": 2, "transaction_id": "b", "status": "accepted"},
        ],
    });
    let array = format!("[{a},{wrong},{b}]");
    let answer = service.send("application/json; charset=utf-8", array).await;
    assert_eq!((answer.status, answer.body), (202, expected.clone()));
    let lines = format!("{a}\r\n\r\n{wrong}\n{b}");
    let answer = service.send(NDJSON, lines).await;
    assert_eq!((answer.status, answer.body), (202, expected));
    let payloads: Vec<String> = service.records(4).into_iter().map(|r| r.payload).collect();
    assert_eq!(payloads, [a.clone(), b.clone(), a, b]);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn beyond_a_hundred_items_only_rejected_ones_are_listed() {
    let service = start(|_| ()).await;
    let mut lines: Vec<String> = (0..101).map(|n| transaction(&n.to_string(), "u")).collect();
    let answer = service.send(NDJSON, lines.join("\n")).await;
    let expected = json!({"accepted": 101, "rejected": 0, "late": 0, "results": []});
    assert_eq!((answer.status, answer.body), (202, expected));
    lines[70] = "{}".to_owned();
    let answer = service.send(NDJSON, lines.join("\n")).await;
    assert_eq!(answer.body["accepted"], 100);
    let results = answer.body["results"].as_array().unwrap();
    assert_eq!(results.len(), 1);
    assert_eq!(results[0]["index"], 70);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_members_and_digits_reach_the_log_byte_for_byte() {
    let service = start(|_| ()).await;
    let odd = r#"{ "transaction_id" : "t\u002d1", "card": {"bin": 0411111, "n": 1.10e+2}, "user_id":"ü", "amount":"12.5000","x":[ 1 ,null],"timestamp":"2026-03-01T12:30:00.123456789+01:00","x":"twice","half":"\ud800" }"#
        .replace("0411111", "411111");
    let answer = service.send(JSON, format!("\n [ {odd} ]\n")).await;
    assert_eq!(answer.status, 202, "{}", answer.text);
    assert_eq!(answer.body["results"][0]["transaction_id"], "t-1");
    let indented = odd.replace(", ", ",\r\n  ");
    assert_eq!(service.send(JSON, indented).await.status, 202);
    let records = service.records(2);
    assert_eq!(records[0].payload, odd);
    assert_eq!(records[0].key, "ü");
    assert_eq!(records[1].payload, odd.replace(", ", ",  "));
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trace_context_is_propagated_to_the_records_and_an_invalid_one_is_not() {
    let service = start(|_| ()).await;
    let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    for (id, parent) in [("a", parent), ("b", "00-nonsense-01")] {
        let request = service.post(JSON, transaction(id, "u"));
        let request = request.header("traceparent", parent);
        let response = request.header("tracestate", "v=1").send().await.unwrap();
        assert_eq!(response.status(), 202);
    }
    let records = service.records(2);
    assert_eq!(records[0].header("traceparent"), Some(parent));
    assert_eq!(records[0].header("tracestate"), Some("v=1"));
    assert!(records[1].headers.is_empty());
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_without_a_length_is_read_to_its_end() {
    let service = start(|_| ()).await;
    let mut request = Pieces::begin(&service, NDJSON).await;
    let line = transaction("t", "u");
    let (head, tail) = line.split_at(20);
    for piece in [head, tail, "\n"] {
        request.send(piece).await;
    }
    let answer = request.end().await;
    assert_eq!(answer.status, 202, "{}", answer.text);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn other_paths_and_methods_are_problems_too() {
    let service = start(|_| ()).await;
    Answer::of(service.get("/nowhere").await)
        .await
        .is_problem(404);
    let answer = Answer::of(service.get("/v1/transactions").await).await;
    answer.is_problem(405);
    assert_eq!(answer.header("allow"), Some("POST"));
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_is_neither_json_nor_ndjson_is_415() {
    let service = start(|_| ()).await;
    for content_type in ["text/plain", "application/json; charset=latin1"] {
        let answer = service.send(content_type, transaction("t", "u")).await;
        answer.is_problem(415);
    }
    let untyped = service
        .client
        .post(format!("{}/v1/transactions", service.url));
    let response = untyped.body("{}").send().await.unwrap();
    Answer::of(response).await.is_problem(415);
    let coded = service.post(JSON, "{}").header("content-encoding", "br");
    Answer::of(coded.send().await.unwrap())
        .await
        .is_problem(415);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_is_too_large_is_413_with_or_without_a_content_length() {
    let service = start(|config| {
        config.max_body_bytes = 1_000_000;
        config.max_items = 3;
    })
    .await;
    let large = "x".repeat(20_000_000);
    service.send(JSON, large.clone()).await.is_problem(413);
    let mut request = Pieces::begin(&service, JSON).await;
    request.send(&large).await;
    request.end().await.is_problem(413);
    let four = format!("[{}]", [transaction("t", "u").as_str(); 4].join(","));
    service.send(JSON, four).await.is_problem(413);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_does_not_arrive_in_time_is_408() {
    let service = start(|config| config.request_timeout_ms = 100).await;
    let mut request = Pieces::begin(&service, JSON).await;
    request.send("[").await;
    request.answer().await.is_problem(408);
    service.stop().await;
}
