//! API keys, rate limits and admission control.

use std::sync::mpsc;

use tollgate_ingest::RateLimitConfig;
use tollgate_service::http::{ApiKeyConfig, ApiKeys, Scope};

use crate::support::{
    Answer, JSON, NDJSON, Pieces, Scorer, config, embedded, eventually, start, transaction,
};

pub(crate) fn key(name: &str, key: &str) -> ApiKeyConfig {
    ApiKeyConfig {
        name: name.to_owned(),
        hash: ApiKeys::hash_of(key),
        scopes: vec![Scope::TRANSACTIONS_WRITE],
        ..ApiKeyConfig::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_with_the_scope_is_admitted_and_others_get_the_reason() {
    let service = start(|config| {
        let reader = ApiKeyConfig {
            scopes: vec![Scope::DECISIONS_READ],
            ..key("reader", "r")
        };
        config.api_keys = vec![key("writer", "w"), reader];
    })
    .await;
    let answer = service.send(JSON, transaction("t", "u")).await;
    answer.is_problem(401);
    assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
    for (name, value, status) in [
        ("authorization", "Bearer x", 401),
        ("authorization", "Bearer r", 403),
        ("authorization", "Bearer w", 202),
        ("x-api-key", "w", 202),
    ] {
        let request = service
            .post(JSON, transaction("t", "u"))
            .header(name, value);
        let answer = Answer::of(request.send().await.unwrap()).await;
        assert_eq!(answer.status, status, "{}", answer.text);
    }
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn listening_beyond_loopback_without_a_key_is_refused_at_start() {
    let mut config = config();
    config.listen = "0.0.0.0:0".parse().unwrap();
    let refused = tollgate_ingest::start(config, embedded(), Default::default()).await;
    let message = refused.unwrap_err().to_string();
    assert!(message.starts_with("ingest.api_keys: "), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_over_its_rate_gets_429_until_its_bucket_has_refilled_and_other_keys_are_not_affected()
 {
    let service = start(|config| {
        config.api_keys = vec![key("a", "a"), key("b", "b")];
        config.rate_limit = RateLimitConfig {
            transactions_per_second: 1,
            burst: 3,
        };
    })
    .await;
    let send = async |key: &str, items: usize| {
        let lines = vec![transaction("t", "u"); items].join("\n");
        let request = service.post(NDJSON, lines).header("x-api-key", key);
        Answer::of(request.send().await.unwrap()).await
    };
    assert_eq!(send("a", 3).await.status, 202);
    let answer = send("a", 3).await;
    answer.is_problem(429);
    assert!((1..=3).contains(&answer.retry_after()));
    assert_eq!(send("b", 3).await.status, 202);
    // More than the burst: retrying would not help.
    send("b", 4).await.is_problem(413);
    eventually("the bucket fills again", async || {
        send("a", 1).await.status == 202
    })
    .await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_beyond_the_limit_are_rejected_at_once_and_those_in_flight_complete() {
    let service = start(|config| config.max_in_flight = 1).await;
    let (received, seen) = mpsc::channel();
    let (release, held) = mpsc::channel::<()>();
    let scorer = Scorer::start(&service.kafka, move |record| {
        received.send(()).unwrap();
        held.recv().unwrap();
        vec![record.payload.clone()]
    });
    let waiting = service.post(JSON, transaction("t", "u"));
    let waiting = tokio::spawn(waiting.header("prefer", "wait=20").send());
    tokio::task::spawn_blocking(move || seen.recv().unwrap())
        .await
        .unwrap();
    let answer = service.send(JSON, transaction("t2", "u")).await;
    answer.is_problem(503);
    assert_eq!(answer.retry_after(), 1);
    release.send(()).unwrap();
    assert_eq!(waiting.await.unwrap().unwrap().status(), 200);
    assert_eq!(service.send(JSON, transaction("t3", "u")).await.status, 202);
    let metrics = service.metrics().await;
    assert!(metrics.contains("tollgate_ingest_shed_total{reason=\"requests\"}"));
    drop(scorer);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_of_bodies_are_bounded_over_all_requests() {
    let service = start(|config| {
        config.max_transaction_bytes = 1_000;
        config.max_body_bytes = 1_000;
        config.max_in_flight_bytes = 1_000;
    })
    .await;
    let mut first = Pieces::begin(&service, NDJSON).await;
    first.send(&" ".repeat(900)).await;
    eventually("the first body holds its bytes", async || {
        let body = transaction("t", "u") + &" ".repeat(200);
        service.send(JSON, body).await.status == 503
    })
    .await;
    first.send(&transaction("t", "u")).await;
    let answer = first.end().await;
    assert_eq!(answer.status, 202, "{}", answer.text);
    assert_eq!(service.send(JSON, transaction("t", "u")).await.status, 202);
    service.stop().await;
}

/// The entries of a file of keys.
fn file_of(keys: &[&str]) -> String {
    let entry = |key: &&str| {
        let hash = ApiKeys::hash_of(key);
        format!(
            "[[api_keys]]\nname = \"shop\"\nhash = \"{hash}\"\nscopes = [\"transactions:write\"]\n"
        )
    };
    keys.iter().map(entry).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_rotated_under_load_without_a_refused_request_and_the_old_one_ends() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys.toml");
    // As Kubernetes replaces a mounted secret: by a rename, so that no half of it is read.
    let publish = |keys: &[&str]| {
        let new = folder.path().join("new");
        std::fs::write(&new, file_of(keys)).unwrap();
        std::fs::rename(&new, &path).unwrap();
    };
    publish(&["old"]);
    let service = start(|config| config.api_keys_file = Some(path.clone())).await;
    let with = async |key: &str, id: &str| {
        let request = service.post(JSON, transaction(id, "u")).bearer_auth(key);
        Answer::of(request.send().await.unwrap()).await.status
    };
    assert_eq!(with("new", "0").await, 401);

    let sent = std::cell::Cell::new(0_u32);
    let stop = std::cell::Cell::new(false);
    let load = async {
        while !stop.get() {
            assert_eq!(with("old", &format!("t{}", sent.get())).await, 202);
            sent.set(sent.get() + 1);
        }
    };
    let rotation = async {
        publish(&["old", "new"]);
        eventually("the new key is admitted", async || {
            with("new", "n").await == 202
        })
        .await;
        stop.set(true);
    };
    tokio::join!(load, rotation);
    assert!(sent.get() > 0);

    std::fs::write(&path, "[[api_keys]]\nname = ").unwrap();
    eventually("the broken file is reported", async || {
        let metrics = service.metrics().await;
        metrics.contains("tollgate_api_keys_file_broken{service=\"ingest\"} 1")
    })
    .await;
    assert_eq!(with("new", "n").await, 202);

    publish(&["new"]);
    eventually("the old key is refused", async || {
        with("old", "n").await == 401
    })
    .await;
    assert_eq!(with("new", "n").await, 202);
    let on_log = service.all(&service.kafka.topics().transactions);
    let on_log: Vec<String> = on_log
        .into_iter()
        .map(|record| String::from_utf8(record.payload).unwrap())
        .collect();
    for index in 0..sent.get() {
        let id = format!("\"t{index}\"");
        assert!(on_log.iter().any(|text| text.contains(&id)), "{id}");
    }
    service.stop().await;
}
