//! Batches of stream messages, as a function receives them.

use serde_json::{Value, json};

use crate::support::{JSON, Record, Scorer, start, transaction};

const PATH: &str = "/v1/functions/streaming";

fn decision(record: &Record) -> String {
    let transaction: Value = serde_json::from_str(&record.payload).unwrap();
    json!({"transaction_id": transaction["transaction_id"], "user_id": transaction["user_id"], "fraud_score": 7.5, "status": "approved"}).to_string()
}

/// In base64, as Connector Hub sends it.
fn coded(text: &str) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(text)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_is_answered_with_its_decisions_in_the_order_of_its_messages() {
    let service = start(|_| ()).await;
    let _scorer = Scorer::start(&service.kafka, |record| vec![decision(record)]);
    let body = json!({"messages": [
        {"value": transaction("a", "u")},
        {"value": "{}"},
        {"value": transaction("b", "v")},
    ]});
    let answer = service
        .post_to(PATH, &[("content-type", JSON)], body.to_string())
        .await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert_eq!(answer.body["processed_count"], 3);
    let results = &answer.body["results"];
    assert_eq!(
        (&results[0]["transaction_id"], &results[0]["fraud_score"]),
        (&json!("a"), &json!(7.5))
    );
    assert_eq!(
        results[1],
        json!({"transaction_id": null, "status": "error", "error": "transaction_id: is missing"})
    );
    assert_eq!(results[2]["transaction_id"], "b");
    let time = answer.body["processing_time"].as_str().unwrap();
    assert!(tollgate_types::Timestamp::parse(time).is_ok(), "{time}");
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connector_hubs_array_is_accepted_and_invalid_messages_are_dead_lettered_with_their_position()
 {
    let service = start(|config| config.functions_wait_ms = 50).await;
    let body = json!([
        {"streamPool": "p", "stream": "ocid1.stream.oc1..x", "partition": "3", "key": "", "value": coded(&transaction("a", "u")), "offset": "41", "timestamp": 1},
        {"stream": "ocid1.stream.oc1..x", "partition": "3", "key": null, "value": coded("{\"user_id\":\"u\"}"), "offset": 42},
    ]);
    let answer = service.post_to(PATH, &[], body.to_string()).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    // No scorer runs, so the wait times out.
    assert_eq!(
        answer.body["results"][0],
        json!({"transaction_id": "a", "status": "accepted"})
    );
    assert_eq!(service.records(1)[0].payload, transaction("a", "u"));
    let letters = service.letters();
    assert_eq!(letters.len(), 1);
    assert_eq!(letters[0].payload, b"{\"user_id\":\"u\"}");
    for (name, value) in [
        ("error.stage", "ingest"),
        ("error.reason", "transaction_id: is missing"),
        ("source.topic", "ocid1.stream.oc1..x"),
        ("source.partition", "3"),
        ("source.offset", "42"),
        (
            "payload.format",
            "{\"format\":\"json\",\"user_id_case\":\"keep\"}",
        ),
    ] {
        assert_eq!(letters[0].header(name), Some(value), "{name}");
    }
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_batch_is_processed_and_a_body_that_is_not_a_batch_is_a_problem() {
    let service = start(|_| ()).await;
    let answer = service.post_to(PATH, &[], "[]").await;
    assert_eq!(
        (answer.status, &answer.body["processed_count"]),
        (200, &json!(0))
    );
    for body in ["{", "7", "{\"message\":[]}", ""] {
        service.post_to(PATH, &[], body).await.is_problem(400);
    }
    service.stop().await;
}
