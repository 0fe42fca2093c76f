//! Session tokens of pods: who gets one, what is in it, and how long it is good.

use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use chrono::{TimeDelta, Utc};
use openssl::pkey::{PKey, Private};
use serde_json::{Value, json};

use super::super::keys;
use super::client::{Answer, Draft, http_date};
use super::{TENANCY, TOPIC, host, started};
use crate::oci::{Config, Service, StandIn};

const PATH: &str = "/resourcePrincipalSessionTokens";
const BODY: &str = r#"{"body":"alert"}"#;

fn config() -> Config {
    Config {
        service_account_token: "pod".to_owned(),
        token_seconds: 600,
        ..Config::default()
    }
}

fn der(key: &PKey<Private>) -> String {
    BASE64_STANDARD.encode(key.public_key_to_der().unwrap())
}

async fn ask(stand_in: &StandIn, bearer: &str, pod_key: &str) -> Answer {
    let host = host(&stand_in.tls_endpoint());
    let body = json!({ "podKey": pod_key }).to_string();
    let draft =
        Draft::post(&host, PATH, &body).header("authorization", &format!("Bearer {bearer}"));
    draft.send_tls(&host, stand_in.ca_pem()).await.unwrap()
}

/// Takes an answer apart as the SDKs do.
fn key_id(answer: &Answer) -> String {
    let inner: String = serde_json::from_str(&answer.text).unwrap();
    let inner = BASE64_STANDARD.decode(inner).unwrap();
    let inner: Value = serde_json::from_slice(&inner).unwrap();
    inner["token"].as_str().unwrap().to_owned()
}

async fn publish(stand_in: &StandIn, key_id: &str, key: &PKey<Private>, ahead: i64) -> Answer {
    let date = http_date(Utc::now() + TimeDelta::seconds(ahead));
    let draft = Draft::post(&host(&stand_in.endpoint()), TOPIC, BODY).header("date", &date);
    draft.signed(key_id, key).send().await.unwrap()
}

#[tokio::test]
async fn a_pod_gets_a_token_and_signs_with_the_key_it_was_issued_for() {
    let (stand_in, _client) = started(config()).await;
    let key = keys::new_rsa().unwrap();
    let before = Utc::now().timestamp();
    let token = key_id(&ask(&stand_in, "pod", &der(&key)).await);
    let after = Utc::now().timestamp();
    let jwt = token.strip_prefix("ST$").unwrap();
    let claims = BASE64_URL_SAFE_NO_PAD
        .decode(jwt.split('.').nth(1).unwrap())
        .unwrap();
    let claims: Value = serde_json::from_slice(&claims).unwrap();
    let expires = claims["exp"].as_i64().unwrap();
    // The last second is whole.
    assert!((before + 600..=after + 601).contains(&expires), "{claims}");
    assert_eq!(claims["res_tenant"], TENANCY);
    let jwk: Value = serde_json::from_str(claims["jwk"].as_str().unwrap()).unwrap();
    let modulus = BASE64_URL_SAFE_NO_PAD.encode(key.rsa().unwrap().n().to_vec());
    assert_eq!(jwk["n"], modulus);
    assert_eq!(stand_in.tokens_issued(), 1);

    assert_eq!(publish(&stand_in, &token, &key, 0).await.status, 202);
    let other = keys::new_rsa().unwrap();
    let answer = publish(&stand_in, &token, &other, 0).await;
    assert_eq!(answer.status, 401);
    assert!(
        answer.message().starts_with("signature: "),
        "{}",
        answer.text
    );
    let received = stand_in.received(Service::Notifications);
    assert_eq!(received[0].key_id.as_ref(), Some(&token));
}

#[tokio::test]
async fn a_token_is_refused_once_it_has_expired() {
    let (stand_in, _client) = started(config()).await;
    let key = keys::new_rsa().unwrap();
    let token = key_id(&ask(&stand_in, "pod", &der(&key)).await);
    stand_in.shift_clock(540);
    assert_eq!(publish(&stand_in, &token, &key, 540).await.status, 202);
    stand_in.shift_clock(61);
    let answer = publish(&stand_in, &token, &key, 601).await;
    assert_eq!(answer.refusal(), (401, "NotAuthenticated".to_owned()));
    assert!(
        answer
            .message()
            .starts_with("keyId: this session token expired")
    );
}

#[tokio::test]
async fn revoked_tokens_are_refused_and_later_ones_are_not() {
    let (stand_in, _client) = started(config()).await;
    let key = keys::new_rsa().unwrap();
    let before = key_id(&ask(&stand_in, "pod", &der(&key)).await);
    stand_in.revoke_tokens();
    let answer = publish(&stand_in, &before, &key, 0).await;
    assert_eq!(answer.refusal(), (401, "NotAuthenticated".to_owned()));
    assert_eq!(answer.message(), "keyId: this session token is revoked");
    let after = key_id(&ask(&stand_in, "pod", &der(&key)).await);
    assert_ne!(before, after);
    assert_eq!(publish(&stand_in, &after, &key, 0).await.status, 202);
}

#[tokio::test]
async fn a_token_of_another_issuer_is_refused() {
    let (stand_in, _client) = started(config()).await;
    let (other, _client) = started(config()).await;
    let key = keys::new_rsa().unwrap();
    let token = key_id(&ask(&other, "pod", &der(&key)).await);
    let answer = publish(&stand_in, &token, &key, 0).await;
    assert_eq!(
        answer.message(),
        "keyId: this session token was not issued here"
    );
}

#[tokio::test]
async fn only_the_current_token_of_the_service_account_is_taken() {
    let (stand_in, _client) = started(config()).await;
    let key = der(&keys::new_rsa().unwrap());
    let answer = ask(&stand_in, "other", &key).await;
    assert_eq!(answer.refusal(), (401, "NotAuthenticated".to_owned()));
    stand_in.set_service_account_token("rotated");
    assert_eq!(ask(&stand_in, "pod", &key).await.status, 401);
    assert_eq!(ask(&stand_in, "rotated", &key).await.status, 200);
    assert_eq!(stand_in.tokens_issued(), 1);

    stand_in.set_service_account_token("");
    assert_eq!(ask(&stand_in, "", &key).await.status, 401);
}

#[tokio::test]
async fn a_pod_key_may_be_pem_and_must_be_a_key() {
    let (stand_in, _client) = started(config()).await;
    let key = keys::new_rsa().unwrap();
    let pem = String::from_utf8(key.public_key_to_pem().unwrap()).unwrap();
    assert_eq!(ask(&stand_in, "pod", &pem).await.status, 200);
    for bad in ["", "????", "AAAA", &der(&key)[..100]] {
        let answer = ask(&stand_in, "pod", bad).await;
        assert_eq!(
            answer.refusal(),
            (400, "InvalidParameter".to_owned()),
            "{bad}"
        );
    }
}

#[tokio::test]
async fn a_cluster_that_is_not_enhanced_forbids() {
    let (stand_in, _client) = started(config()).await;
    let key = der(&keys::new_rsa().unwrap());
    stand_in.faults().forbid_workload_identity(true);
    assert_eq!(ask(&stand_in, "pod", &key).await.status, 403);
    stand_in.faults().forbid_workload_identity(false);
    assert_eq!(ask(&stand_in, "pod", &key).await.status, 200);
}

#[tokio::test]
async fn a_token_is_not_to_be_had_in_the_clear() {
    let (stand_in, _client) = started(config()).await;
    let body = json!({ "podKey": der(&keys::new_rsa().unwrap()) }).to_string();
    let draft = Draft::post(&host(&stand_in.endpoint()), PATH, &body);
    let answer = draft
        .header("authorization", "Bearer pod")
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status, 404);
    assert_eq!(stand_in.tokens_issued(), 0);
}
