//! Endpoints of telemetry: protocols, TLS, signals of their own, and endpoints that do not answer.
#![cfg(all(feature = "kafka", feature = "postgres", feature = "collector"))]

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::http::{HeaderMap, Uri};
use tollgate_tests::collector::Collector;
use tollgate_tests::deployment::Deployment;
use tollgate_tests::wait;
use tollgate_types::Stage;

use super::support::{LIMIT, Traced, foreign, payment};

#[tokio::test(flavor = "multi_thread")]
async fn metrics_logs_and_spans_arrive_over_grpc_too_and_a_share_of_one_keeps_everything()
-> anyhow::Result<()> {
    let settings = [
        ("TELEMETRY__OTLP_PROTOCOL", "grpc"),
        ("TELEMETRY__TRACE_RATIO", "1"),
    ];
    let mut traced = Traced::start("trace-grpc", &settings).await?;
    for number in 0..20 {
        let payment = payment(&format!("g{number}"), &format!("{number}.75"));
        assert_eq!(traced.post(&[], &payment).await?, 202);
    }
    assert_eq!(traced.post(&[], "{").await?, 400);
    traced.write("no payment", &[])?;
    traced.deployment.caught_up(Stage::Scorer, LIMIT).await?;
    traced
        .deployment
        .caught_up(Stage::Persistence, LIMIT)
        .await?;
    let collector = traced.stop().await?;
    let spans = collector.spans()?;
    let count = |kind: &str, start: &str| {
        spans
            .iter()
            .filter(|span| span.kind == kind && span.name.starts_with(start))
            .count()
    };
    assert_eq!(count("server", "POST /v1/transactions"), 21);
    assert_eq!(count("client", "INSERT"), 20);
    let decided = collector.metric("tollgate_scorer_decisions_total")?;
    assert_eq!(decided.values().sum::<f64>().to_string(), "20");
    let durations = collector.metric("tollgate_http_request_duration_seconds")?;
    let over_http = durations
        .iter()
        .filter(|(labels, _)| labels.contains("route=/v1/transactions"));
    assert_eq!(
        over_http.map(|(_, count)| count).sum::<f64>().to_string(),
        "21"
    );
    // The log line of a dead letter is in the letter's trace.
    let logs = collector.logs()?;
    let line = logs
        .iter()
        .find(|(line, _)| line.contains("dead-lettered"))
        .unwrap();
    let letter = spans
        .iter()
        .find(|span| span.failed && span.kind == "consumer")
        .unwrap();
    assert_eq!(line.1, letter.trace_id);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_with_a_certificate_of_a_private_authority_is_spoken_to_in_both_ways()
-> anyhow::Result<()> {
    for (test, protocol) in [("trace-tls", "http/protobuf"), ("trace-tls-grpc", "grpc")] {
        let settings = [("TELEMETRY__OTLP_PROTOCOL", protocol)];
        let collector = Collector::start_with_tls().await?;
        let mut traced = Traced::start_with(test, collector, &settings).await?;
        let (trace, kept) = foreign(31, true);
        let status = traced
            .post(&[("traceparent", &kept)], &payment("c1", "1.25"))
            .await?;
        assert_eq!(status, 202, "{protocol}");
        traced.spans_of(&trace, 6).await?;
        let collector = traced.stop().await?;
        let decided = collector.metric("tollgate_scorer_decisions_total")?;
        assert_eq!(decided.values().sum::<f64>().to_string(), "1", "{protocol}");
        assert!(!collector.logs()?.is_empty(), "{protocol}");
    }
    Ok(())
}

/// What an endpoint was sent: path, authorization, content type.
type Sent = Arc<Mutex<Vec<[String; 3]>>>;

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_of_oracle_s_gets_its_key_at_its_own_paths_and_nothing_that_was_not_asked_for()
-> anyhow::Result<()> {
    let sent: Sent = Arc::default();
    let seen = Arc::clone(&sent);
    let take = move |uri: Uri, headers: HeaderMap| {
        let text = |name: &str| {
            let value = headers.get(name).and_then(|value| value.to_str().ok());
            value.unwrap_or_default().to_owned()
        };
        let request = [
            uri.path().to_owned(),
            text("authorization"),
            text("content-type"),
        ];
        seen.lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(request);
        std::future::ready("")
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let base = format!("http://{}/20200101/opentelemetry", listener.local_addr()?);
    let app = Router::new().fallback(axum::routing::any(take));
    tokio::spawn(async move { axum::serve(listener, app).await });
    let mut deployment = Deployment::create("trace-apm", 1).await?;
    for (name, value) in [
        ("OTLP_TRACES_ENDPOINT", format!("{base}/private/v1/traces")),
        ("OTLP_METRICS_ENDPOINT", format!("{base}/v1/metrics")),
        (
            "OTLP_HEADERS",
            r#"{"authorization": "dataKey of-the-test"}"#.to_owned(),
        ),
    ] {
        deployment.set(&format!("TELEMETRY__{name}"), value);
    }
    let mut ingest = deployment.start("ingest").await?;
    let url = format!("{}/v1/transactions", ingest.address("ingest").await?);
    let (_, kept) = foreign(41, true);
    let request = reqwest::Client::new().post(url).header("traceparent", kept);
    let request = request.header("content-type", "application/json");
    let answer = request.body(payment("o1", "1.25")).send().await?;
    assert_eq!(answer.status().as_u16(), 202);
    ingest.stop().await?;
    let sent = sent.lock().unwrap_or_else(PoisonError::into_inner);
    let paths: HashSet<&str> = sent.iter().map(|request| &*request[0]).collect();
    let expected = ["/private/v1/traces", "/v1/metrics"];
    let expected = expected.map(|path| format!("/20200101/opentelemetry{path}"));
    assert_eq!(paths, expected.iter().map(String::as_str).collect());
    for [_, authorization, content_type] in sent.iter() {
        assert_eq!(authorization, "dataKey of-the-test");
        assert_eq!(content_type, "application/x-protobuf");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_is_gone_costs_spans_that_are_counted_and_nothing_else()
-> anyhow::Result<()> {
    let mut traced = Traced::start("trace-gone", &[("TELEMETRY__TRACE_RATIO", "1")]).await?;
    traced.collector_gone()?;
    for number in 0..50 {
        let payment = payment(&format!("n{number}"), &format!("{number}.75"));
        assert_eq!(traced.post(&[], &payment).await?, 202);
    }
    traced
        .deployment
        .caught_up(Stage::Persistence, LIMIT)
        .await?;
    let (stored, _) = traced.deployment.store.counts().await?;
    assert_eq!(stored, 50);
    let scorer = traced.services.get_mut("scorer").unwrap();
    wait::until(LIMIT, "failed exports, counted", async || {
        let failed = scorer
            .metric("tollgate_telemetry_items_total{signal=\"spans\",outcome=\"failed\"")
            .await?;
        Ok((failed > 0.0).then_some(()))
    })
    .await?;
    let log = scorer.log()?;
    let warnings = log
        .lines()
        .filter(|line| line.contains("an export to the OTLP endpoint failed"));
    // Once for spans, once for metrics, once for logs, however many exports fail.
    let warnings: Vec<&str> = warnings.collect();
    assert!((1..=3).contains(&warnings.len()), "{log}");
    // With the reason, which exporters keep to themselves.
    assert!(
        warnings
            .iter()
            .all(|line| line.contains("Connection refused")),
        "{warnings:?}"
    );
    // It ends in time all the same.
    traced.stop().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_line_names_its_trace_and_levels_change_while_the_service_runs() -> anyhow::Result<()>
{
    let mut traced = Traced::start("trace-log", &[]).await?;
    let (dead, traceparent) = foreign(21, false);
    traced.write(
        "no payment",
        &[("traceparent", Some(traceparent.as_bytes()))],
    )?;
    let scorer = traced.services.get_mut("scorer").unwrap();
    let admin = scorer.admin().await?;
    let line = wait::until(LIMIT, "the line of the letter", async || {
        let log = scorer.log()?;
        Ok(log
            .lines()
            .find(|line| line.contains("dead-lettered"))
            .map(str::to_owned))
    })
    .await?;
    let line: serde_json::Value = serde_json::from_str(&line)?;
    assert_eq!(line["trace_id"], *dead);
    assert_eq!(line["span_id"].as_str().map(str::len), Some(16));
    // A user is a hash, the same in every process that has the key.
    let hash = line["user"].as_str().unwrap_or_default();
    assert!(hash.len() == 16 && hash != "ada", "{line}");

    let client = reqwest::Client::new();
    let log = format!("{admin}/log");
    assert_eq!(client.get(&log).send().await?.text().await?.trim(), "info");
    let wrong = client.put(&log).body("loud").send().await?;
    assert_eq!(wrong.status().as_u16(), 400);
    let why: serde_json::Value = wrong.json().await?;
    assert!(
        why["reason"].as_str().unwrap_or_default().contains("loud"),
        "{why}"
    );
    for (body, status) in [
        (vec![b'a', 0xff], 400),
        ("info,".repeat(1_000).into_bytes(), 413),
    ] {
        let refused = client.put(&log).body(body).send().await?;
        assert_eq!(refused.status().as_u16(), status);
        let kind = refused.headers()["content-type"].to_str()?.to_owned();
        assert_eq!(kind, "application/problem+json");
    }
    assert_eq!(client.get(&log).send().await?.text().await?.trim(), "info");
    let narrow = client.put(&log).body("tollgate_scorer=warn").send().await?;
    assert!(narrow.text().await?.contains("are off now"));
    let set = client
        .put(&log)
        .body("error,tollgate_scorer=debug")
        .send()
        .await?;
    assert!(set.status().is_success());
    let now = client.get(&log).send().await?.text().await?;
    assert!(
        now.contains("tollgate_scorer=debug") && now.contains("error"),
        "{now}"
    );
    // A warning of another target is not exported any more.
    let letters = |log: &str| {
        log.lines()
            .filter(|line| line.contains("dead-lettered"))
            .count()
    };
    let scorer = traced.services.get_mut("scorer").unwrap();
    assert_eq!(letters(&scorer.log()?), 1);
    traced.write("no payment either", &[])?;
    traced.deployment.caught_up(Stage::Scorer, LIMIT).await?;
    let scorer = traced.services.get_mut("scorer").unwrap();
    assert_eq!(letters(&scorer.log()?), 1);
    let back = client.delete(&log).send().await?;
    assert_eq!(back.text().await?.trim(), "info");
    traced.stop().await?;
    Ok(())
}
