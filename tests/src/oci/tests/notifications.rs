//! Publishing and confirming.

use chrono::{TimeDelta, Utc};
use serde_json::json;

use super::client::{Draft, http_date};
use super::{Client, TOPIC, started};
use crate::oci::{Config, Service, StandIn};

fn message(body: &str) -> String {
    json!({ "title": "alert", "body": body }).to_string()
}

async fn status(client: &Client, body: &str) -> u16 {
    client.post(TOPIC, body).send().await.unwrap().status
}

#[tokio::test]
async fn a_message_is_accepted_and_kept() {
    let (stand_in, client) = started(Config::default()).await;
    let draft = client.post(TOPIC, &message("score 0.97"));
    let answer = draft.header("opc-request-id", "mine").send().await.unwrap();
    assert_eq!(answer.status, 202);
    assert!(
        answer
            .header("opc-request-id")
            .unwrap()
            .starts_with("mine/")
    );
    let messages = stand_in.messages();
    assert_eq!(messages.len(), 1);
    assert_eq!(messages[0].topic, "ocid1.onstopic.oc1..topic");
    assert_eq!(messages[0].title.as_deref(), Some("alert"));
    assert_eq!(messages[0].body, "score 0.97");
    assert_eq!(answer.json()["messageId"], messages[0].message_id.as_str());
    assert!(answer.json()["timeStamp"].as_str().unwrap().ends_with('Z'));
    let received = stand_in.received(Service::Notifications);
    assert_eq!(received[0].status, Some(202));
    assert_eq!(received[0].body["body"], "score 0.97");
    assert_eq!(received[0].key_id.as_ref(), Some(&client.key_id));
}

#[tokio::test]
async fn a_request_of_64_kib_passes_and_one_byte_more_does_not() {
    let (stand_in, client) = started(Config::default()).await;
    let around = message("").len();
    let most = message(&"x".repeat(64 * 1024 - around));
    assert_eq!(most.len(), 64 * 1024);
    assert_eq!(status(&client, &most).await, 202);
    let more = message(&"x".repeat(64 * 1024 - around + 1));
    let answer = client.post(TOPIC, &more).send().await.unwrap();
    assert_eq!(answer.refusal(), (413, "PayloadTooLarge".to_owned()));
    let received = stand_in.received(Service::Notifications);
    assert_eq!(received[1].status, Some(413));
    assert_eq!(stand_in.messages().len(), 1);
}

#[tokio::test]
async fn a_topic_takes_so_many_messages_a_minute_and_then_refuses() {
    let config = Config {
        notifications_per_minute: 2,
        ..Config::default()
    };
    let (stand_in, client) = started(config).await;
    assert_eq!(status(&client, &message("1")).await, 202);
    assert_eq!(status(&client, &message("2")).await, 202);
    let answer = client.post(TOPIC, &message("3")).send().await.unwrap();
    assert_eq!(answer.refusal(), (429, "TooManyRequests".to_owned()));
    let other = TOPIC.replace("topic/", "other/");
    let answer = client.post(&other, &message("4")).send().await.unwrap();
    assert_eq!(answer.status, 202, "another topic has its own limit");

    stand_in.shift_clock(60);
    let later = http_date(Utc::now() + TimeDelta::seconds(60));
    let draft = Draft::post(&client.host, TOPIC, &message("5")).header("date", &later);
    let draft = draft.signed(&client.key_id, &client.key);
    assert_eq!(draft.send().await.unwrap().status, 202);
    let bodies: Vec<String> = stand_in
        .messages()
        .into_iter()
        .map(|one| one.body)
        .collect();
    assert_eq!(bodies, ["1", "2", "4", "5"]);
}

#[tokio::test]
async fn a_topic_that_does_not_exist_is_not_told_from_one_without_permission() {
    let config = Config {
        topics: vec!["ocid1.onstopic.oc1..topic".to_owned()],
        ..Config::default()
    };
    let (_stand_in, client) = started(config).await;
    assert_eq!(status(&client, &message("1")).await, 202);
    let answer = client
        .post("/20181201/topics/other/messages", &message("1"))
        .send()
        .await;
    assert_eq!(
        answer.unwrap().refusal(),
        (404, "NotAuthorizedOrNotFound".to_owned())
    );
}

#[tokio::test]
async fn what_is_no_message_is_refused() {
    let (stand_in, client) = started(Config::default()).await;
    for (body, code) in [
        ("{", "CannotParseRequest"),
        (r#"{"body":1}"#, "CannotParseRequest"),
        (r#"{"title":"alert"}"#, "MissingParameter"),
        (r#"{"body":""}"#, "InvalidParameter"),
    ] {
        let answer = client.post(TOPIC, body).send().await.unwrap();
        assert_eq!(answer.refusal(), (400, code.to_owned()), "{body}");
    }
    let draft =
        Draft::post(&client.host, TOPIC, &message("1")).header("content-type", "text/plain");
    let answer = draft
        .signed(&client.key_id, &client.key)
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status, 415);
    assert_eq!(stand_in.messages(), []);
}

#[tokio::test]
async fn a_message_of_the_deprecated_type_json_needs_a_default() {
    let (_stand_in, client) = started(Config::default()).await;
    let good = message(r#"{"default":"alert"}"#);
    for (kind, body, status) in [
        ("JSON", good.clone(), 202),
        ("JSON", message("alert"), 400),
        ("RAW_TEXT", message("alert"), 202),
        ("XML", good, 400),
    ] {
        let draft = client.post(TOPIC, &body).header("messageType", kind);
        assert_eq!(draft.send().await.unwrap().status, status, "{kind} {body}");
    }
}

#[tokio::test]
async fn what_is_not_offered_is_not_found() {
    let (_stand_in, client) = started(Config::default()).await;
    let answer = client.post("/20181201/topics", "{}").send().await.unwrap();
    assert_eq!(answer.refusal(), (404, "NotFound".to_owned()));
    let answer = Draft::get(&client.host, TOPIC).send().await.unwrap();
    assert_eq!(answer.refusal(), (405, "MethodNotAllowed".to_owned()));
}

async fn open(stand_in: &StandIn, url: &str) -> u16 {
    let host = super::host(&stand_in.endpoint());
    let target = url.strip_prefix(&stand_in.endpoint()).unwrap();
    let draft = Draft::get(&host, target).without("date");
    draft.send().await.unwrap().status
}

#[tokio::test]
async fn a_subscription_is_confirmed_by_opening_its_address_unsigned() {
    let (stand_in, _client) = started(Config::default()).await;
    let url = stand_in.confirmation_url("ocid1.onssubscription.oc1..s");
    assert_eq!(
        url,
        stand_in.confirmation_url("ocid1.onssubscription.oc1..s")
    );
    let id = "ocid1.onssubscription.oc1..s";
    for (from, to, status) in [
        ("token=", "token=0", 404),
        ("token=", "tok=", 400),
        ("CUSTOM_HTTPS", "EMAIL", 400),
        ("..s/", "..other/", 404),
    ] {
        assert_eq!(
            open(&stand_in, &url.replace(from, to)).await,
            status,
            "{to}"
        );
        assert!(!stand_in.confirmed(id));
    }
    assert_eq!(open(&stand_in, &url).await, 200);
    assert!(stand_in.confirmed(id));
    assert!(!stand_in.confirmed("another"));
}
