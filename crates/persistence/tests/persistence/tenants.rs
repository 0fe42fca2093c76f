//! A key reads the rows of its tenant, and every read of personal data is in the audit before it is answered.

use std::sync::Arc;

use reqwest::Method;
use serde_json::Value;
use tollgate_persistence::PersistenceConfig;
use tollgate_persistence::audit::{AuditEvent, AuditLog, AuditMode, Head, Link};
use tollgate_service::Secret;
use tollgate_service::http::{ApiKeyConfig, ApiKeys, Scope};

use crate::harness::{Sample, Service, TestLog, TestStore, on_each_store, until};

on_each_store!(
    a_key_reads_the_rows_of_its_tenant_and_no_others,
    a_key_of_all_tenants_reads_all_or_the_one_that_it_names,
    reads_of_personal_data_are_in_the_audit_and_statistics_are_not,
    a_changed_removed_or_cut_off_entry_of_the_audit_is_detected,
    entries_beyond_the_retention_are_removed_and_the_rest_of_the_chain_is_verified,
    without_the_audit_nothing_is_answered_if_it_is_required,
    requests_without_a_right_are_in_the_audit_by_caller_and_number,
);

fn key(name: &str, tenant: Option<&str>) -> ApiKeyConfig {
    ApiKeyConfig {
        name: name.into(),
        hash: ApiKeys::hash_of(name),
        scopes: vec![Scope::DECISIONS_READ],
        tenant: tenant.map(str::to_owned),
        ..ApiKeyConfig::default()
    }
}

fn with_keys(config: &mut PersistenceConfig) {
    config.api_keys = vec![
        key("plain", None),
        key("acme", Some("acme")),
        key("other", Some("other")),
        key("auditor", Some("*")),
    ];
    config.audit.key = Secret::new("a key of the audit");
}

/// A decision of this tenant, with its score as the mark by which it is recognised.
fn decision(tenant: Option<&str>, user: &str, id: &str, score: f64) -> String {
    let mut sample = Sample::new(user, id);
    sample.score = score;
    let text = sample.decision();
    match tenant {
        None => text,
        Some(name) => text.replacen(
            "\"duplicate\":false,",
            &format!("\"duplicate\":false,\"tenant\":\"{name}\","),
            1,
        ),
    }
}

async fn ask(service: &Service, key: &str, path: &str) -> (u16, Value) {
    let request = service.request(Method::GET, path).bearer_auth(key);
    let response = request.send().await.unwrap();
    let status = response.status().as_u16();
    (status, response.json().await.unwrap())
}

/// A service with the same user and transaction in three tenants, and one more transaction of `acme`.
async fn filled(store: &TestStore) -> Service {
    let service = Service::start_with(store, TestLog::open(), with_keys).await;
    service.ready().await;
    service
        .log
        .send([
            decision(None, "u", "t", 1.0),
            decision(Some("acme"), "u", "t", 2.0),
            decision(Some("other"), "u", "t", 3.0),
            decision(Some("acme"), "u", "only-acme", 4.0),
        ])
        .await;
    for (key, count) in [("plain", 1), ("acme", 2), ("other", 1)] {
        until("all are stored", async || {
            ask(&service, key, "/v1/stats").await.1["decisions"] == count
        })
        .await;
    }
    service
}

fn scores(page: &Value) -> Vec<f64> {
    let decisions = page["decisions"].as_array().unwrap();
    let mut scores: Vec<f64> = decisions
        .iter()
        .map(|decision| decision["fraud_score"].as_f64().unwrap())
        .collect();
    scores.sort_by(f64::total_cmp);
    scores
}

async fn a_key_reads_the_rows_of_its_tenant_and_no_others(store: Arc<TestStore>) {
    let service = filled(&store).await;
    for (key, tenant, own) in [
        ("plain", None, vec![1.0]),
        ("acme", Some("acme"), vec![2.0, 4.0]),
        ("other", Some("other"), vec![3.0]),
    ] {
        let (status, found) = ask(&service, key, "/v1/decisions/t?user_id=u").await;
        assert_eq!(
            (status, &found["fraud_score"]),
            (200, &own[0].into()),
            "{key}"
        );
        assert_eq!(found["tenant"].as_str(), tenant);
        let (_, page) = ask(&service, key, "/v1/decisions").await;
        assert_eq!(scores(&page), own, "{key}");
        let (_, page) = ask(&service, key, "/v1/decisions?user_id=u&status=approved").await;
        assert_eq!(scores(&page), own, "{key}");
        // Page by page.
        let (mut path, mut paged) = ("/v1/decisions?limit=1".to_owned(), Vec::new());
        loop {
            let (_, page) = ask(&service, key, &path).await;
            paged.extend(scores(&page));
            match page["next"].as_str() {
                Some(next) => path = format!("/v1/decisions?limit=1&after={next}"),
                None => break,
            }
        }
        paged.sort_by(f64::total_cmp);
        assert_eq!(paged, own, "{key}");
        let (_, summary) = ask(&service, key, "/v1/users/u/summary").await;
        assert_eq!(summary["transactions"], own.len(), "{key}");
        let (_, stats) = ask(&service, key, "/v1/stats").await;
        assert_eq!(stats["decisions"], own.len(), "{key}");
    }
    // Foreign rows: as if there were none.
    for key in ["plain", "other"] {
        for path in [
            "/v1/decisions/only-acme",
            "/v1/decisions/only-acme?user_id=u",
        ] {
            assert_eq!(ask(&service, key, path).await.0, 404, "{key} {path}");
        }
        for path in [
            "/v1/decisions?tenant=acme",
            "/v1/decisions/t?tenant=acme",
            "/v1/users/u/summary?tenant=acme",
            "/v1/stats?tenant=acme",
        ] {
            let (status, problem) = ask(&service, key, path).await;
            assert_eq!(
                (status, &problem["parameter"]),
                (400, &"tenant".into()),
                "{path}"
            );
        }
    }
    service.stop().await;
}

async fn a_key_of_all_tenants_reads_all_or_the_one_that_it_names(store: Arc<TestStore>) {
    let service = filled(&store).await;
    for (parameter, expected) in [
        ("", vec![1.0, 2.0, 3.0, 4.0]),
        ("?tenant=", vec![1.0]),
        ("?tenant=acme", vec![2.0, 4.0]),
        ("?tenant=none", vec![]),
    ] {
        let page = ask(&service, "auditor", &format!("/v1/decisions{parameter}"))
            .await
            .1;
        assert_eq!(scores(&page), expected, "{parameter}");
        let stats = ask(&service, "auditor", &format!("/v1/stats{parameter}"))
            .await
            .1;
        assert_eq!(stats["decisions"], expected.len(), "{parameter}");
    }
    let (status, problem) = ask(&service, "auditor", "/v1/decisions/t?user_id=u").await;
    assert_eq!(status, 409, "{problem}");
    let (_, found) = ask(&service, "auditor", "/v1/decisions/t?tenant=other").await;
    assert_eq!(found["fraud_score"], 3.0);
    let (_, summary) = ask(&service, "auditor", "/v1/users/u/summary?tenant=acme").await;
    assert_eq!(summary["transactions"], 2);
    let (status, _) = ask(&service, "auditor", "/v1/stats?tenant=*").await;
    assert_eq!(status, 400);
    service.stop().await;
}

fn config(store: &TestStore) -> PersistenceConfig {
    let mut config = PersistenceConfig {
        database_url: store.url.as_str().into(),
        ..PersistenceConfig::default()
    };
    with_keys(&mut config);
    config
}

/// The entries of the audit, and the head if the chain is whole.
async fn audit(store: &TestStore, expected: Option<Head>) -> (Vec<Link>, Result<Head, String>) {
    let log = AuditLog::open(&config(store)).await.unwrap();
    let mut links = Vec::new();
    let read = log.read(|link| {
        links.push(link.clone());
        Ok::<(), tollgate_service::database::DatabaseError>(())
    });
    read.await.unwrap();
    let head = log
        .verify(expected)
        .await
        .map_err(|error| error.to_string());
    log.close().await;
    (links, head)
}

async fn reads_of_personal_data_are_in_the_audit_and_statistics_are_not(store: Arc<TestStore>) {
    let service = filled(&store).await;
    for (key, path) in [
        ("acme", "/v1/decisions/t?user_id=u"),
        ("other", "/v1/decisions/only-acme"),
        ("auditor", "/v1/decisions?user_id=a%20b&limit=5"),
        ("plain", "/v1/users/u/summary"),
        ("plain", "/v1/decisions?amount=5"),
        ("plain", "/v1/stats"),
        ("nobody", "/v1/decisions"),
    ] {
        ask(&service, key, path).await;
        // What was answered is in the audit already.
        let newest = audit(&store, None).await.0;
        assert!(!newest.is_empty(), "{path}");
    }
    let (links, head) = audit(&store, None).await;
    assert_eq!(head.unwrap().seq, 5);
    let events: Vec<AuditEvent> = links
        .iter()
        .map(|link| serde_json::from_str(&link.entry).unwrap())
        .collect();
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let first = &events[0];
    assert_eq!((&*first.caller, &*first.tenant), ("acme", "acme"));
    assert_eq!(first.peer, "127.0.0.1");
    assert_eq!(first.action, "GET /v1/decisions/{transaction_id}");
    assert_eq!(
        first.asked,
        [pair("transaction_id", "t"), pair("user_id", "u")]
    );
    assert_eq!((first.status, first.rows), (200, 1));
    assert_eq!((events[1].status, events[1].rows), (404, 0));
    assert_eq!((&*events[2].caller, &*events[2].tenant), ("auditor", "*"));
    assert_eq!(
        events[2].asked,
        [pair("user_id", "a b"), pair("limit", "5")]
    );
    assert_eq!(events[3].action, "GET /v1/users/{user_id}/summary");
    assert_eq!((events[3].status, events[3].rows), (200, 1));
    assert_eq!(events[4].status, 400);
    service.stop().await;
}

async fn requests_without_a_right_are_in_the_audit_by_caller_and_number(store: Arc<TestStore>) {
    let service = Service::start_with(&store, TestLog::open(), |config| {
        with_keys(config);
        let writer = ApiKeyConfig {
            scopes: vec![Scope::TRANSACTIONS_WRITE],
            ..key("writer", Some("acme"))
        };
        config.api_keys.push(writer);
    })
    .await;
    service.ready().await;
    for _ in 0..30 {
        assert_eq!(ask(&service, "nobody", "/v1/decisions/secret").await.0, 401);
        assert_eq!(ask(&service, "writer", "/v1/stats").await.0, 403);
    }
    // They are written once a minute, and at the end.
    service.stop().await;
    let (links, _) = audit(&store, None).await;
    let events: Vec<AuditEvent> = links
        .iter()
        .map(|link| serde_json::from_str(&link.entry).unwrap())
        .collect();
    let found: Vec<_> = events
        .iter()
        .map(|event| (&*event.caller, &*event.tenant, event.status, &*event.action))
        .collect();
    let unknown = ("", "", 401, "GET /v1/decisions/{transaction_id}");
    assert_eq!(found, [unknown, ("writer", "acme", 403, "GET /v1/stats")]);
    for event in &events {
        let count = ("refusals".to_owned(), "30".to_owned());
        assert_eq!((&event.asked, &*event.peer), (&vec![count], "127.0.0.1"));
    }
}

async fn a_changed_removed_or_cut_off_entry_of_the_audit_is_detected(store: Arc<TestStore>) {
    let service = filled(&store).await;
    for id in ["a", "b", "c", "d"] {
        ask(&service, "acme", &format!("/v1/decisions/{id}")).await;
    }
    service.stop().await;
    let (links, head) = audit(&store, None).await;
    let head = head.unwrap();
    assert_eq!((head.seq, links.len()), (4, 4));
    // The store itself refuses changes, as long as nobody takes its triggers away.
    for sql in [
        "UPDATE audit SET entry = 'x' WHERE seq = 2",
        "DELETE FROM audit WHERE seq = 4",
    ] {
        let refused = store.try_execute(sql).await.unwrap_err();
        assert!(refused.contains("append-only"), "{refused}");
    }
    store.drop_audit_triggers().await;
    let without_end = async || {
        store.execute("DELETE FROM audit WHERE seq = 4").await;
        audit(&store, Some(head)).await.1.unwrap_err()
    };
    assert!(without_end().await.contains("cut off"));
    // Without the head that was kept elsewhere, a cut end is the one thing that is not noticed.
    assert_eq!(audit(&store, None).await.1.unwrap().seq, 3);
    let asked = "UPDATE audit SET entry = replace(entry, '\"b\"', '\"x\"') WHERE seq = 2";
    store.execute(asked).await;
    let broken = audit(&store, None).await.1.unwrap_err();
    assert!(broken.contains("entry 2"), "{broken}");
    store.execute("DELETE FROM audit WHERE seq = 2").await;
    let broken = audit(&store, None).await.1.unwrap_err();
    assert!(broken.contains("removed or inserted"), "{broken}");
}

async fn entries_beyond_the_retention_are_removed_and_the_rest_of_the_chain_is_verified(
    store: Arc<TestStore>,
) {
    let log = AuditLog::open(&config(&store)).await.unwrap();
    assert!(
        log.verify(None)
            .await
            .unwrap_err()
            .to_string()
            .contains("audit.mode")
    );
    log.migrate().await.unwrap();
    let event = |user: &str, time| AuditEvent {
        time,
        caller: "plain".into(),
        tenant: String::new(),
        peer: "127.0.0.1".into(),
        action: "GET /v1/users/{user_id}/summary".into(),
        asked: vec![("user_id".into(), user.into())],
        status: 200,
        rows: 1,
    };
    let long_ago = tollgate_types::Timestamp::parse("2020-01-01T00:00:00Z").unwrap();
    let now = tollgate_service::now();
    let old = log
        .append(&["a", "b", "c"].map(|user| event(user, long_ago)))
        .await
        .unwrap();
    // Behind a recent entry, an old one is kept: only a beginning is removed.
    let recent = [event("d", now), event("e", long_ago)];
    let recent = log.append(&recent).await.unwrap();
    log.close().await;
    let service = Service::start_with(&store, TestLog::open(), |config| {
        with_keys(config);
        config.audit.retention_days = Some(30);
    })
    .await;
    service.ready().await;
    let removed = "SELECT count(*) FROM audit WHERE seq <= 3";
    until("the old entries are removed", async || {
        store.number(removed).await == 0
    })
    .await;
    ask(&service, "acme", "/v1/decisions/a").await;
    service.stop().await;
    let (links, head) = audit(&store, Some(recent)).await;
    let numbers: Vec<u64> = links.iter().map(|link| link.head.seq).collect();
    assert_eq!((numbers, head.unwrap().seq), (vec![4, 5, 6, 7], 7));
    assert!(
        links[2].entry.contains(&old.to_string()),
        "{}",
        links[2].entry
    );
    let expired = audit(&store, Some(old)).await.1.unwrap_err();
    assert!(expired.contains("audit.retention_days"), "{expired}");
    let refused = store
        .try_execute("DELETE FROM audit WHERE seq = 4")
        .await
        .unwrap_err();
    assert!(refused.contains("append-only"), "{refused}");

    // More than the retention removed.
    store.drop_audit_triggers().await;
    store.execute("DELETE FROM audit WHERE seq = 4").await;
    let broken = audit(&store, None).await.1.unwrap_err();
    assert!(broken.contains("the beginning was cut off"), "{broken}");
}

async fn without_the_audit_nothing_is_answered_if_it_is_required(store: Arc<TestStore>) {
    let service = filled(&store).await;
    assert_eq!(ask(&service, "acme", "/v1/decisions/t").await.0, 200);
    store.execute("ALTER TABLE audit RENAME TO gone").await;
    let (status, problem) = ask(&service, "acme", "/v1/decisions/t").await;
    assert_eq!(status, 503, "{problem}");
    assert!(problem.get("fraud_score").is_none());
    assert_eq!(ask(&service, "acme", "/v1/stats").await.0, 200);
    store.execute("ALTER TABLE gone RENAME TO audit").await;
    assert_eq!(ask(&service, "acme", "/v1/decisions/t").await.0, 200);
    service.stop().await;

    let lenient = Service::start_with(&store, TestLog::open(), |config| {
        with_keys(config);
        config.audit.mode = AuditMode::BestEffort;
    })
    .await;
    lenient.ready().await;
    store.execute("ALTER TABLE audit RENAME TO gone").await;
    assert_eq!(ask(&lenient, "acme", "/v1/decisions/t").await.0, 200);
    lenient.stop().await;
}
