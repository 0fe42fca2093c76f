//! Invalid input: nothing panics, valid items beside it are accepted, and the caller gets the reason.

use serde_json::{Value, json};
use tollgate_types::Timestamp;

use crate::support::{JSON, NDJSON, Service, start, transaction};

const GOOD: &str =
    r#""transaction_id":"t","user_id":"u","amount":1,"timestamp":"2026-03-01T12:30:00Z""#;

/// Sends an item between two valid ones, as NDJSON, and returns its result.
async fn between_good_ones(service: &Service, item: &str) -> Value {
    let [before, after] = ["before", "after"].map(|id| transaction(id, "u"));
    let answer = service
        .send(NDJSON, format!("{before}\n{item}\n{after}"))
        .await;
    assert_eq!(answer.status, 202, "{}", answer.text);
    assert_eq!(answer.body["accepted"], 2);
    assert_eq!(answer.body["rejected"], 1);
    answer.body["results"][1].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invalid_item_is_rejected_with_the_name_of_its_field_and_its_neighbours_are_accepted() {
    let service = start(|_| ()).await;
    let with = |member: &str, value: &str| {
        let mut members: Vec<&str> = GOOD.split(",\"").collect();
        let replaced = format!("{member}\":{value}");
        let name = format!("{member}\"");
        let place = members
            .iter_mut()
            .find(|text| text.trim_start_matches('"').starts_with(&name));
        match place {
            Some(text) => *text = &replaced,
            None => members.push(&replaced),
        }
        let text = members.join(",\"");
        let quote = if text.starts_with('"') { "" } else { "\"" };
        format!("{{{quote}{text}}}")
    };
    let million = "x".repeat(200_000);
    let cases = [
        (with("amount", "NaN"), "amount"),
        (with("amount", "Infinity"), "amount"),
        (with("amount", "1e400"), "amount"),
        (with("amount", "-0.01"), "amount"),
        (with("amount", "0.00001"), "amount"),
        (with("amount", "\"1.00001\""), "amount"),
        (with("amount", "1000000000000.0001"), "amount"),
        (with("amount", "true"), "amount"),
        (with("amount", "null"), "amount"),
        (with("transaction_id", "17"), "transaction_id"),
        (with("transaction_id", "\"\""), "transaction_id"),
        (with("transaction_id", "\"\\u0000\""), "transaction_id"),
        (with("transaction_id", "\"\\ud800\""), "transaction_id"),
        (with("user_id", "\"\\udc00x\""), "user_id"),
        (with("user_id", "{\"id\":\"u\"}"), "user_id"),
        (with("user_id", &format!("\"{million}\"")), "user_id"),
        (with("timestamp", "\"10000-01-01T00:00:00Z\""), "timestamp"),
        (with("timestamp", "\"9999-12-31T23:59:59Z\""), "timestamp"),
        (with("timestamp", "1767225600"), "timestamp"),
        (with("timestamp", "\"yesterday\""), "timestamp"),
        (
            with("location", "{\"latitude\":90.5,\"longitude\":0}"),
            "location.latitude",
        ),
        (
            with("location", "{\"latitude\":0,\"longitude\":-181}"),
            "location.longitude",
        ),
        (
            with("location", "{\"latitude\":0,\"longitude\":1e999}"),
            "location.longitude",
        ),
        (with("location", "{\"latitude\":0}"), "location.longitude"),
        (with("location", "[0,0]"), "location"),
    ];
    for (item, field) in cases {
        let shown = item.get(..200).unwrap_or(&item);
        let result = between_good_ones(&service, &item).await;
        assert_eq!(result["status"], "rejected", "{shown}");
        assert_eq!(result["field"], field, "{shown}: {result}");
        let reason = result["reason"].as_str().unwrap();
        assert!(
            !reason.is_empty() && reason.len() < 200,
            "{shown}: {reason}"
        );
    }
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_json_in_ndjson_rejects_that_line_only() {
    let service = start(|_| ()).await;
    let broken = r#"{"transaction_id":"seen","user_id":"#;
    let result = between_good_ones(&service, broken).await;
    let reason = result["reason"].as_str().unwrap().to_owned();
    assert!(reason.contains("malformed JSON at column"), "{reason}");
    assert_eq!(result["transaction_id"], "seen");
    let nothing = json!({"index": 1, "transaction_id": null, "status": "rejected", "field": null, "reason": "expected a transaction as a JSON object, found a string"});
    assert_eq!(between_good_ones(&service, "\"secret\"").await, nothing);
    for item in ["{", "}", "[]", "null", "1", "\\", "{}{}", "\u{0}"] {
        let result = between_good_ones(&service, item).await;
        assert_eq!(result["status"], "rejected", "{item}");
    }
    let not_utf8 = [transaction("a", "u").as_bytes(), b"\n{\"\xff\":1}\n"].concat();
    let answer = service.send(NDJSON, not_utf8).await;
    assert_eq!((answer.status, &answer.body["rejected"]), (202, &json!(1)));
    // All valid ones: two of each request, and the last.
    assert_eq!(service.records(21).len(), 21);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn deep_nesting_and_huge_arrays_are_refused_without_exhausting_stack_or_memory() {
    let service = start(|_| ()).await;
    let deep = "[".repeat(100_000) + &"]".repeat(100_000);
    let nested = format!("{{{GOOD},\"x\":{deep}}}");
    for item in [deep.as_str(), nested.as_str()] {
        let result = between_good_ones(&service, item).await;
        assert_eq!(result["status"], "rejected");
        let array = service.send(JSON, format!("[{item}]")).await;
        array.is_problem(422);
    }
    service.send(JSON, deep).await.is_problem(422);
    service
        .send(JSON, "[".repeat(1_000_000))
        .await
        .is_problem(400);
    let bomb = format!("[{}[]]", "[],".repeat(1_000_000));
    service.send(JSON, bomb).await.is_problem(413);
    let bomb = format!("[{}1]", "[1,".repeat(9_999).replace("[1,", "[[[]]],"));
    service.send(JSON, bomb).await.is_problem(422);
    assert_eq!(service.send(JSON, transaction("t", "u")).await.status, 202);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ids_of_a_mebibyte_and_items_beyond_their_limit_are_rejected() {
    let service = start(|_| ()).await;
    let id = "x".repeat(1024 * 1024);
    for (id, user) in [(id.as_str(), "u"), ("t", id.as_str())] {
        let result = between_good_ones(&service, &transaction(id, user)).await;
        let reason = result["reason"].as_str().unwrap();
        assert_eq!(reason, "is larger than 262144 bytes");
    }
    let escaped = "\\u0041".repeat(129);
    let result = between_good_ones(&service, &transaction(&escaped, "u")).await;
    assert_eq!(result["field"], "transaction_id");
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_zero_time_of_a_program_is_rejected_unless_a_setting_permits_it() {
    let service = start(|_| ()).await;
    for year in ["0000", "0001", "1899", "1970", "1999"] {
        let item = transaction("t", "u").replace("2026", year);
        let result = between_good_ones(&service, &item).await;
        assert_eq!(result["field"], "timestamp", "{year}");
        let reason = result["reason"].as_str().unwrap();
        assert!(reason.contains("ingest.earliest_timestamp"), "{reason}");
    }
    service.stop().await;

    let service = start(|config| config.earliest_timestamp = Timestamp::MIN).await;
    let item = transaction("t", "u").replace("2026", "0000");
    assert_eq!(service.send(JSON, item).await.status, 202);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_one_clear_reading_is_accepted_and_written_as_it_came() {
    let service = start(|_| ()).await;
    for time in ["2026-03-01 12:30:00+00", "2026-03-01T13:30:00+0100"] {
        let item = transaction("t", "u").replace("2026-03-01T12:30:00Z", time);
        let item = item.replacen(
            '{',
            r#"{"location":{"latitude":"52.5","longitude":"13.4"},"#,
            1,
        );
        let answer = service.send(JSON, item).await;
        assert_eq!(answer.status, 202, "{}", answer.text);
    }
    let item = transaction("t", "u").replace("\"2026-03-01T12:30:00Z\"", "1772368200");
    let result = between_good_ones(&service, &item).await;
    let reason = result["reason"].as_str().unwrap();
    assert!(reason.contains("seconds or milliseconds"), "{reason}");
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_timestamp_is_compared_with_the_clock() {
    let service = start(|_| ()).await;
    for (minutes, status) in [(4, 202), (6, 422)] {
        let time = chrono::Utc::now() + chrono::TimeDelta::minutes(minutes);
        let time = time.to_rfc3339();
        let item = transaction("t", "u").replace("2026-03-01T12:30:00Z", &time);
        let answer = service.send(JSON, item).await;
        assert_eq!(answer.status, status, "{}", answer.text);
    }
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_cannot_be_read_is_400_with_the_position() {
    let service = start(|_| ()).await;
    let answer = service.send(JSON, "{\"a\":").await;
    answer.is_problem(400);
    assert_eq!(
        (&answer.body["line"], &answer.body["column"]),
        (&json!(1), &json!(5))
    );
    let bodies: [(&str, &[u8]); 9] = [
        (JSON, b""),
        (JSON, b"  \n"),
        (JSON, b"[]"),
        (JSON, b"nonsense"),
        (JSON, b"17"),
        (JSON, b"[{},"),
        (JSON, b"\xff\xfe{\0}\0"),
        (NDJSON, b""),
        (NDJSON, b"\r\n\n"),
    ];
    for (content_type, body) in bodies {
        service.send(content_type, body).await.is_problem(400);
    }
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn when_every_item_is_rejected_the_answer_is_422_with_the_results_and_nothing_is_written() {
    let service = start(|_| ()).await;
    let answer = service.send(JSON, "[{}, 1]").await;
    answer.is_problem(422);
    assert_eq!(
        (&answer.body["accepted"], &answer.body["rejected"]),
        (&json!(0), &json!(2))
    );
    let expected = json!({"index": 0, "transaction_id": null, "status": "rejected", "field": "transaction_id", "reason": "is missing"});
    assert_eq!(answer.body["results"][0], expected);
    service.send(NDJSON, "nonsense").await.is_problem(422);
    assert_eq!(service.send(JSON, transaction("t", "u")).await.status, 202);
    assert_eq!(service.records(1)[0].payload, transaction("t", "u"));
    service.stop().await;
}
