//! Little input must not cause much output: dead letters, log lines, answers, work.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::json;
use tollgate_ingest::RejectLimits;

use crate::imports::{created, ended, request_import, with_source};
use crate::support::{JSON, NDJSON, Service, start, transaction};

/// The bytes of all dead letters, with their headers.
fn written(service: &Service) -> usize {
    let letters = service.letters();
    let sizes = letters.iter().map(|letter| {
        let headers = letter.headers.iter();
        let headers = headers.map(|(name, value)| name.len() + value.as_ref().map_or(0, Vec::len));
        letter.payload.len() + headers.sum::<usize>()
    });
    sizes.sum()
}

/// 20 kB made 3.1 MB of dead letters.
#[tokio::test(flavor = "multi_thread")]
async fn a_batch_of_ten_thousand_zeros_is_eleven_letters_and_a_short_answer() {
    let service = start(|_| ()).await;
    let body = format!("[{}0]", "0,".repeat(9_999));
    let answer = service
        .post_to("/v1/functions/streaming", &[], body.clone())
        .await;
    assert_eq!(answer.body["processed_count"], 10_000);
    // One for each message all the same; the first of them with their reasons.
    let results = answer.body["results"].as_array().unwrap();
    assert_eq!(results.len(), 10_000);
    assert!(results[99]["error"].is_string(), "{}", results[99]);
    assert_eq!(results[100], json!({"status": "error"}));
    assert!(answer.text.len() < 11 * body.len(), "{}", answer.text.len());
    let letters = service.letters();
    assert_eq!(letters.len(), 11);
    let mut kinds = letters.iter();
    let last = kinds
        .find(|letter| letter.header("error.kind") == Some("invalid_items"))
        .unwrap();
    assert!(
        last.header("error.reason")
            .unwrap()
            .starts_with("9990 items")
    );
    assert_eq!(last.payload, b"\x1e0\n".repeat(9_990));
    assert!(written(&service) < 5 * body.len(), "{}", written(&service));
    // The same in events, of which the last is valid.
    let event = |data: &str| {
        format!(r#"{{"specversion":"1.0","id":"1","type":"t","source":"/s","data":{data}}}"#)
    };
    let data = format!("[{}{}]", "0,".repeat(9_000), transaction("t", "u"));
    let answer = service.post_to("/v1/events", &[], event(&data)).await;
    assert_eq!(answer.status, 202, "{}", answer.text);
    assert_eq!(service.letters().len(), 22);
    assert_eq!(service.records(1).len(), 1);
    let listed = answer.body["results"][0]["results"].as_array().unwrap();
    assert_eq!(listed.len(), 100);
    assert!(answer.text.len() < data.len(), "{}", answer.text.len());
    // Or each an event, none of which is one.
    let answer = service.post_to("/v1/events", &[], body).await;
    answer.is_problem(422);
    assert_eq!(answer.body["rejected"], 10_000);
    assert_eq!(answer.body["results"].as_array().unwrap().len(), 100);
    // Many short requests write little as well.
    let before = written(&service);
    let zeros = format!("[{}0]", "0,".repeat(99));
    service.post_to("/v1/functions/streaming", &[], zeros).await;
    assert!(written(&service) - before < 5_000, "{}", written(&service));
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_of_which_more_is_rejected_than_the_settings_allow_is_rejected_whole() {
    let service = start(|config| {
        config.request_rejects = RejectLimits {
            max: 1_500,
            percent: 60,
        };
    })
    .await;
    let items = |wrong: usize, right: usize| {
        let wrong = (0..wrong).map(|_| "0".to_owned());
        let right = (0..right).map(|n| transaction(&n.to_string(), "u"));
        wrong.chain(right).collect::<Vec<_>>().join("\n")
    };
    for (wrong, right, status, setting) in [
        (1_500, 1_500, 202, ""),
        (1_501, 1_500, 422, "ingest.request_rejects.max"),
        (601, 399, 422, "ingest.request_rejects.percent"),
        (600, 1, 202, ""),
    ] {
        let answer = service.send(NDJSON, items(wrong, right)).await;
        assert_eq!(answer.status, status, "{}", answer.text);
        if status == 422 {
            let detail = answer.body["detail"].as_str().unwrap();
            assert!(detail.contains(setting), "{detail}");
            assert_eq!(answer.body["rejected"], wrong);
            assert_eq!(answer.body["results"].as_array().unwrap().len(), 100);
        }
    }
    assert_eq!(service.records(1_501).len(), 1_501);
    assert!(service.letters().is_empty());
    let zeros = format!("[{}0]", "0,".repeat(9_999));
    let answer = service.send(JSON, zeros.clone()).await;
    answer.is_problem(422);
    assert!(answer.text.len() < zeros.len());
    service.stop().await;
}

/// 389 kB of gzip wrote 62 MB of letters in ten seconds.
#[tokio::test(flavor = "multi_thread")]
async fn an_import_ends_with_the_reason_when_too_many_of_its_rows_are_rejected() {
    let directory = tempfile::tempdir().unwrap();
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    let rows = format!("{}\n", "0".repeat(99)).repeat(1_000);
    for _ in 0..400 {
        encoder.write_all(rows.as_bytes()).unwrap();
    }
    let bomb = encoder.finish().unwrap();
    let long = format!("{}\n", "0".repeat(10_000)).repeat(200);
    let many = format!(
        "transaction_id,user_id,amount,timestamp{}\n",
        ",x".repeat(60_000)
    );
    let path = |name| directory.path().join(name);
    std::fs::write(path("bomb.ndjson.gz"), bomb).unwrap();
    std::fs::write(path("long.ndjson"), long).unwrap();
    std::fs::write(path("columns.csv"), many).unwrap();
    let with_source = with_source(&directory);
    let service = start(|config| {
        with_source(config);
        config.import_max_rejected_bytes = 100_000;
        config.import_rejects = RejectLimits {
            max: 500,
            percent: 100,
        };
    })
    .await;
    for (object, reason, letters) in [
        ("bomb.ndjson.gz", "ingest.import_rejects.max", 501),
        ("long.ndjson", "ingest.import_max_rejected_bytes", 512),
        ("columns.csv", "1024 columns", 512),
    ] {
        let import = request_import(&service, created(object, "v1")).await;
        let end = ended(&service, &import).await;
        assert_eq!(end["import"], json!("failed"), "{object}");
        let told = end["reason"].as_str().unwrap();
        assert!(told.contains(reason), "{object}: {told}");
        assert_eq!(service.letters().len(), letters, "{object}");
    }
    service.stop().await;
}
