//! Imports of objects, from a directory of the test's own.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use tempfile::TempDir;
use tollgate_ingest::{IngestConfig, SourceConfig};

use crate::support::{Service, config, embedded, eventually, start, start_with, transaction};

pub(crate) fn source(directory: &Path) -> SourceConfig {
    SourceConfig {
        bucket: "payments".into(),
        url: format!("file://{}", directory.display()),
        ..SourceConfig::default()
    }
}

pub(crate) fn with_source(directory: &TempDir) -> impl FnOnce(&mut IngestConfig) {
    let source = source(directory.path());
    |config| config.sources = vec![source]
}

/// The event of Object Storage for a new object.
pub(crate) fn created(object: &str, version: &str) -> String {
    json!({
        "eventType": "com.oraclecloud.objectstorage.createobject", "cloudEventsVersion": "0.1", "eventTypeVersion": "2.0",
        "source": "ObjectStorage", "eventTime": "2026-01-21T16:26:30.849Z", "contentType": "application/json",
        "data": {
            "resourceName": object, "resourceId": format!("/n/ns/b/payments/o/{object}"),
            "additionalDetails": {"bucketName": "payments", "namespace": "ns", "eTag": version, "archivalState": "Available"},
        },
        "eventID": format!("event-{object}-{version}"), "extensions": {"compartmentId": "c"},
    })
    .to_string()
}

/// Sends an event and returns the id of its import.
pub(crate) async fn request_import(service: &Service, event: String) -> String {
    let answer = service.post_to("/v1/events", &[], event).await;
    assert_eq!(answer.status, 202, "{}", answer.text);
    answer.body["results"][0]["import"]
        .as_str()
        .unwrap()
        .to_owned()
}

/// The last record of an import.
fn last_record(service: &Service, import: &str) -> Value {
    let mut entries = service.all(&service.kafka.topics().imports);
    entries.retain(|record| record.key.as_deref() == Some(import.as_bytes()));
    entries
        .last()
        .map(|record| serde_json::from_slice(&record.payload).unwrap())
        .unwrap_or_default()
}

pub(crate) async fn ended(service: &Service, import: &str) -> Value {
    let mut last = Value::Null;
    eventually("the import ends", async || {
        last = last_record(service, import);
        ["done", "failed"].iter().any(|end| last["import"] == *end)
    })
    .await;
    last
}

/// How often each id is on the topic of transactions.
fn ids(service: &Service) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for record in service.all(&service.kafka.topics().transactions) {
        let transaction: Value = serde_json::from_slice(&record.payload).unwrap();
        let id = transaction["transaction_id"].as_str().unwrap().to_owned();
        *counts.entry(id).or_default() += 1;
    }
    counts
}

#[tokio::test(flavor = "multi_thread")]
async fn every_row_of_an_object_is_on_the_log_once_however_often_its_event_is_sent() {
    let directory = tempfile::tempdir().unwrap();
    let rows: Vec<String> = (0..2_500)
        .map(|n| transaction(&format!("t{n}"), &format!("u{}", n % 7)))
        .collect();
    std::fs::write(directory.path().join("day.ndjson"), rows.join("\n")).unwrap();
    let service = start(with_source(&directory)).await;
    let first = request_import(&service, created("day.ndjson", "v1")).await;
    assert_eq!(
        request_import(&service, created("day.ndjson", "v1")).await,
        first
    );
    let end = ended(&service, &first).await;
    assert_eq!(
        (&end["import"], &end["accepted"]),
        (&json!("done"), &json!(2_500))
    );
    assert_eq!(
        request_import(&service, created("day.ndjson", "v1")).await,
        first
    );
    // When a later import is done, the repeated request has been read.
    let other = request_import(&service, created("day.ndjson", "v2")).await;
    assert_ne!(other, first);
    ended(&service, &other).await;
    let counts = ids(&service);
    assert_eq!(counts.len(), 2_500);
    assert!(counts.values().all(|count| *count == 2));
    let metrics = service.metrics().await;
    assert!(metrics.contains("tollgate_import_rows_total{outcome=\"accepted\"}"));
    assert!(metrics.contains("tollgate_import_remaining_bytes 0"));
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn compressed_csv_is_imported_by_its_columns_and_invalid_rows_are_dead_lettered_with_their_lines()
 {
    let directory = tempfile::tempdir().unwrap();
    let csv = "Txn;Customer;Amount;When;Lat;Lon;Shop\n\
               t1;u;12.50;2026-03-01T12:00:00Z;52.5;13.4;a\n\
               t2;u;nonsense;2026-03-01T12:00:00Z;;;\n\
               t3;u;1;2026-03-01T12:00:00Z\n\
               t4;u;4;2026-03-01T12:00:00Z;;;b\n";
    std::fs::create_dir(directory.path().join("in")).unwrap();
    let file = std::fs::File::create(directory.path().join("in/march.csv.gz")).unwrap();
    let mut packed = GzEncoder::new(file, Compression::fast());
    packed.write_all(csv.as_bytes()).unwrap();
    packed.finish().unwrap();
    let columns = [
        ("transaction_id", "Txn"),
        ("user_id", "Customer"),
        ("amount", "Amount"),
        ("timestamp", "When"),
        ("latitude", "Lat"),
        ("longitude", "Lon"),
        ("merchant_id", "Shop"),
    ];
    let source = SourceConfig {
        prefix: "in/".into(),
        delimiter: Some(';'),
        columns: columns
            .map(|(member, column)| (member.to_owned(), column.to_owned()))
            .into(),
        ..source(directory.path())
    };
    let service = start(|config| config.sources = vec![source]).await;
    let import = request_import(&service, created("in/march.csv.gz", "v1")).await;
    let end = ended(&service, &import).await;
    assert_eq!(
        (&end["import"], &end["accepted"], &end["rejected"]),
        (&json!("done"), &json!(2), &json!(2))
    );

    let first: Value = serde_json::from_str(&service.records(2)[0].payload).unwrap();
    let expected = json!({
        "transaction_id": "t1", "user_id": "u", "amount": "12.50", "timestamp": "2026-03-01T12:00:00Z",
        "location": {"latitude": 52.5, "longitude": 13.4}, "merchant_id": "a",
    });
    assert_eq!(first, expected);
    let letters = service.letters();
    let url = format!("file://{}/in/march.csv.gz", directory.path().display());
    let reported: Vec<(Option<&str>, Option<&str>)> = letters
        .iter()
        .map(|letter| {
            assert_eq!(letter.header("source.object"), Some(url.as_str()));
            (letter.header("source.line"), letter.header("error.reason"))
        })
        .collect();
    assert_eq!(reported.len(), 2);
    assert!(
        reported.contains(&(Some("4"), Some("has 4 fields, but the header has 7"))),
        "{reported:?}"
    );
    let (_, reason) = reported
        .iter()
        .find(|(line, _)| *line == Some("3"))
        .unwrap();
    assert!(reason.unwrap().starts_with("amount: "), "{reason:?}");
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_import_continues_after_its_last_acknowledged_row() {
    let directory = tempfile::tempdir().unwrap();
    let rows: Vec<String> = (0..6_000)
        .map(|n| transaction(&format!("t{n}"), "u"))
        .collect();
    std::fs::write(directory.path().join("day.jsonl"), rows.join("\n")).unwrap();
    let kafka = embedded();
    let mut slow = config();
    slow.sources = vec![source(directory.path())];
    slow.import_rows_per_second = 1_500;
    let service = start_with(kafka.clone(), slow.clone()).await;
    eventually("ready", async || service.readiness().await.status == 200).await;
    let import = request_import(&service, created("day.jsonl", "v1")).await;
    eventually("the first rows are there", async || {
        last_record(&service, &import)["rows"].as_u64() >= Some(2_000)
    })
    .await;
    service.stop().await;

    slow.import_rows_per_second = 0;
    let service = start_with(kafka, slow).await;
    let end = ended(&service, &import).await;
    assert_eq!(
        (&end["import"], &end["rows"]),
        (&json!("done"), &json!(6_000))
    );
    let counts = ids(&service);
    assert_eq!(counts.len(), 6_000);
    let repeated = counts.values().filter(|count| **count > 1).count();
    // At most the rows that were in flight at the interruption.
    assert!(
        repeated <= 1_000 && counts["t0"] == 1,
        "{repeated} rows came twice"
    );
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_that_cannot_be_read_fails_its_import_with_the_reason_and_does_not_block_others()
{
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("columns.csv"), "id,who\n1,2\n").unwrap();
    std::fs::write(
        directory.path().join("damaged.csv"),
        [0x1f, 0x8b, 8, 0, 1, 2, 3, 4, 5, 6, 7],
    )
    .unwrap();
    std::fs::write(directory.path().join("good.ndjson"), transaction("t", "u")).unwrap();
    let rows: Vec<String> = (0..500)
        .map(|n| transaction(&format!("c{n}"), "u"))
        .collect();
    let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
    packed.write_all(rows.join("\n").as_bytes()).unwrap();
    let packed = packed.finish().unwrap();
    let cut = directory.path().join("cut.ndjson.gz");
    std::fs::write(cut, &packed[..packed.len() / 2]).unwrap();
    let service = start(with_source(&directory)).await;
    for (object, reason) in [
        ("gone.csv", "not found"),
        ("columns.csv", "no column transaction_id"),
        ("damaged.csv", "damaged"),
        ("cut.ndjson.gz", "damaged"),
    ] {
        let import = request_import(&service, created(object, "v1")).await;
        let end = ended(&service, &import).await;
        assert_eq!(end["import"], "failed");
        let text = end["reason"].as_str().unwrap().to_lowercase();
        assert!(text.contains(reason), "{object}: {text}");
    }
    let import = request_import(&service, created("good.ndjson", "v1")).await;
    assert_eq!(ended(&service, &import).await["import"], "done");
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_out_of_the_folder_of_a_source_is_not_followed() {
    let (outside, directory) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let secret = outside.path().join("secret.ndjson");
    std::fs::write(&secret, transaction("secret", "u")).unwrap();
    std::os::unix::fs::symlink(&secret, directory.path().join("a.ndjson")).unwrap();
    std::os::unix::fs::symlink(outside.path(), directory.path().join("in")).unwrap();
    let service = start(with_source(&directory)).await;
    for object in ["a.ndjson", "in/secret.ndjson"] {
        let import = request_import(&service, created(object, "v1")).await;
        let end = ended(&service, &import).await;
        assert_eq!(end["import"], "failed", "{end}");
    }
    assert!(ids(&service).is_empty());
    assert!(service.letters().is_empty());
    service.stop().await;
}

/// Of the row with a comma too many, a letter with a valid payment of 1 was made.
#[tokio::test(flavor = "multi_thread")]
async fn the_letter_of_a_row_is_what_was_sent_and_is_not_read_as_anything_else() {
    let directory = tempfile::tempdir().unwrap();
    let rows: [&[u8]; 4] = [
        b"c19-1,u-c19,2026-03-01T10:00:00Z,1,560.00",
        b"c19-2,u-c19,2026-03-01T10:01:00Z,15.60",
        b"c19-3,J\xfcrgen,2026-03-01T10:02:00Z,7",
        b"c19-4,4111 1111 1111 1111,2026-03-01T10:03:00Z,8",
    ];
    let mut object = b"transaction_id,user_id,timestamp,amount\n".to_vec();
    object.extend(rows.join(&b"\r\n"[..]));
    std::fs::write(directory.path().join("day.csv"), object).unwrap();
    let service = start(|config| {
        with_source(&directory)(config);
        config.sources[0].backfill = true;
    })
    .await;
    let import = request_import(&service, created("day.csv", "v1")).await;
    let end = ended(&service, &import).await;
    assert_eq!((&end["accepted"], &end["rejected"]), (&json!(1), &json!(3)));
    let mut letters = service.letters();
    letters.sort_by_key(|letter| letter.header("source.line").map(str::to_owned));
    let payloads: Vec<&[u8]> = letters.iter().map(|letter| &*letter.payload).collect();
    let masked: &[u8] = b"c19-4,4111 11** **** 1111,2026-03-01T10:03:00Z,8";
    assert_eq!(payloads, [rows[0], rows[2], masked]);
    let again: Vec<_> = letters
        .iter()
        .map(|letter| {
            assert_eq!(letter.header("tollgate-backfill"), Some("1"));
            let format = letter.header("payload.format").unwrap();
            tollgate_ingest::read_again(format, &letter.payload)
        })
        .collect();
    assert_eq!(
        again[0].clone().unwrap_err(),
        "has 5 fields, but the header has 4"
    );
    assert!(
        again[1]
            .clone()
            .unwrap_err()
            .starts_with("user_id: is not UTF-8")
    );
    // `tollgate dlq redrive` refuses it by this header.
    let marks: Vec<_> = letters
        .iter()
        .map(|letter| letter.header("payload.masked"))
        .collect();
    assert_eq!(marks, [None, None, Some("1")]);
    assert_eq!(letters[0].key.as_deref(), Some(&b"u-c19"[..]));
    service.stop().await;
}

/// The beginning of a line that is too long was a letter like any other.
#[tokio::test(flavor = "multi_thread")]
async fn the_letter_of_a_line_that_was_cut_says_how_long_it_was() {
    let directory = tempfile::tempdir().unwrap();
    let line = format!("{}{}x", transaction("t", "u"), " ".repeat(2_000));
    std::fs::write(directory.path().join("day.ndjson"), &line).unwrap();
    let service = start(|config| {
        with_source(&directory)(config);
        config.max_transaction_bytes = 1_000;
    })
    .await;
    let import = request_import(&service, created("day.ndjson", "v1")).await;
    ended(&service, &import).await;
    let letters = service.letters();
    assert_eq!(
        letters[0].header("payload.truncated-from"),
        Some(&*line.len().to_string())
    );
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rejected_cell_of_csv_names_the_setting_for_its_form() {
    let directory = tempfile::tempdir().unwrap();
    let object = "transaction_id,user_id,amount,timestamp\n\
                  t1,u,1.50,01.03.2026 10:00\n\
                  t2,u,EUR 1.50,2026-03-01T10:00:00Z\n";
    std::fs::write(directory.path().join("day.csv"), object).unwrap();
    let service = start(with_source(&directory)).await;
    let import = request_import(&service, created("day.csv", "v1")).await;
    assert_eq!(ended(&service, &import).await["rejected"], 2);
    let letters = service.letters();
    let reasons: Vec<&str> = letters
        .iter()
        .filter_map(|letter| letter.header("error.reason"))
        .collect();
    for setting in ["timestamp_format", "decimal"] {
        let is_named = reasons.iter().any(|reason| reason.contains(setting));
        assert!(is_named, "{setting}: {reasons:?}");
    }
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_german_export_is_imported_with_its_settings_and_fails_with_a_reason_without_them() {
    let directory = tempfile::tempdir().unwrap();
    let object =
        "Txn;Kunde;Betrag;Datum\nc1;u;12,50;01.03.2026 10:00\nc2;u;1.500;01.03.2026 10:01\n";
    std::fs::write(directory.path().join("day.csv"), object).unwrap();
    let columns = [
        ("transaction_id", "Txn"),
        ("user_id", "Kunde"),
        ("amount", "Betrag"),
        ("timestamp", "Datum"),
    ];
    let columns = columns.map(|(member, column)| (member.to_owned(), column.to_owned()));
    let bare = |config: &mut IngestConfig| {
        config.sources[0].delimiter = Some(';');
        config.sources[0].columns = columns.clone().into();
    };
    let service = start(|config| {
        with_source(&directory)(config);
        bare(config);
    })
    .await;
    let import = request_import(&service, created("day.csv", "v1")).await;
    let end = ended(&service, &import).await;
    let reason = end["reason"].as_str().unwrap();
    assert!(reason.contains("ingest.sources[].decimal"), "{reason}");
    assert!(ids(&service).is_empty() && service.letters().is_empty());
    service.stop().await;
    let service = start(|config| {
        with_source(&directory)(config);
        bare(config);
        config.sources[0].decimal = Some(',');
        config.sources[0].grouping = Some('.');
        config.sources[0].timestamp_format = Some("%d.%m.%Y %H:%M".into());
        config.sources[0].time_zone = Some("Europe/Berlin".into());
    })
    .await;
    let import = request_import(&service, created("day.csv", "v1")).await;
    assert_eq!(ended(&service, &import).await["accepted"], 2);
    let records = service.all(&service.kafka.topics().transactions);
    let second: Value = records
        .iter()
        .map(|record| serde_json::from_slice(&record.payload).unwrap())
        .find(|value: &Value| value["transaction_id"] == "c2")
        .unwrap();
    assert_eq!(second["amount"], "1500");
    assert_eq!(second["timestamp"], "2026-03-01T09:01:00Z");
    service.stop().await;
}
