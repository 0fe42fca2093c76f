//! Events in their envelopes, and confirmations of subscriptions.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use serde_json::{Value, json};

use crate::support::{JSON, start, transaction};

const PATH: &str = "/v1/events";
const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

fn cloud_event(id: &str, data: &Value) -> Value {
    json!({"specversion": "1.0", "id": id, "type": "com.example.paid", "source": "/shop", "data": data})
}

fn parsed(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cloud_event_is_accepted_in_each_of_its_three_modes() {
    let service = start(|_| ()).await;
    let mut one = cloud_event("1", &parsed(&transaction("a", "u")));
    one["traceparent"] = json!(PARENT);
    let structured = [("content-type", "application/cloudevents+json")];
    let answer = service.post_to(PATH, &structured, one.to_string()).await;
    assert_eq!(answer.status, 202, "{}", answer.text);
    let expected = json!({"accepted": 1, "rejected": 0, "late": 0, "results": [{"index": 0, "id": "1", "status": "accepted", "transactions": 1}]});
    assert_eq!(answer.body, expected);

    let several = json!([
        cloud_event("2", &json!([parsed(&transaction("b", "u")), parsed(&transaction("c", "u"))])),
        {"specversion": "1.0", "type": "t", "source": "s", "data": {}},
    ]);
    let batch = [("content-type", "application/cloudevents-batch+json")];
    let answer = service.post_to(PATH, &batch, several.to_string()).await;
    assert_eq!(answer.status, 202, "{}", answer.text);
    assert_eq!(answer.body["results"][0]["transactions"], 2);
    let rejected = json!({"index": 1, "id": null, "status": "rejected", "field": "id", "reason": "must be a non-empty string"});
    assert_eq!(answer.body["results"][1], rejected);

    let binary = [
        ("ce-specversion", "1.0"),
        ("ce-id", "3"),
        ("ce-type", "com.example.paid"),
        ("ce-source", "/shop"),
        ("content-type", JSON),
    ];
    let answer = service.post_to(PATH, &binary, transaction("d", "u")).await;
    assert_eq!(answer.status, 202, "{}", answer.text);

    let records = service.records(4);
    let ids: Vec<Value> = records
        .iter()
        .map(|record| parsed(&record.payload)["transaction_id"].clone())
        .collect();
    assert_eq!(ids, ["a", "b", "c", "d"]);
    assert_eq!(records[0].header("traceparent"), Some(PARENT));
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invalid_transaction_of_an_event_is_reported_and_dead_lettered_and_the_others_are_accepted()
 {
    let service = start(|_| ()).await;
    let data = json!([parsed(&transaction("a", "u")), {"transaction_id": "b"}]);
    let answer = service
        .post_to(PATH, &[], cloud_event("9", &data).to_string())
        .await;
    assert_eq!(answer.status, 202, "{}", answer.text);
    let result = &answer.body["results"][0];
    assert_eq!(
        (&result["transactions"], &result["results"][0]["field"]),
        (&json!(1), &json!("user_id"))
    );
    let letters = service.letters();
    assert_eq!(letters[0].header("source.topic"), Some("/shop"));
    assert_eq!(letters[0].header("source.partition"), Some("9"));
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_without_an_acceptable_event_is_a_problem_with_the_reason() {
    let service = start(|_| ()).await;
    for body in ["", "7", "{", "[]"] {
        service.post_to(PATH, &[], body).await.is_problem(400);
    }
    let object = json!({
        "cloudEventsVersion": "0.1", "eventID": "1", "eventType": "com.oraclecloud.objectstorage.createobject", "source": "ObjectStorage",
        "data": {"resourceName": "a.csv", "additionalDetails": {"bucketName": "elsewhere"}},
    });
    let answer = service.post_to(PATH, &[], object.to_string()).await;
    answer.is_problem(422);
    let reason = answer.body["results"][0]["reason"].as_str().unwrap();
    assert!(
        reason.contains("bucket elsewhere") && reason.contains("ingest.sources"),
        "{reason}"
    );
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_is_confirmed_with_the_password_of_its_url_and_only_on_configured_hosts() {
    let confirmed = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&confirmed);
    let notifications = Router::new().route(
        "/confirm",
        get(async move || {
            count.fetch_add(1, Ordering::Relaxed);
            StatusCode::OK
        }),
    );
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/confirm?token=x", listener.local_addr().unwrap());
    tokio::spawn(async { axum::serve(listener, notifications).await });

    let service = start(|config| {
        config.confirmation_hosts.push("127.0.0.1".into());
        config.api_keys = vec![crate::keys_and_limits::key("ons", "secret")];
    })
    .await;
    // ons:secret
    let basic = ("authorization", "Basic b25zOnNlY3JldA==");
    let kind = ("x-oci-ns-messagetype", "SubscriptionConfirmation");
    let with = |url: &'static str| [basic, kind, ("x-oci-ns-confirmationurl", url)];

    let answer = service.post_to(PATH, &[kind], "{}").await;
    answer.is_problem(401);
    let challenges: Vec<_> = answer.headers.get_all("www-authenticate").iter().collect();
    assert_eq!(challenges, ["Bearer", "Basic realm=\"tollgate\""]);
    service
        .post_to(PATH, &with("https://evil.example/confirm"), "{}")
        .await
        .is_problem(400);
    assert_eq!(confirmed.load(Ordering::Relaxed), 0);

    let body = json!({ "ConfirmationURL": url });
    let answer = service
        .post_to(PATH, &[basic, kind], body.to_string())
        .await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert_eq!(confirmed.load(Ordering::Relaxed), 1);
    service.stop().await;
}
