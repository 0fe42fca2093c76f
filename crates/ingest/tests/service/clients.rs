//! What clients send: media types for lines, compressed bodies, byte order marks, CloudEvents with their headers beside
//! them, ids filled up with blanks.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};

use crate::support::{Answer, JSON, NDJSON, Service, start, transaction};

fn gzip(text: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

async fn compressed(service: &Service, path: &str, kind: &str, body: Vec<u8>) -> Answer {
    let request = service
        .client
        .post(format!("{}{path}", service.url))
        .header("content-type", kind)
        .header("content-encoding", "gzip")
        .body(body);
    Answer::of(request.send().await.unwrap()).await
}

fn ids(service: &Service, count: usize) -> Vec<String> {
    let records = service.records(count);
    let id = |payload: &str| {
        let value: Value = serde_json::from_str(payload).unwrap();
        value["transaction_id"].as_str().unwrap().to_owned()
    };
    let mut ids: Vec<String> = records.iter().map(|record| id(&record.payload)).collect();
    ids.sort();
    ids
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_are_taken_under_every_name_that_clients_give_them() {
    let service = start(|_| ()).await;
    let kinds = [
        NDJSON,
        "application/ndjson",
        "application/jsonl",
        "application/x-jsonlines",
        "application/jsonlines; charset=UTF-8",
    ];
    for (number, kind) in kinds.iter().enumerate() {
        let [a, b] = ["a", "b"].map(|id| transaction(&format!("{id}{number}"), "u"));
        let answer = service.send(kind, format!("{a}\n{b}\n")).await;
        assert_eq!(
            (answer.status, &answer.body["accepted"]),
            (202, &json!(2)),
            "{kind}"
        );
    }
    let answer = service.send("text/csv", transaction("t", "u")).await;
    answer.is_problem(415);
    assert!(answer.text.contains("application/jsonl"), "{}", answer.text);
    assert_eq!(ids(&service, 2 * kinds.len()).len(), 2 * kinds.len());
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_in_gzip_is_read_on_every_way_in_within_the_bound_of_a_plain_one() {
    let service = start(|config| {
        config.max_body_bytes = 64 * 1024;
        config.max_transaction_bytes = 32 * 1024;
        config.functions_wait_ms = 0;
    })
    .await;
    let lines = format!("{}\n{}", transaction("a", "u"), transaction("b", "u"));
    let answer = compressed(&service, "/v1/transactions", NDJSON, gzip(lines.as_bytes())).await;
    assert_eq!(
        (answer.status, &answer.body["accepted"]),
        (202, &json!(2)),
        "{}",
        answer.text
    );
    let event = format!(
        r#"{{"specversion":"1.0","id":"1","type":"t","source":"s","data":{}}}"#,
        transaction("c", "u")
    );
    let answer = compressed(&service, "/v1/events", JSON, gzip(event.as_bytes())).await;
    assert_eq!(answer.status, 202, "{}", answer.text);
    let batch = format!(r#"{{"messages":[{{"value":{}}}]}}"#, transaction("d", "u"));
    // Two members one after the other, as a log that is appended to has them.
    let (first, second) = batch.split_at(30);
    let joined = [gzip(first.as_bytes()), gzip(second.as_bytes())].concat();
    let answer = compressed(&service, "/v1/functions/streaming", JSON, joined).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert_eq!(ids(&service, 4), ["a", "b", "c", "d"]);

    // Fifty megabytes in fifty kilobytes, what is no gzip, and what is cut off.
    let bomb = gzip(&vec![b' '; 50 * 1024 * 1024]);
    assert!(bomb.len() < 64 * 1024);
    let answer = compressed(&service, "/v1/transactions", NDJSON, bomb).await;
    answer.is_problem(413);
    let whole = gzip(lines.as_bytes());
    for broken in [
        lines.into_bytes(),
        whole[..whole.len() - 9].to_vec(),
        Vec::new(),
    ] {
        let answer = compressed(&service, "/v1/transactions", NDJSON, broken).await;
        answer.is_problem(400);
    }
    for coding in ["br", "gzip, gzip", "zstd"] {
        let request = service.post(JSON, "{}").header("content-encoding", coding);
        let answer = Answer::of(request.send().await.unwrap()).await;
        answer.is_problem(415);
        assert!(answer.text.contains("gzip"), "{}", answer.text);
    }
    assert_eq!(service.records(4).len(), 4);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_byte_order_mark_is_skipped_on_every_way_in() {
    let service = start(|config| config.functions_wait_ms = 0).await;
    let send = async |path: &str, body: String| {
        let answer = service.post_to(path, &[("content-type", JSON)], body).await;
        assert!(
            matches!(answer.status, 200 | 202),
            "{path}: {}",
            answer.text
        );
        assert!(!answer.text.contains("error"), "{path}: {}", answer.text);
    };
    let mark = '\u{feff}';
    send(
        "/v1/transactions",
        format!("{mark}{}", transaction("a", "u")),
    )
    .await;
    let event =
        |data: &str| format!(r#"{{"specversion":"1.0","id":"1","type":"t","source":"s",{data}}}"#);
    let data = format!(r#""data":{}"#, transaction("b", "u"));
    send("/v1/events", format!("{mark}{}", event(&data))).await;
    let text = json!(format!("{mark}{}", transaction("c", "u")));
    send("/v1/events", event(&format!(r#""data":{text}"#))).await;
    let coded = |id: &str| {
        let text = format!("{mark}{}", transaction(id, "u"));
        data_encoding::BASE64.encode(text.as_bytes())
    };
    send(
        "/v1/events",
        event(&format!(r#""data_base64":"{}""#, coded("d"))),
    )
    .await;
    let text = json!(format!("{mark}{}", transaction("e", "u")));
    let value = transaction("g", "u");
    let coded = coded("f");
    let messages = format!(
        r#"{mark}{{"messages":[{{"value":{text}}},{{"value":"{coded}"}},{{"value":{value}}}]}}"#
    );
    send("/v1/functions/streaming", messages).await;
    let lines = format!(
        "{mark}{}\n{mark}{}",
        transaction("h", "u"),
        transaction("i", "u")
    );
    let answer = service.send(NDJSON, lines).await;
    assert_eq!(answer.body["accepted"], 2, "{}", answer.text);
    assert_eq!(
        ids(&service, 9),
        ["a", "b", "c", "d", "e", "f", "g", "h", "i"]
    );
    for record in service.records(9) {
        assert!(record.payload.starts_with('{'), "{}", record.payload);
    }
    service.stop().await;
}

/// Senders repeat the attributes of an event in headers; the content type says where they count.
#[tokio::test(flavor = "multi_thread")]
async fn a_structured_event_with_attributes_in_headers_too_is_read_by_its_content_type() {
    let service = start(|_| ()).await;
    let headers = |kind| {
        [
            ("content-type", kind),
            ("ce-specversion", "1.0"),
            ("ce-id", "1"),
            ("ce-type", "t"),
            ("ce-source", "/s"),
        ]
    };
    let event = |id: &str| {
        format!(
            r#"{{"specversion":"1.0","id":"{id}","type":"t","source":"/s","data":{}}}"#,
            transaction(id, "u")
        )
    };
    let kind = "application/cloudevents+json; charset=utf-8";
    let answer = service
        .post_to("/v1/events", &headers(kind), event("a"))
        .await;
    assert_eq!(answer.status, 202, "{}", answer.text);
    let batch = format!("[{},{}]", event("b"), event("c"));
    let kind = "application/cloudevents-batch+json";
    let answer = service.post_to("/v1/events", &headers(kind), batch).await;
    assert_eq!(
        (answer.status, &answer.body["accepted"]),
        (202, &json!(2)),
        "{}",
        answer.text
    );
    let answer = service
        .post_to("/v1/events", &headers(JSON), transaction("d", "u"))
        .await;
    assert_eq!(answer.status, 202, "{}", answer.text);
    // One of two members would be ignored, and nobody would know which.
    let both = event("e").replace("\"data\"", "\"data_base64\":\"e30=\",\"data\"");
    let answer = service
        .post_to("/v1/events", &[("content-type", JSON)], both)
        .await;
    answer.is_problem(422);
    assert_eq!(answer.body["results"][0]["field"], "data_base64");
    assert_eq!(ids(&service, 4), ["a", "b", "c", "d"]);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn blanks_around_ids_make_no_other_user_on_any_way_in() {
    let service = start(|config| config.functions_wait_ms = 0).await;
    let padded = |id: &str| transaction(&format!(" {id}  "), "u-1   ");
    let answer = service.send(JSON, padded("a")).await;
    assert_eq!(answer.status, 202, "{}", answer.text);
    assert_eq!(answer.body["results"][0]["transaction_id"], "a");
    let event = format!(
        r#"{{"specversion":"1.0","id":"1","type":"t","source":"s","data":{}}}"#,
        padded("b")
    );
    let answer = service
        .post_to("/v1/events", &[("content-type", JSON)], event)
        .await;
    assert_eq!(answer.status, 202, "{}", answer.text);
    let batch = format!(r#"[{{"value":{}}}]"#, padded("c"));
    let path = "/v1/functions/streaming";
    let answer = service
        .post_to(path, &[("content-type", JSON)], batch)
        .await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert_eq!(ids(&service, 3), ["a", "b", "c"]);
    for record in service.records(3) {
        assert_eq!(record.key, "u-1");
        assert!(
            record.payload.contains(r#""user_id":"u-1""#),
            "{}",
            record.payload
        );
    }
    service.stop().await;
}
