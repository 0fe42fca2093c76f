//! The order in which transactions reach the log, and those that are late.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use tollgate_ingest::{IngestConfig, SourceConfig};
use tollgate_service::http::{ApiKeyConfig, Scope};

use crate::imports::{created, ended, request_import, with_source};
use crate::keys_and_limits::key;
use crate::support::{JSON, NDJSON, Service, config, embedded, eventually, start, start_with};

fn at(id: &str, user: &str, timestamp: &str) -> String {
    format!(
        r#"{{"transaction_id":"{id}","user_id":"{user}","amount":1,"timestamp":"{timestamp}"}}"#
    )
}

/// Newest first, of three users, each timestamp twice.
fn newest_first(rows: usize) -> Vec<String> {
    (0..rows)
        .map(|n| {
            let second = (rows - n) / 2;
            let time = format!(
                "2026-03-01T{:02}:{:02}:{:02}Z",
                second / 3600,
                second / 60 % 60,
                second % 60
            );
            at(&format!("t{n:05}"), &format!("u{}", n % 3), &time)
        })
        .collect()
}

/// The timestamp and the id of each transaction on the log, by user, in the order of the log.
fn by_user(service: &Service) -> BTreeMap<String, Vec<(String, String)>> {
    let mut users: BTreeMap<String, Vec<(String, String)>> = BTreeMap::new();
    for record in service.all(&service.kafka.topics().transactions) {
        let transaction: Value = serde_json::from_slice(&record.payload).unwrap();
        let text = |name: &str| transaction[name].as_str().unwrap().to_owned();
        let of = users.entry(text("user_id")).or_default();
        of.push((text("timestamp"), text("transaction_id")));
    }
    users
}

fn in_time_order(service: &Service, rows: usize) {
    let users = by_user(service);
    assert_eq!(users.values().map(Vec::len).sum::<usize>(), rows);
    for found in users.values() {
        // The ids grow in the order of the object, so that equal timestamps stay in it.
        let mut sorted = found.clone();
        sorted.sort();
        assert_eq!(found, &sorted);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_is_newest_first_reaches_the_log_in_the_order_of_its_timestamps() {
    let service = start(|_| {}).await;
    let rows = newest_first(60);
    let body = format!("[{}]", rows.join(","));
    let answer = service.send(JSON, body).await;
    assert_eq!(answer.status, 202, "{}", answer.text);
    // The results stay in the order of the request.
    assert_eq!(answer.body["results"][0]["transaction_id"], "t00000");
    assert_eq!(answer.body["late"], 0);
    in_time_order(&service, 60);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_that_is_newest_first_reaches_the_log_in_the_order_of_its_timestamps() {
    for memory in [64 << 20, 10_000] {
        let (directory, runs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let mut rows = newest_first(3_000);
        rows.insert(1_000, "nonsense".to_owned());
        std::fs::write(directory.path().join("day.ndjson"), rows.join("\n")).unwrap();
        let source = with_source(&directory);
        let service = start(|config| {
            source(config);
            config.import_sort_memory_bytes = memory;
            config.import_sort_directory = Some(runs.path().to_owned());
        })
        .await;
        let import = request_import(&service, created("day.ndjson", "v1")).await;
        let end = ended(&service, &import).await;
        assert_eq!(
            (&end["accepted"], &end["rejected"], &end["late"]),
            (&json!(3_000), &json!(1), &json!(0)),
            "{end}"
        );
        in_time_order(&service, 3_000);
        assert_eq!(service.letters()[0].header("source.line"), Some("1001"));
        assert_eq!(std::fs::read_dir(runs.path()).unwrap().count(), 0);
        service.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_import_of_an_object_that_is_newest_first_loses_nothing() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(
        directory.path().join("day.jsonl"),
        newest_first(6_000).join("\n"),
    )
    .unwrap();
    let kafka = embedded();
    let mut slow = config();
    with_source(&directory)(&mut slow);
    slow.import_rows_per_second = 1_500;
    let service = start_with(kafka.clone(), slow.clone()).await;
    eventually("ready", async || service.readiness().await.status == 200).await;
    let import = request_import(&service, created("day.jsonl", "v1")).await;
    eventually("the first rows are there", async || {
        status(&service, &import).await["rows"].as_u64() >= Some(2_000)
    })
    .await;
    service.stop().await;

    slow.import_rows_per_second = 0;
    slow.import_sort_memory_bytes = 20_000;
    let service = start_with(kafka, slow).await;
    let end = ended(&service, &import).await;
    assert_eq!(
        (&end["import"], &end["rows"], &end["accepted"]),
        (&json!("done"), &json!(6_000), &json!(6_000))
    );
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for (_, id) in by_user(&service).into_values().flatten() {
        *counts.entry(id).or_default() += 1;
    }
    assert_eq!(counts.len(), 6_000);
    let repeated = counts.values().filter(|count| **count > 1).count();
    assert!(repeated <= 1_000, "{repeated} rows came twice");
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn runs_that_cannot_be_written_end_the_import_with_a_reason_that_names_the_setting() {
    let directory = tempfile::tempdir().unwrap();
    let runs = tempfile::tempdir().unwrap();
    std::fs::write(
        directory.path().join("day.ndjson"),
        newest_first(100).join("\n"),
    )
    .unwrap();
    let source = with_source(&directory);
    let path = runs.path().to_owned();
    let service = start(|config| {
        source(config);
        config.import_sort_memory_bytes = 1;
        config.import_sort_directory = Some(path);
    })
    .await;
    runs.close().unwrap();
    let import = request_import(&service, created("day.ndjson", "v1")).await;
    let end = ended(&service, &import).await;
    let reason = end["reason"].as_str().unwrap();
    assert!(reason.contains("ingest.import_sort_directory"), "{reason}");
    assert!(by_user(&service).is_empty());
    service.stop().await;
}

pub(crate) async fn status(service: &Service, import: &str) -> Value {
    let path = format!("/v1/imports/{import}");
    crate::support::Answer::of(service.get(&path).await)
        .await
        .body
}

/// Trial 22: a burst of 10 March, after one payment of 20 March.
const NEWEST: &str = "2026-03-20T12:00:00Z";

fn burst() -> Vec<String> {
    (0..8)
        .map(|n| at(&format!("b{n}"), "u", &format!("2026-03-10T10:00:0{n}Z")))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_and_an_import_say_how_many_transactions_are_older_than_the_history() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("burst.ndjson"), burst().join("\n")).unwrap();
    let service = start(with_source(&directory)).await;
    let newest = service.send(NDJSON, at("n", "u", NEWEST)).await;
    assert_eq!(newest.body["late"], 0, "{}", newest.text);
    let late = service.send(NDJSON, burst().join("\n")).await;
    assert_eq!(late.body["late"], 8, "{}", late.text);
    let import = request_import(&service, created("burst.ndjson", "v1")).await;
    let end = ended(&service, &import).await;
    assert_eq!((&end["late"], &end["accepted"]), (&json!(8), &json!(8)));
    let metrics = service.metrics().await;
    assert!(metrics.contains("tollgate_ingest_late_total"), "{metrics}");
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_is_backfill_if_its_source_or_its_event_says_so() {
    for (of_source, of_event, expected) in [
        (false, "0", None),
        (true, "0", Some("1")),
        (false, "1", Some("1")),
    ] {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("burst.ndjson"), burst().join("\n")).unwrap();
        let source = SourceConfig {
            backfill: of_source,
            ..crate::imports::source(directory.path())
        };
        let service = start(|config: &mut IngestConfig| config.sources = vec![source]).await;
        let event = created("burst.ndjson", "v1");
        let answer = service
            .post_to("/v1/events", &[("tollgate-backfill", of_event)], event)
            .await;
        let import = answer.body["results"][0]["import"].as_str().unwrap();
        ended(&service, import).await;
        for record in service.all(&service.kafka.topics().transactions) {
            assert_eq!(record.header("tollgate-backfill"), expected);
        }
        service.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_rows_that_are_rejected_for_the_same_reason_is_cut_off_with_a_count() {
    let directory = tempfile::tempdir().unwrap();
    let mut rows = newest_first(200);
    rows.extend(std::iter::repeat_n("nonsense".to_owned(), 150));
    std::fs::write(directory.path().join("day.ndjson"), rows.join("\n")).unwrap();
    let source = with_source(&directory);
    let service = start(|config| {
        source(config);
        config.import_equal_letters = 10;
    })
    .await;
    let import = request_import(&service, created("day.ndjson", "v1")).await;
    let end = ended(&service, &import).await;
    assert_eq!(
        (&end["rows"], &end["accepted"], &end["rejected"]),
        (&json!(350), &json!(200), &json!(150))
    );
    let letters = service.letters();
    assert_eq!(letters.len(), 11);
    let last = letters
        .iter()
        .find(|letter| letter.header("error.kind") == Some("cut_off"))
        .unwrap();
    let reason = last.header("error.reason").unwrap();
    assert!(
        reason.starts_with("140 more rows, from line 211 to line 350,"),
        "{reason}"
    );
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_sends_transactions_can_ask_what_became_of_an_object_of_its_tenant() {
    let directory = tempfile::tempdir().unwrap();
    let mut rows = newest_first(20);
    rows.push("nonsense".to_owned());
    let text = rows.join("\n");
    std::fs::write(directory.path().join("day.ndjson"), &text).unwrap();
    let source = with_source(&directory);
    let keys = vec![
        key("own", "own"),
        ApiKeyConfig {
            tenant: Some("other".to_owned()),
            ..key("other", "other")
        },
        ApiKeyConfig {
            scopes: vec![Scope::DECISIONS_READ],
            ..key("reader", "reader")
        },
    ];
    let service = start(|config| {
        source(config);
        config.api_keys = keys;
    })
    .await;
    let own = ("x-api-key", "own");
    let answer = service
        .post_to("/v1/events", &[own], created("day.ndjson", "v1"))
        .await;
    let import = answer.body["results"][0]["import"].as_str().unwrap();
    ended(&service, import).await;
    let ask = async |key: Option<&str>, id: &str| {
        let mut request = service
            .client
            .get(format!("{}/v1/imports/{id}", service.url));
        if let Some(key) = key {
            request = request.header("x-api-key", key);
        }
        crate::support::Answer::of(request.send().await.unwrap()).await
    };
    eventually("the end is answered", async || {
        ask(Some(own.1), import).await.body["state"] == "done"
    })
    .await;
    let found = ask(Some(own.1), import).await.body;
    let expected = json!({
        "id": import, "state": "done", "bucket": "payments", "object": "day.ndjson", "event_id": "event-day.ndjson-v1",
        "rows": 21, "accepted": 20, "rejected": 1, "late": 0, "bytes": text.len(), "size": text.len(),
        "version": found["version"],
    });
    assert_eq!(found, expected);
    ask(Some(own.1), "import_of_nothing").await.is_problem(404);
    ask(Some("other"), import).await.is_problem(404);
    ask(Some("reader"), import).await.is_problem(403);
    ask(None, import).await.is_problem(401);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_json_array_and_indented_objects_are_imported_without_a_dead_letter() {
    let directory = tempfile::tempdir().unwrap();
    let indented: Vec<String> = newest_first(2_000)
        .iter()
        .map(|row| {
            let value: Value = serde_json::from_str(row).unwrap();
            serde_json::to_string_pretty(&value).unwrap()
        })
        .collect();
    let write = |name: &str, text: String| {
        std::fs::write(directory.path().join(name), text).unwrap();
    };
    write("a.json", format!("[\n{}\n]\n", indented.join(",\n")));
    write("b.json", indented.join("\n"));
    write(
        "c.json",
        format!("\u{feff}[{}]", newest_first(2_000).join(",")),
    );
    write("d.ndjson", format!("[{}", newest_first(2_000).join(",")));
    let service = start(with_source(&directory)).await;
    for object in ["a.json", "b.json", "c.json"] {
        let import = request_import(&service, created(object, "v1")).await;
        let end = ended(&service, &import).await;
        assert_eq!(
            (&end["import"], &end["accepted"]),
            (&json!("done"), &json!(2_000)),
            "{object}: {end}"
        );
    }
    // The rows before the end that is missing are imported.
    let import = request_import(&service, created("d.ndjson", "v1")).await;
    let end = ended(&service, &import).await;
    let reason = end["reason"].as_str().unwrap();
    assert!(reason.contains("is not closed"), "{reason}");
    assert_eq!(end["accepted"], 2_000);
    assert!(service.letters().is_empty());
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_objects_of_a_folder_are_imported_in_the_order_of_their_first_timestamps() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::create_dir(directory.path().join("march")).unwrap();
    let days = [20, 1, 27, 10];
    for day in days {
        let rows: Vec<String> = (0..50)
            .rev()
            .map(|n| {
                at(
                    &format!("d{day}-{n}"),
                    "u",
                    &format!("2026-03-{day:02}T10:00:{n:02}Z"),
                )
            })
            .collect();
        let path = directory.path().join(format!("march/{day}.ndjson"));
        std::fs::write(path, rows.join("\n")).unwrap();
    }
    let service = start(with_source(&directory)).await;
    let mut imports = Vec::new();
    for day in days {
        let event = created(&format!("march/{day}.ndjson"), "v1");
        imports.push(request_import(&service, event).await);
    }
    for import in &imports {
        let end = ended(&service, import).await;
        assert_eq!(
            (&end["accepted"], &end["late"]),
            (&json!(50), &json!(0)),
            "{end}"
        );
    }
    in_time_order(&service, 200);
    service.stop().await;
}
