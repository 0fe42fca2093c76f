//! The same over HTTP, for programs in other languages.

use serde_json::{Value, json};

use super::client::{Answer, Draft};
use super::{Client, TOPIC, started};
use crate::oci::Config;

const BODY: &str = r#"{"title":"alert","body":"score 0.97"}"#;

async fn post(client: &Client, path: &str, body: Value) -> Answer {
    let draft = Draft::post(&client.host, path, &body.to_string());
    draft.send().await.unwrap()
}

async fn get(client: &Client, path: &str) -> Answer {
    Draft::get(&client.host, path).send().await.unwrap()
}

#[tokio::test]
async fn faults_are_planned_and_results_read_over_http() {
    let (_stand_in, client) = started(Config::default()).await;
    let plan = json!({
        "service": "notifications", "n": 1, "status": 429, "code": "TooManyRequests", "retryAfter": 3,
    });
    assert_eq!(
        post(&client, "/stand-in/answer-next", plan).await.status,
        200
    );
    let draft = client.post(TOPIC, BODY);
    assert_eq!(draft.send().await.unwrap().header("retry-after"), Some("3"));
    let plan = json!({ "service": "notifications", "n": 1 });
    assert_eq!(post(&client, "/stand-in/drop-next", plan).await.status, 200);
    assert!(draft.send().await.is_none());

    let received = get(&client, "/stand-in/received?service=notifications")
        .await
        .json();
    assert_eq!(received[0]["status"], 429);
    assert_eq!(received[1]["status"], Value::Null);
    assert_eq!(received[1]["keyId"], client.key_id);
    assert_eq!(received[1]["headers"]["content-type"], "application/json");
    assert_eq!(
        get(&client, "/stand-in/received?service=monitoring")
            .await
            .json(),
        json!([])
    );
    let messages = get(&client, "/stand-in/messages").await.json();
    assert_eq!(messages[0]["title"], "alert");
    assert_eq!(get(&client, "/stand-in/metrics").await.json(), json!([]));
}

#[tokio::test]
async fn a_plan_that_makes_no_sense_is_refused() {
    let (_stand_in, client) = started(Config::default()).await;
    let plan = json!({ "service": "notifications", "n": 1, "status": 42, "code": "Answer" });
    assert_eq!(
        post(&client, "/stand-in/answer-next", plan).await.status,
        400
    );
    let plan = json!({ "service": "mail", "n": 1 });
    assert_eq!(post(&client, "/stand-in/hang-next", plan).await.status, 422);
}

#[tokio::test]
async fn state_is_changed_over_http() {
    let (stand_in, client) = started(Config::default()).await;
    for (path, body) in [
        ("revoke-tokens", json!({})),
        ("rotate-instance", json!({})),
        ("forbid-workload-identity", json!({ "forbidden": true })),
        ("service-account-token", json!({ "token": "pod" })),
        ("shift-clock", json!({ "seconds": 400 })),
    ] {
        let answer = post(&client, &format!("/stand-in/{path}"), body).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text);
    }
    let answer = client.post(TOPIC, BODY).send().await.unwrap();
    assert!(answer.message().starts_with("date: "), "{}", answer.text);
    assert_eq!(get(&client, "/stand-in/tokens-issued").await.json(), 0);

    let answer = post(&client, "/stand-in/confirmation-url", json!({ "id": "s" })).await;
    let path = answer.json()["path"].as_str().unwrap().to_owned();
    assert_eq!(get(&client, &path).await.status, 200);
    assert_eq!(get(&client, "/stand-in/confirmed?id=s").await.json(), true);
    assert!(stand_in.confirmed("s"));
}

#[tokio::test]
async fn a_person_sees_the_latest_messages() {
    let (_stand_in, client) = started(Config::default()).await;
    client.post(TOPIC, BODY).send().await.unwrap();
    let page = get(&client, "/").await;
    assert_eq!(
        page.header("content-type"),
        Some("text/html; charset=utf-8")
    );
    assert!(page.text.contains("score 0.97"), "{}", page.text);
}
