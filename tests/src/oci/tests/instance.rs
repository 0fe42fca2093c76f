//! Instance principals, from the metadata to a signed request.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use openssl::hash::MessageDigest;
use openssl::pkey::{PKey, Private};
use openssl::x509::X509;
use serde_json::{Value, json};

use super::super::keys;
use super::client::{ALL, Answer, Draft};
use super::{TENANCY, TOPIC, host, started};
use crate::oci::{Config, StandIn};

/// What an instance learns about itself.
struct Instance {
    host: String,
    certificate: String,
    intermediate: String,
    key: PKey<Private>,
    session: PKey<Private>,
}

async fn metadata(host: &str, path: &str) -> Answer {
    let draft = Draft::get(host, &format!("/opc/v2/{path}"));
    draft
        .header("authorization", "Bearer Oracle")
        .send()
        .await
        .unwrap()
}

fn bare(pem: &str) -> String {
    pem.lines()
        .filter(|line| !line.starts_with("-----"))
        .collect()
}

impl Instance {
    async fn learn(stand_in: &StandIn) -> Self {
        let host = host(&stand_in.endpoint());
        let key = metadata(&host, "identity/key.pem").await.text;
        assert!(key.starts_with("-----BEGIN RSA PRIVATE KEY-----"));
        Self {
            certificate: metadata(&host, "identity/cert.pem").await.text,
            intermediate: metadata(&host, "identity/intermediate.pem").await.text,
            key: PKey::private_key_from_pem(key.as_bytes()).unwrap(),
            session: keys::new_rsa().unwrap(),
            host,
        }
    }

    fn key_id(&self) -> String {
        let der = X509::from_pem(self.certificate.as_bytes())
            .unwrap()
            .to_der()
            .unwrap();
        let fingerprint = keys::fingerprint(&der, MessageDigest::sha256()).unwrap();
        format!("{TENANCY}/fed-x509-sha256/{fingerprint}")
    }

    fn details(&self) -> Value {
        json!({
            "certificate": bare(&self.certificate),
            "publicKey": BASE64_STANDARD.encode(self.session.public_key_to_der().unwrap()),
            "intermediateCertificates": [bare(&self.intermediate)],
            "fingerprintAlgorithm": "SHA256",
        })
    }

    async fn exchange(&self, details: &Value, key_id: &str) -> Answer {
        let draft = Draft::post(&self.host, "/v1/x509", &details.to_string());
        let draft = draft.signed_over(&ALL.replace(" host", ""), key_id, &self.key);
        draft.send().await.unwrap()
    }
}

#[tokio::test]
async fn an_instance_exchanges_its_certificate_for_a_token_and_signs_with_it() {
    let (stand_in, _client) = started(Config::default()).await;
    let instance = Instance::learn(&stand_in).await;
    assert_eq!(
        metadata(&instance.host, "instance/region").await.text,
        "us-ashburn-1"
    );
    let answer = instance
        .exchange(&instance.details(), &instance.key_id())
        .await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let answer = answer.json();
    let token = format!("ST${}", answer["token"].as_str().unwrap());
    let draft = Draft::post(&instance.host, TOPIC, r#"{"body":"alert"}"#);
    let answer = draft
        .signed(&token, &instance.session)
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status, 202, "{}", answer.text);
    assert_eq!(stand_in.tokens_issued(), 1);
}

#[tokio::test]
async fn the_python_sdk_names_its_certificate_by_sha1() {
    let (stand_in, _client) = started(Config::default()).await;
    let instance = Instance::learn(&stand_in).await;
    let mut details = instance.details();
    details
        .as_object_mut()
        .unwrap()
        .remove("fingerprintAlgorithm");
    let der = X509::from_pem(instance.certificate.as_bytes())
        .unwrap()
        .to_der()
        .unwrap();
    let fingerprint = keys::fingerprint(&der, MessageDigest::sha1()).unwrap();
    let key_id = format!("{TENANCY}/fed-x509/{}", fingerprint.to_uppercase());
    assert_eq!(instance.exchange(&details, &key_id).await.status, 200);
    assert_eq!(
        instance.exchange(&details, &instance.key_id()).await.status,
        401
    );
}

#[tokio::test]
async fn a_certificate_must_lead_to_the_root_and_be_signed_for_under_its_own_name() {
    let (stand_in, _client) = started(Config::default()).await;
    let (other, _client) = started(Config::default()).await;
    let instance = Instance::learn(&stand_in).await;
    let stranger = Instance::learn(&other).await;
    let good = instance.details();
    let with = |name: &str, value: Value| {
        let mut details = good.clone();
        details[name] = value;
        details
    };
    let key_id = instance.key_id();
    let upper = key_id.replace(key_id.rsplit('/').next().unwrap(), "AA:BB");
    for (details, key_id, flaw) in [
        (
            with("certificate", json!(bare(&stranger.certificate))),
            &key_id,
            "certificate",
        ),
        (
            with("intermediateCertificates", json!([])),
            &key_id,
            "certificate",
        ),
        (with("certificate", json!("AAAA")), &key_id, "certificate"),
        (with("fingerprintAlgorithm", json!("MD5")), &key_id, "keyId"),
        (good.clone(), &upper, "keyId"),
        (
            good.clone(),
            &key_id.replace(TENANCY, "ocid1.tenancy.oc1..x"),
            "keyId",
        ),
    ] {
        let answer = instance.exchange(&details, key_id).await;
        assert_eq!(answer.refusal(), (401, "NotAuthenticated".to_owned()));
        assert!(
            answer.message().starts_with(&format!("{flaw}: ")),
            "{}",
            answer.text
        );
    }
    let imposter = Instance {
        key: stranger.key,
        ..instance
    };
    let answer = imposter.exchange(&good, &key_id).await;
    assert!(
        answer.message().starts_with("signature: "),
        "{}",
        answer.text
    );
    let answer = imposter
        .exchange(&with("publicKey", json!("AAAA")), &key_id)
        .await;
    assert_eq!(
        answer.status, 401,
        "no key is looked at before the signature"
    );
    assert_eq!(stand_in.tokens_issued(), 0);
}

#[tokio::test]
async fn a_session_key_must_be_one() {
    let (stand_in, _client) = started(Config::default()).await;
    let instance = Instance::learn(&stand_in).await;
    let mut details = instance.details();
    details["publicKey"] = json!("AAAA");
    let answer = instance.exchange(&details, &instance.key_id()).await;
    assert_eq!(answer.refusal(), (400, "InvalidParameter".to_owned()));
}

#[tokio::test]
async fn a_certificate_that_was_rotated_away_is_refused() {
    let (stand_in, _client) = started(Config::default()).await;
    let before = Instance::learn(&stand_in).await;
    stand_in.rotate_instance().unwrap();
    let answer = before.exchange(&before.details(), &before.key_id()).await;
    assert_eq!(
        answer.message(),
        "certificate: the certificate has been rotated away"
    );
    let after = Instance::learn(&stand_in).await;
    assert_eq!(
        after
            .exchange(&after.details(), &after.key_id())
            .await
            .status,
        200
    );
}

#[tokio::test]
async fn the_metadata_service_wants_to_be_asked_in_its_own_words() {
    let (stand_in, _client) = started(Config::default()).await;
    let host = host(&stand_in.endpoint());
    let draft = Draft::get(&host, "/opc/v2/identity/key.pem");
    assert_eq!(draft.send().await.unwrap().status, 401);
    let draft = draft.header("authorization", "Bearer oracle");
    assert_eq!(draft.send().await.unwrap().status, 401);
    let draft = draft.header("authorization", "Bearer Oracle");
    assert_eq!(draft.send().await.unwrap().status, 200);
    let draft = draft.header("x-forwarded-for", "10.0.0.1");
    assert_eq!(draft.send().await.unwrap().status, 403);
}
