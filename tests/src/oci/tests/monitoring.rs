//! Posting metrics: each rule, what becomes of the rest, and the limits.

use chrono::{SecondsFormat, TimeDelta, Utc};
use serde_json::{Value, json};

use super::client::{Answer, Draft, http_date};
use super::{Client, started};
use crate::oci::Config;

const PATH: &str = "/20180401/metrics";

fn at(offset: TimeDelta) -> String {
    (Utc::now() + offset).to_rfc3339_opts(SecondsFormat::Millis, true)
}

/// A good metric, changed.
fn metric(change: impl FnOnce(&mut Value)) -> Value {
    let mut metric = json!({
        "namespace": "fraud_pipeline",
        "compartmentId": "ocid1.compartment.oc1..c",
        "name": "scorer.latency_ms",
        "resourceGroup": "prod",
        "dimensions": { "service": "scorer" },
        "metadata": { "unit": "ms" },
        "datapoints": [{ "timestamp": at(TimeDelta::zero()), "value": 12.5, "count": 2 }],
    });
    change(&mut metric);
    metric
}

fn with(pointer: &str, value: Value) -> Value {
    metric(|metric| *metric.pointer_mut(pointer).unwrap() = value)
}

async fn post(client: &Client, metrics: &[Value], atomicity: &str) -> Answer {
    let body = json!({ "metricData": metrics, "batchAtomicity": atomicity });
    client.post(PATH, &body.to_string()).send().await.unwrap()
}

#[tokio::test]
async fn a_good_metric_is_kept_whole() {
    let (stand_in, client) = started(Config::default()).await;
    let body = json!({ "metricData": [metric(|_| {})] }).to_string();
    let answer = client.post(PATH, &body).send().await.unwrap();
    assert_eq!(answer.status, 200);
    assert_eq!(
        answer.json(),
        json!({ "failedMetricsCount": 0, "failedMetrics": [] })
    );
    let metrics = stand_in.metrics();
    assert_eq!(metrics.len(), 1);
    assert_eq!(metrics[0].name, "scorer.latency_ms");
    assert_eq!(metrics[0].resource_group.as_deref(), Some("prod"));
    assert_eq!(metrics[0].dimensions["service"], "scorer");
    assert_eq!(metrics[0].metadata["unit"], "ms");
    assert_eq!(metrics[0].datapoints[0].value.to_string(), "12.5");
    assert_eq!(metrics[0].datapoints[0].count, 2);
}

#[tokio::test]
async fn each_rule_for_a_metric_is_enforced_and_the_good_ones_are_kept() {
    let (stand_in, client) = started(Config::default()).await;
    let many = |count: usize| -> Value {
        let dimensions = (0..count).map(|number| (format!("d{number}"), json!("v")));
        Value::Object(dimensions.collect())
    };
    let timestamp = |offset| with("/datapoints/0/timestamp", json!(at(offset)));
    let bad = [
        ("namespace", with("/namespace", json!("1pipeline"))),
        ("namespace", with("/namespace", json!("fraud-pipeline"))),
        ("namespace", with("/namespace", json!("oci_pipeline"))),
        ("namespace", with("/namespace", json!("oracle_pipeline"))),
        ("namespace", with("/namespace", json!(""))),
        ("namespace", with("/namespace", Value::Null)),
        ("name", with("/name", json!("_latency"))),
        ("name", with("/name", json!("latency ms"))),
        ("resourceGroup", with("/resourceGroup", json!("a/b"))),
        ("compartmentId", with("/compartmentId", json!("prod"))),
        ("dimensions", with("/dimensions", json!({}))),
        ("dimensions", with("/dimensions", many(21))),
        (
            "dimensions",
            with("/dimensions", json!({ "two words": "v" })),
        ),
        ("dimensions", with("/dimensions", json!({ "größe": "v" }))),
        ("dimensions", with("/dimensions", json!({ "": "v" }))),
        ("dimensions", with("/dimensions", json!({ "k": "" }))),
        (
            "dimensions",
            with("/dimensions", json!({ "k".repeat(257): "v" })),
        ),
        (
            "dimensions",
            with("/dimensions", json!({ "k": "v".repeat(513) })),
        ),
        ("metadata", with("/metadata", json!({ "unit": "" }))),
        (
            "metadata",
            with("/metadata", json!({ "unit": "u".repeat(257) })),
        ),
        ("datapoints", with("/datapoints", json!([]))),
        ("count", with("/datapoints/0/count", json!(0))),
        ("count", with("/datapoints/0/count", json!(-1))),
        ("value", with("/datapoints/0/value", Value::Null)),
        (
            "timestamp",
            with("/datapoints/0/timestamp", json!("yesterday")),
        ),
        ("timestamp", timestamp(TimeDelta::hours(-2))),
        (
            "timestamp",
            timestamp(TimeDelta::minutes(10) + TimeDelta::minutes(1)),
        ),
    ];
    let good = [
        with("/namespace", json!("f_1")),
        with("/name", json!("a.b_c-d$")),
        with("/dimensions", many(20)),
        with("/dimensions", json!({ "k".repeat(256): "ü".repeat(512) })),
        with("/datapoints/0/count", Value::Null),
        timestamp(TimeDelta::hours(-2) + TimeDelta::minutes(1)),
        timestamp(TimeDelta::minutes(10) - TimeDelta::minutes(1)),
    ];
    let metrics: Vec<Value> = good
        .iter()
        .chain(bad.iter().map(|(_, bad)| bad))
        .cloned()
        .collect();
    let answer = post(&client, &metrics, "NON_ATOMIC").await;
    assert_eq!(answer.status, 200);
    let answer = answer.json();
    let failed = answer["failedMetrics"].as_array().unwrap();
    assert_eq!(answer["failedMetricsCount"], bad.len());
    assert_eq!(failed.len(), bad.len());
    for ((rule, bad), failed) in bad.iter().zip(failed) {
        assert_eq!(failed["metricData"], *bad);
        let message = failed["message"].as_str().unwrap();
        assert!(message.starts_with(&format!("{rule}: ")), "{message}");
    }
    assert_eq!(stand_in.metrics().len(), good.len());
}

#[tokio::test]
async fn a_call_without_a_good_metric_is_refused() {
    let (stand_in, client) = started(Config::default()).await;
    let bad = with("/name", json!("1"));
    let answer = post(&client, &[bad], "NON_ATOMIC").await;
    assert_eq!(answer.refusal(), (400, "InvalidParameter".to_owned()));
    assert!(answer.message().starts_with("name: "));
    assert_eq!(stand_in.metrics(), []);
}

#[tokio::test]
async fn an_atomic_call_is_kept_whole_or_not_at_all() {
    let (stand_in, client) = started(Config::default()).await;
    let metrics = [metric(|_| {}), with("/name", json!("1"))];
    assert_eq!(post(&client, &metrics, "ATOMIC").await.status, 400);
    assert_eq!(stand_in.metrics(), []);
    assert_eq!(post(&client, &metrics[..1], "ATOMIC").await.status, 200);
    assert_eq!(stand_in.metrics().len(), 1);
}

#[tokio::test]
async fn a_call_has_fifty_streams_at_most_and_repeats_of_one_count_once() {
    let (stand_in, client) = started(Config::default()).await;
    let stream = |number: i32| with("/dimensions/service", json!(number.to_string()));
    let most: Vec<Value> = (0..50).chain(0..50).map(stream).collect();
    assert_eq!(post(&client, &most, "NON_ATOMIC").await.status, 200);
    assert_eq!(stand_in.metrics().len(), 100);
    let more: Vec<Value> = (0..51).map(stream).collect();
    let answer = post(&client, &more, "NON_ATOMIC").await;
    assert_eq!(answer.refusal(), (400, "InvalidParameter".to_owned()));
    assert_eq!(stand_in.metrics().len(), 100);
}

#[tokio::test]
async fn more_than_fifty_calls_in_a_second_are_refused() {
    let (stand_in, client) = started(Config::default()).await;
    // A second that is still to come, so that it does not pass while the test runs.
    let second = Utc::now() + TimeDelta::hours(1);
    for _ in 0..50 {
        assert!(stand_in.core.monitoring.admit(second));
    }
    let body = json!({ "metricData": [metric(|_| {})] }).to_string();
    let answer = client.post(PATH, &body).send().await.unwrap();
    assert_eq!(answer.refusal(), (429, "TooManyRequests".to_owned()));
    assert_eq!(stand_in.metrics(), []);
    // One that has passed.
    stand_in.shift_clock(3601);
    let later = http_date(Utc::now() + TimeDelta::seconds(3601));
    let draft = Draft::post(&client.host, PATH, &body).header("date", &later);
    let draft = draft.signed(&client.key_id, &client.key);
    assert_eq!(draft.send().await.unwrap().status, 200);
}

#[tokio::test]
async fn what_is_no_call_is_refused() {
    let (_stand_in, client) = started(Config::default()).await;
    for (body, code) in [
        ("[", "CannotParseRequest"),
        ("{}", "MissingParameter"),
        (r#"{"metricData":[]}"#, "MissingParameter"),
        (r#"{"metricData":[{"name":1}]}"#, "CannotParseRequest"),
        (
            r#"{"metricData":[{}],"batchAtomicity":"SOME"}"#,
            "CannotParseRequest",
        ),
    ] {
        let answer = client.post(PATH, body).send().await.unwrap();
        assert_eq!(answer.refusal(), (400, code.to_owned()), "{body}");
    }
    let draft = Draft::post(&client.host, PATH, "{}");
    assert_eq!(draft.send().await.unwrap().status, 401);
}
