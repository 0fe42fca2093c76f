//! One trace from the request, or from a foreign producer, to the row and the alert, as a real collector sees it.
#![cfg(all(feature = "kafka", feature = "postgres", feature = "collector"))]

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::http::{HeaderMap, Uri};
use serde_json::json;
use tollgate_tests::collector::{Collector, SeenSpan};
use tollgate_tests::deployment::Deployment;
use tollgate_tests::process::Service;
use tollgate_tests::wait;
use tollgate_types::{Stage, TraceContext};

const LIMIT: Duration = Duration::from_secs(60);
const SERVICES: [&str; 4] = ["ingest", "scorer", "persistence", "notifier"];

/// A receiver of webhooks, which tells what trace its alerts say they are part of.
struct Receiver {
    url: String,
    traceparents: Arc<Mutex<Vec<String>>>,
}

impl Receiver {
    async fn start() -> anyhow::Result<Self> {
        let traceparents: Arc<Mutex<Vec<String>>> = Arc::default();
        let seen = Arc::clone(&traceparents);
        let take = move |headers: HeaderMap| {
            let traceparent = headers
                .get("traceparent")
                .and_then(|value| value.to_str().ok());
            let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
            seen.push(traceparent.unwrap_or_default().to_owned());
            std::future::ready("taken")
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}/alerts", listener.local_addr()?);
        let app = Router::new().route("/alerts", axum::routing::post(take));
        tokio::spawn(async move { axum::serve(listener, app).await });
        Ok(Self { url, traceparents })
    }

    fn traceparents(&self) -> Vec<String> {
        let seen = self.traceparents.lock();
        seen.unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The four services, their collector, and who receives their alerts.
struct Traced {
    deployment: Deployment,
    collector: Collector,
    receiver: Receiver,
    services: HashMap<&'static str, Service>,
}

impl Traced {
    async fn start(test: &str, settings: &[(&str, &str)]) -> anyhow::Result<Self> {
        Self::start_with(test, Collector::start().await?, settings).await
    }

    async fn start_with(
        test: &str,
        collector: Collector,
        settings: &[(&str, &str)],
    ) -> anyhow::Result<Self> {
        let receiver = Receiver::start().await?;
        let mut deployment = Deployment::create(test, 3).await?;
        let sinks = json!([{ "kind": "webhook", "url": receiver.url, "name": "desk", "secret": "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=" }]);
        deployment.set("NOTIFIER__SINKS", sinks.to_string());
        deployment.set("TELEMETRY__OTLP_ENDPOINT", collector.http());
        deployment.set("TELEMETRY__USER_KEY", "of the test");
        // Nothing is kept that is not worth it.
        deployment.set("TELEMETRY__TRACE_RATIO", "0");
        for (name, value) in settings {
            deployment.set(name, *value);
        }
        if settings.iter().any(|(_, value)| *value == "grpc") {
            deployment.set("TELEMETRY__OTLP_ENDPOINT", collector.grpc());
        }
        if collector.grpc().starts_with("https") {
            deployment.environment(
                "OTEL_EXPORTER_OTLP_CERTIFICATE",
                collector.authority().display(),
            );
        }
        let mut services = HashMap::new();
        for service in SERVICES {
            services.insert(service, deployment.start(service).await?);
        }
        Ok(Self {
            deployment,
            collector,
            receiver,
            services,
        })
    }

    async fn post(&mut self, headers: &[(&str, &str)], body: &str) -> anyhow::Result<u16> {
        let ingest = self
            .services
            .get_mut("ingest")
            .map(|ingest| ingest.address("ingest"));
        let Some(ingest) = ingest else {
            anyhow::bail!("no ingest")
        };
        let mut request = reqwest::Client::new()
            .post(format!("{}/v1/transactions", ingest.await?))
            .header("content-type", "application/json")
            .body(body.to_owned());
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        Ok(request.send().await?.status().as_u16())
    }

    fn write(&self, payload: &str, headers: &[(&str, Option<&[u8]>)]) -> anyhow::Result<()> {
        let writer = self.deployment.log.writer()?;
        let topic = &self.deployment.log.topics().transactions;
        writer.write_with(topic, Some(b"ada"), Some(payload.as_bytes()), headers)?;
        writer.flush()
    }

    /// Waits until a trace has so many spans; all that have come by then.
    async fn spans_of(&self, trace: &str, number: usize) -> anyhow::Result<Vec<SeenSpan>> {
        let mut last = Vec::new();
        let what = format!("{number} spans of a trace");
        let waited = wait::until(LIMIT, &what, async || {
            last = self.collector.spans()?;
            let found = last.iter().filter(|span| span.trace_id == trace).count();
            Ok((found >= number).then_some(()))
        });
        let result = waited.await;
        result.map_err(|error| error.context(format!("{:#?}", self.tree(&last, trace))))?;
        Ok(last)
    }

    /// A trace as lines, each span behind its parent, without the prefix of the test's topics.
    fn tree(&self, spans: &[SeenSpan], trace: &str) -> Vec<String> {
        fn add(
            by: &BTreeMap<&str, Vec<&SeenSpan>>,
            parent: &str,
            depth: usize,
            lines: &mut Vec<String>,
        ) {
            let mut children = by.get(parent).cloned().unwrap_or_default();
            children.sort_by_key(|span| &span.name);
            for span in children {
                let service = span.service.trim_start_matches("tollgate-");
                lines.push(format!(
                    "{}{} {} ({service})",
                    "  ".repeat(depth),
                    span.kind,
                    span.name
                ));
                add(by, &span.span_id, depth + 1, lines);
            }
        }
        let spans: Vec<&SeenSpan> = spans.iter().filter(|span| span.trace_id == trace).collect();
        let own: HashSet<&str> = spans.iter().map(|span| &*span.span_id).collect();
        let mut by: BTreeMap<&str, Vec<&SeenSpan>> = BTreeMap::new();
        for span in &spans {
            // One whose parent is not here begins the tree.
            let parent = if own.contains(&*span.parent_id) {
                &*span.parent_id
            } else {
                ""
            };
            by.entry(parent).or_default().push(span);
        }
        let mut lines = Vec::new();
        add(&by, "", 0, &mut lines);
        let prefix = self
            .deployment
            .log
            .topics()
            .transactions
            .replace("transactions", "");
        lines.iter().map(|line| line.replace(&prefix, "")).collect()
    }

    /// Kills the collector.
    fn collector_gone(&mut self) -> anyhow::Result<()> {
        self.collector.kill()
    }

    async fn stop(self) -> anyhow::Result<Collector> {
        for (_, service) in self.services {
            service.stop().await?;
        }
        Ok(self.collector)
    }
}

fn payment(id: &str, amount: &str) -> String {
    json!({"transaction_id": id, "user_id": "ada", "amount": amount, "timestamp": "2026-03-02T08:00:00Z"}).to_string()
}

/// From the scorer on: what a transaction causes that is for review.
const BEHIND_THE_LOG: [&str; 8] = [
    "consumer process transactions (scorer)",
    "  producer send alerts (scorer)",
    "    consumer process alerts (notifier)",
    "      internal deliver desk (notifier)",
    "        client POST (notifier)",
    "  producer send decisions (scorer)",
    "    consumer process decisions (persistence)",
    "      client INSERT fraud_analysis (persistence)",
];

fn behind_the_log(depth: usize) -> Vec<String> {
    let lines = BEHIND_THE_LOG.iter();
    lines
        .map(|line| format!("{}{line}", "  ".repeat(depth)))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payment_for_review_is_one_trace_from_the_request_to_the_row_and_the_alert()
-> anyhow::Result<()> {
    let mut traced = Traced::start("trace-http", &[]).await?;
    // Whoever waits is there when the verdict comes, so that ingest keeps its spans too.
    let status = traced
        .post(&[("prefer", "wait=20")], &payment("t1", "5000.00"))
        .await?;
    assert_eq!(status, 200);
    let root = wait::until(LIMIT, "the request's span", async || {
        let spans = traced.collector.spans()?;
        Ok(spans.into_iter().find(|span| span.kind == "server"))
    })
    .await?;
    let spans = traced.spans_of(&root.trace_id, 12).await?;
    let mut expected = vec![
        "server POST /v1/transactions (ingest)".to_owned(),
        "  producer send transactions (ingest)".to_owned(),
    ];
    expected.extend(behind_the_log(2));
    expected.push("      producer send replies (scorer)".to_owned());
    expected.push("        consumer process replies (ingest)".to_owned());
    assert_eq!(traced.tree(&spans, &root.trace_id), expected);

    // Names of the conventions, and what they stand for here.
    let named = |name: &str| {
        let mut found = spans.iter().filter(|span| span.trace_id == root.trace_id);
        found.find(|span| span.name.ends_with(name)).unwrap()
    };
    let log = &traced.deployment.log;
    let topics = log.topics();
    let all = |span: &SeenSpan, expected: &[(&str, &str)]| {
        for (name, value) in expected {
            assert_eq!(span.attribute(name), *value, "{name} of {}", span.name);
        }
    };
    assert_eq!(root.parent_id, "");
    all(
        &root,
        &[
            ("http.request.method", "POST"),
            ("http.route", "/v1/transactions"),
            ("http.response.status_code", "200"),
            ("url.scheme", "http"),
            ("url.path", "/v1/transactions"),
            ("server.address", "127.0.0.1"),
            ("client.address", "127.0.0.1"),
            ("network.protocol.version", "1.1"),
        ],
    );
    let send = spans
        .iter()
        .find(|span| span.parent_id == root.span_id)
        .unwrap();
    assert_eq!(send.name, format!("send {}", topics.transactions));
    all(
        send,
        &[
            ("messaging.system", "kafka"),
            ("messaging.operation.name", "send"),
            ("messaging.operation.type", "send"),
            ("messaging.destination.name", &topics.transactions),
        ],
    );
    let scored = spans
        .iter()
        .find(|span| span.parent_id == send.span_id)
        .unwrap();
    all(
        scored,
        &[
            ("messaging.operation.type", "process"),
            ("messaging.destination.name", &topics.transactions),
            ("messaging.consumer.group.name", &log.group(Stage::Scorer)),
            ("messaging.kafka.offset", "0"),
            ("tollgate.transaction.id", "t1"),
            ("tollgate.decision.status", "review"),
            ("tollgate.decision.score", "65"),
            (
                "tollgate.decision.indicators",
                "high_amount,suspicious_pattern",
            ),
            ("tollgate.decision.duplicate", "false"),
        ],
    );
    assert_eq!(scored.attribute("user.hash").len(), 16);
    let stored = named("INSERT fraud_analysis");
    all(
        stored,
        &[
            ("db.system.name", "postgresql"),
            ("db.operation.name", "INSERT"),
            ("db.collection.name", "fraud_analysis"),
        ],
    );
    let delivered = spans
        .iter()
        .find(|span| span.name == "deliver desk")
        .unwrap();
    all(
        delivered,
        &[
            ("tollgate.sink.kind", "webhook"),
            ("tollgate.delivery.attempts", "1"),
        ],
    );
    let posted = spans
        .iter()
        .find(|span| span.parent_id == delivered.span_id)
        .unwrap();
    all(
        posted,
        &[
            ("http.request.method", "POST"),
            ("http.response.status_code", "200"),
            ("server.address", "127.0.0.1"),
        ],
    );

    // Nothing of a payment stands in its trace, and its receiver goes on with it.
    for span in &spans {
        for value in span.attributes.values() {
            assert!(!value.contains("5000") && value != "ada", "{span:?}");
        }
        assert!(span.began <= span.ended, "{span:?}");
    }
    let received = TraceContext::parse(traced.receiver.traceparents()[0].as_bytes()).unwrap();
    assert_eq!(format!("{:032x}", received.trace_id), root.trace_id);
    assert_eq!(format!("{:016x}", received.span_id), posted.span_id);

    // What reads and commits many records at once joins their traces.
    let decisions = format!("send {}", topics.decisions);
    let sent_decision = spans.iter().find(|span| span.name == decisions).unwrap();
    wait::until(LIMIT, "commits that settle the polls", async || {
        let spans = traced.collector.spans()?;
        let linked = |of: &SeenSpan, to: &SeenSpan| of.links.contains(&to.place());
        let find = |name: String, to: &SeenSpan| {
            let found = spans
                .iter()
                .find(|span| span.name == name && linked(span, to));
            found
                .filter(|span| span.kind == "client" && span.parent_id.is_empty())
                .cloned()
        };
        for (topic, sender) in [
            (&topics.transactions, send),
            (&topics.decisions, sent_decision),
        ] {
            let Some(poll) = find(format!("poll {topic}"), sender) else {
                return Ok(None);
            };
            assert_eq!(poll.attribute("messaging.operation.type"), "receive");
            assert_ne!(poll.trace_id, root.trace_id);
            let Some(commit) = find(format!("commit {topic}"), &poll) else {
                return Ok(None);
            };
            assert_eq!(commit.attribute("messaging.operation.type"), "settle");
        }
        Ok(Some(()))
    })
    .await?;
    traced.stop().await?;
    Ok(())
}

/// A trace of a stranger's, and the header and span id that it comes with.
fn foreign(number: u128, sampled: bool) -> (String, String) {
    let context = TraceContext::new(number << 64 | 0xf0, 0xabc0_0000_0000_0001, sampled);
    let Some(context) = context else {
        panic!("ids that are not zero");
    };
    (format!("{:032x}", context.trace_id), context.to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_producer_s_trace_goes_on_whatever_else_its_headers_hold() -> anyhow::Result<()> {
    let traced = Traced::start("trace-foreign", &[]).await?;
    let (plain, in_header) = foreign(1, true);
    traced.write(
        &payment("h1", "5000.00"),
        &[("traceparent", Some(in_header.as_bytes()))],
    )?;
    // Null, a wrong one, bytes that are no text, and the same header twice.
    let (among, last) = foreign(2, true);
    let strange: [(&str, Option<&[u8]>); 6] = [
        ("traceparent", None),
        ("traceparent", Some(b"00-what-is-this-01")),
        ("traceparent", Some(last.as_bytes())),
        ("traceparent", Some(&[0xff, 0xfe, 0x00])),
        ("tracestate", Some(&[0xff])),
        ("x", None),
    ];
    traced.write(&payment("h2", "5100.00"), &strange)?;
    // A log that drops headers leaves the member.
    let (member, in_member) = foreign(3, true);
    let text =
        payment("h3", "5200.00").replacen('{', &format!("{{\"traceparent\":\"{in_member}\","), 1);
    traced.write(&text, &[])?;
    for trace in [&plain, &among, &member] {
        let spans = traced.spans_of(trace, 8).await?;
        assert_eq!(traced.tree(&spans, trace), behind_the_log(0));
        let first = spans
            .iter()
            .find(|span| &span.trace_id == trace && span.name.starts_with("process "));
        let parents: HashSet<&str> = spans
            .iter()
            .filter(|span| &span.trace_id == trace)
            .map(|span| &*span.parent_id)
            .collect();
        assert!(
            first.is_some() && parents.contains("abc0000000000001"),
            "{parents:?}"
        );
    }
    // Both forms of the context stand in what is written on.
    let decisions = traced
        .deployment
        .log
        .read(&traced.deployment.log.topics().decisions)?;
    for decision in &decisions {
        let header = decision.header("traceparent").unwrap_or_default();
        let header = TraceContext::parse(header.as_bytes()).unwrap();
        let read = tollgate_types::Decision::parse(&decision.payload)?;
        assert_eq!(read.trace().unwrap().trace_id, header.trace_id);
        assert!(header.is_sampled());
    }
    traced.stop().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_approved_leaves_no_span_unless_its_caller_or_the_share_says_so_and_what_is_not_always_does()
-> anyhow::Result<()> {
    let mut traced = Traced::start("trace-share", &[]).await?;
    // Not kept by its caller, and approved; not kept, and for review; kept, and approved.
    let (dropped, not_kept) = foreign(11, false);
    let (review, not_kept_either) = foreign(12, false);
    let (kept, is_kept) = foreign(13, true);
    assert_eq!(
        traced
            .post(&[("traceparent", &not_kept)], &payment("s1", "1.25"))
            .await?,
        202
    );
    assert_eq!(
        traced
            .post(
                &[("traceparent", &not_kept_either)],
                &payment("s2", "5000.00")
            )
            .await?,
        202
    );
    assert_eq!(traced.post(&[], &payment("s3", "1.50")).await?, 202);
    assert_eq!(
        traced
            .post(&[("traceparent", &is_kept)], &payment("s4", "1.75"))
            .await?,
        202
    );
    // Without headers, as the console producer writes.
    traced.write(&payment("s5", "2.25"), &[])?;
    // A letter's span says why it is one.
    let (dead, not_kept_at_all) = foreign(14, false);
    traced.write(
        "{\"no\": \"payment\"}",
        &[("traceparent", Some(not_kept_at_all.as_bytes()))],
    )?;

    let spans = traced.spans_of(&review, 8).await?;
    assert_eq!(traced.tree(&spans, &review), behind_the_log(0));
    traced.spans_of(&kept, 6).await?;
    let spans = traced.spans_of(&dead, 2).await?;
    assert_eq!(
        traced.tree(&spans, &dead),
        [
            "consumer process transactions (scorer)",
            "  producer send transactions.dlq (scorer)"
        ]
    );
    let letter = spans
        .iter()
        .find(|span| span.trace_id == dead && span.kind == "consumer")
        .unwrap();
    assert!(letter.failed);
    assert_eq!(letter.attribute("error.type"), "invalid");
    let topic = &traced.deployment.log.topics().transactions_dlq;
    let letters = traced.deployment.log.read(topic)?;
    let header = letters[0].header("traceparent").unwrap_or_default();
    assert!(header.contains(&dead), "{header}");

    traced.deployment.caught_up(Stage::Scorer, LIMIT).await?;
    let of_payment =
        |id: &'static str| move |span: &&SeenSpan| span.attribute("tollgate.transaction.id") == id;
    let collector = traced.stop().await?;
    // A service that has stopped has told everything.
    let spans = collector.spans()?;
    assert_eq!(
        spans.iter().filter(|span| span.trace_id == dropped).count(),
        0
    );
    for id in ["s1", "s3", "s5"] {
        assert_eq!(spans.iter().filter(of_payment(id)).count(), 0, "{id}");
    }
    let tree: HashSet<&str> = spans
        .iter()
        .filter(|span| span.trace_id == kept)
        .map(|span| span.kind)
        .collect();
    assert_eq!(
        tree,
        HashSet::from(["server", "producer", "consumer", "client"])
    );
    Ok(())
}

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
    // The letter's line is told in the letter's trace.
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
    let told = log
        .lines()
        .filter(|line| line.contains("the OTLP endpoint does not take"));
    // Once for spans, once for metrics, once for logs, however many exports fail.
    assert!((1..=3).contains(&told.count()), "{log}");
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
    // A warning of another target is told no more.
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
