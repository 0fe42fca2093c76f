//! Keys belong to tenants: what a caller writes belongs to the tenant of its key, whatever else it sends.

use serde_json::json;
use tollgate_ingest::{IngestConfig, SourceConfig};
use tollgate_service::http::ApiKeyConfig;

use crate::keys_and_limits::key;
use crate::support::{Answer, JSON, Scorer, Service, eventually, start, transaction};

const TENANT: &str = "tollgate-tenant";

fn of(tenant: &str, key: ApiKeyConfig) -> ApiKeyConfig {
    ApiKeyConfig {
        tenant: Some(tenant.to_owned()),
        ..key
    }
}

fn with_tenants(config: &mut IngestConfig) {
    config.api_keys = vec![
        of("acme", key("a", "a")),
        of("other", key("o", "o")),
        key("plain", "plain"),
    ];
}

async fn send(service: &Service, key: &str, path: &str, body: String) -> Answer {
    let headers = [
        ("x-api-key", key),
        ("content-type", JSON),
        // What an attacker might try.
        (TENANT, "victim"),
        ("ce-tollgate-tenant", "victim"),
        ("prefer", "wait=0.05"),
    ];
    service.post_to(path, &headers, body).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_has_the_tenant_of_its_key_and_none_that_the_caller_wrote() {
    let service = start(with_tenants).await;
    let smuggled = |id: &str| {
        transaction(id, "u").replace(
            "{\"transaction_id\"",
            "{\"tenant\":\"victim\",\"tollgate-tenant\":\"victim\",\"transaction_id\"",
        )
    };
    let message = |id: &str| json!({"messages": [{"value": smuggled(id)}]}).to_string();
    let event = |id: &str| {
        let data: serde_json::Value = serde_json::from_str(&smuggled(id)).unwrap();
        json!({"specversion": "1.0", "id": id, "type": "x", "source": "s", "tenant": "victim", "data": data}).to_string()
    };
    for key in ["a", "o", "plain"] {
        for (path, body) in [
            ("/v1/transactions", smuggled(&format!("{key}-1"))),
            ("/v1/functions/streaming", message(&format!("{key}-2"))),
            ("/v1/events", event(&format!("{key}-3"))),
        ] {
            let answer = send(&service, key, path, body).await;
            assert!(
                [200, 202].contains(&answer.status),
                "{path}: {}",
                answer.text
            );
        }
    }
    for record in service.records(9) {
        let tenant = record.header(TENANT);
        let expected = [
            ("\"a-", Some("acme")),
            ("\"o-", Some("other")),
            ("\"plain-", None),
        ];
        let (_, expected) = expected
            .iter()
            .find(|(id, _)| record.payload.contains(id))
            .unwrap();
        assert_eq!(tenant, *expected, "{record:?}");
        // The key of the record stays the user's, so that the partition does not depend on the tenant.
        assert_eq!(record.key, "u");
        // A member is a member: it is kept, and means nothing.
        assert!(record.payload.contains("\"tenant\":\"victim\""));
    }
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_of_ingest_keep_the_tenant_so_that_a_redriven_one_is_decided_for_it() {
    let service = start(with_tenants).await;
    let invalid = json!({"messages": [{"value": "{\"user_id\":\"u\"}"}]}).to_string();
    let answer = send(&service, "a", "/v1/functions/streaming", invalid).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let letters = service.letters();
    let tenants: Vec<_> = letters[0]
        .headers
        .iter()
        .filter(|(name, _)| name == TENANT)
        .collect();
    assert_eq!(tenants, [&(TENANT.to_owned(), Some(b"acme".to_vec()))]);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_are_imported_for_the_tenant_of_their_source_and_at_its_request_only() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("day.ndjson");
    std::fs::write(path, transaction("t", "u")).unwrap();
    let service = start(|config| {
        with_tenants(config);
        config.sources = vec![SourceConfig {
            bucket: "payments".into(),
            tenant: Some("acme".into()),
            url: format!("file://{}", directory.path().display()),
            ..SourceConfig::default()
        }];
    })
    .await;
    let event = json!({
        "specversion": "1.0", "id": "1", "source": "s", "type": "com.oraclecloud.objectstorage.createobject",
        "data": {"resourceName": "day.ndjson", "additionalDetails": {"bucketName": "payments", "eTag": "v1"}},
    })
    .to_string();
    for foreign in ["o", "plain"] {
        let refused = send(&service, foreign, "/v1/events", event.clone()).await;
        refused.is_problem(422);
    }
    let accepted = send(&service, "a", "/v1/events", event).await;
    assert_eq!(accepted.status, 202, "{}", accepted.text);
    let topic = service.kafka.topics().transactions.clone();
    eventually("the row is on the log", async || {
        service.all(&topic).len() == 1
    })
    .await;
    assert_eq!(service.records(1)[0].header(TENANT), Some("acme"));
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reply_is_delivered_within_its_tenant_only() {
    let service = start(with_tenants).await;
    // A decision on another tenant's transaction of the same ids reaches the same partition of replies first.
    let _scorer = Scorer::start(&service.kafka, |record| {
        let reply = |tenant: Option<&str>, score: u32| {
            json!({"transaction_id": "t", "user_id": "u", "tenant": tenant, "fraud_score": score, "status": "approved"}).to_string()
        };
        vec![
            reply(Some("other"), 1),
            reply(None, 2),
            reply(record.header(TENANT), 3),
        ]
    });
    for (key, score) in [("a", 3), ("plain", 2)] {
        let request = service
            .post(JSON, transaction("t", "u"))
            .header("x-api-key", key)
            .header("prefer", "wait=10");
        let answer = Answer::of(request.send().await.unwrap()).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        assert_eq!(answer.body["decisions"][0]["fraud_score"], score, "{key}");
    }
    service.stop().await;
}
