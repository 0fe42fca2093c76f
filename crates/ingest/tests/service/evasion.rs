//! What a fraudster tries: transactions at the limit of the size, ids in many spellings, old timestamps, and headers that
//! only ingest may write.

use serde_json::{Value, json};
use tollgate_ingest::IngestConfig;
use tollgate_service::http::{ApiKeyConfig, Scope};
use tollgate_types::{Transaction, UserIdCase};

use crate::keys_and_limits::key;
use crate::support::{Answer, JSON, NDJSON, Scorer, Service, start, transaction};

const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const LIMIT: usize = 256 * 1024;

/// A transaction whose text has this length.
fn of_length(id: &str, bytes: usize) -> String {
    let text = transaction(id, "u").replace("12.5", "12.5,\"x\":\"\"");
    text.replace("\"\"", &format!("\"{}\"", "x".repeat(bytes - text.len())))
}

async fn send_with(service: &Service, headers: &[(&str, &str)], body: String) -> Answer {
    let mut request = service.post(NDJSON, body);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    Answer::of(request.send().await.unwrap()).await
}

/// It was accepted, grew by its trace, and the scorer dead-lettered it.
#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_at_the_limit_is_written_within_the_limit_whatever_its_trace() {
    let service = start(|_| ()).await;
    for (headers, bytes) in [
        (&[("traceparent", TRACE)][..], LIMIT),
        (&[("traceparent", TRACE), ("prefer", "wait=0")], LIMIT - 10),
        (&[("traceparent", TRACE)], LIMIT - 100),
    ] {
        let answer = send_with(&service, headers, of_length("t", bytes)).await;
        assert_eq!(answer.status, 202, "{}", answer.text);
    }
    let answer = send_with(&service, &[], of_length("t", LIMIT + 1)).await;
    assert_eq!(answer.status, 422);
    let records = service.records(3);
    for record in &records {
        assert!(record.payload.len() <= LIMIT);
        assert!(Transaction::parse(record.payload.as_bytes()).is_ok());
        assert!(record.header("traceparent").is_some());
    }
    // Where there is room for it, the member is there too.
    let last = Transaction::parse(records[2].payload.as_bytes()).unwrap();
    assert!(last.trace().is_some());
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn spellings_of_one_user_have_one_key_and_invisible_ones_are_refused() {
    let service = start(|_| ()).await;
    let users = [
        "andré",
        "andre\u{301}",
        "an\u{200b}dré",
        "an\\tdré",
        "\u{430}ndré",
        "ANDRÉ",
    ];
    let lines = users.map(|user| transaction("t", user));
    let answer = send_with(&service, &[], lines.join("\n")).await;
    assert_eq!(answer.status, 202, "{}", answer.text);
    let rejected: Vec<&Value> = answer.body["results"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|result| result["status"] == "rejected")
        .collect();
    assert_eq!(rejected.len(), 2);
    for (result, code) in rejected.iter().zip(["U+200B", "U+0009"]) {
        assert_eq!(result["field"], "user_id");
        assert!(
            result["reason"].as_str().unwrap().contains(code),
            "{result}"
        );
    }
    let records = service.records(4);
    let mut keys: Vec<&str> = records.iter().map(|record| record.key.as_str()).collect();
    keys.sort_unstable();
    assert_eq!(keys, ["ANDRÉ", "andré", "andré", "\u{430}ndré"]);
    for record in &records {
        let carried: Value = serde_json::from_str(&record.payload).unwrap();
        assert_eq!(carried["user_id"], record.key);
    }
    let metrics = service.metrics().await;
    assert!(metrics.contains("tollgate_ingest_mixed_script_ids_total{field=\"user_id\"}"));
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_folded_ids_case_makes_no_other_user_and_a_waiting_caller_gets_its_decision() {
    let service = start(|config| config.user_id_case = UserIdCase::Fold).await;
    let _scorer = Scorer::start(&service.kafka, |record| {
        let text = format!(
            r#"{{"transaction_id":"t","user_id":"{}","status":"approved"}}"#,
            record.key
        );
        vec![text]
    });
    let lines = ["Ada", "ADA", "ada"].map(|user| transaction("t", user));
    let answer = send_with(&service, &[("prefer", "wait=20")], lines.join("\n")).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert_eq!(answer.body["decisions"].as_array().unwrap().len(), 3);
    for record in service.records(3) {
        assert_eq!(record.key, "ada");
        assert!(record.payload.contains(r#""user_id":"ada""#));
    }
    service.stop().await;
}

fn backfiller() -> ApiKeyConfig {
    ApiKeyConfig {
        scopes: vec![Scope::TRANSACTIONS_WRITE, Scope::TRANSACTIONS_BACKFILL],
        ..key("archive", "a")
    }
}

/// An old timestamp is scored without the history that it belongs to.
#[tokio::test(flavor = "multi_thread")]
async fn old_timestamps_need_a_key_for_backfill_where_there_are_keys() {
    let service = start(|config| {
        config.api_keys = vec![key("shop", "s"), backfiller()];
        config.max_age_hours = IngestConfig::default().max_age_hours;
    })
    .await;
    let hours_ago = |hours: i64| {
        let at = chrono::Utc::now() - chrono::TimeDelta::hours(hours);
        transaction("t", "u").replace("2026-03-01T12:30:00Z", &at.to_rfc3339())
    };
    for (name, hours, status) in [("s", 71, 202), ("s", 73, 422), ("a", 73, 202)] {
        let answer = send_with(&service, &[("x-api-key", name)], hours_ago(hours)).await;
        assert_eq!(answer.status, status, "{}", answer.text);
        if status == 422 {
            assert_eq!(answer.body["results"][0]["field"], "timestamp");
        }
    }
    service.stop().await;
    // Without keys old files can be tried.
    let service = start(|_| ()).await;
    assert_eq!(service.send(JSON, hours_ago(24 * 365)).await.status, 202);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn backfill_needs_its_scope_and_is_marked_and_not_waited_for() {
    let service = start(|config| config.api_keys = vec![key("shop", "s"), backfiller()]).await;
    let backfill = |key| {
        [
            ("x-api-key", key),
            ("tollgate-backfill", "1"),
            ("prefer", "wait=9"),
        ]
    };
    let answer = send_with(&service, &backfill("s"), transaction("t", "u")).await;
    answer.is_problem(403);
    assert!(answer.text.contains("transactions:backfill"));
    let wrong = [("x-api-key", "a"), ("tollgate-backfill", "yes")];
    let answer = send_with(&service, &wrong, transaction("t", "u")).await;
    answer.is_problem(400);
    let answer = send_with(&service, &backfill("a"), transaction("t", "u")).await;
    assert_eq!(answer.status, 202, "{}", answer.text);
    let record = &service.records(1)[0];
    assert_eq!(record.header("tollgate-backfill"), Some("1"));
    assert_eq!(record.header("reply-to"), None);
    // The first 16 digits of `printf archive | sha256sum`.
    let sender = record.header("tollgate-sender").unwrap();
    assert_eq!(sender.len(), 16);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sender_is_that_of_the_key_whatever_a_caller_claims() {
    let keys = vec![key("shop", "s"), key("shop-2", "s2")];
    let service = start(|config| config.api_keys = keys).await;
    let now = chrono::Utc::now().to_rfc3339();
    let body = transaction("t", "u").replace("2026-03-01T12:30:00Z", &now);
    for key in ["s", "s2"] {
        let headers = [
            ("x-api-key", key),
            ("tollgate-sender", "0000000000000000"),
            ("tollgate-tenant", "other"),
            ("tollgate-backfill", "0"),
        ];
        let answer = send_with(&service, &headers, body.clone()).await;
        assert_eq!(answer.status, 202, "{}", answer.text);
    }
    let event = json!({"specversion": "1.0", "id": "1", "type": "t", "source": "/s", "tollgatesender": "0", "data": serde_json::from_str::<Value>(&body).unwrap()});
    let url = format!("{}/v1/events", service.url);
    let request = service
        .client
        .post(url)
        .header("x-api-key", "s2")
        .json(&event);
    assert_eq!(Answer::of(request.send().await.unwrap()).await.status, 202);
    let records = service.records(3);
    let senders: Vec<&str> = records
        .iter()
        .map(|record| record.header("tollgate-sender").unwrap())
        .collect();
    // printf shop | sha256sum
    assert_eq!(senders[0], "8d9001d32c6a703d");
    assert!(senders[1] == senders[2] && senders[0] != senders[1]);
    for record in &records {
        assert_eq!(record.header("tollgate-tenant"), None);
        assert_eq!(record.header("tollgate-backfill"), None);
    }
    service.stop().await;
}
