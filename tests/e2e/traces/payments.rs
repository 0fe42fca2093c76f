//! Whole trees: what a payment leaves behind, and what it does not.
#![cfg(all(feature = "kafka", feature = "postgres", feature = "collector"))]

use std::collections::HashSet;

use anyhow::Context as _;
use tollgate_tests::collector::SeenSpan;
use tollgate_tests::kafka::TestLog;
use tollgate_tests::wait;
use tollgate_types::{Stage, TraceContext};

use super::support::{LIMIT, Traced, behind_the_log, foreign, payment};

/// The spans of one payment that other checks go on with.
struct Chain<'a> {
    send: &'a SeenSpan,
    posted: &'a SeenSpan,
}

/// Every span has the names and attributes of OpenTelemetry's conventions. `spans` are those of one payment.
fn check_attributes<'a>(
    log: &TestLog,
    root: &SeenSpan,
    spans: &'a [SeenSpan],
) -> anyhow::Result<Chain<'a>> {
    let child = |of: &SeenSpan| {
        let found = spans.iter().find(|span| span.parent_id == of.span_id);
        found.with_context(|| format!("no span under {}", of.name))
    };
    let named = |name: &str| {
        let mut found = spans.iter().filter(|span| span.trace_id == root.trace_id);
        let found = found.find(|span| span.name.ends_with(name));
        found.with_context(|| format!("no span {name}"))
    };
    let topics = log.topics();
    let all = |span: &SeenSpan, expected: &[(&str, &str)]| {
        for (name, value) in expected {
            assert_eq!(span.attribute(name), *value, "{name} of {}", span.name);
        }
    };
    assert_eq!(root.parent_id, "");
    all(
        root,
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
    let send = child(root)?;
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
    let scored = child(send)?;
    all(
        scored,
        &[
            ("messaging.operation.type", "process"),
            ("messaging.destination.name", &topics.transactions),
            ("messaging.consumer.group.name", &log.group(Stage::Scorer)),
            ("messaging.kafka.offset", "0"),
            ("tollgate.transaction.id", "t1"),
            ("tollgate.decision.status", "review"),
            ("tollgate.decision.score", "60"),
            (
                "tollgate.decision.indicators",
                "high_amount,suspicious_pattern",
            ),
            ("tollgate.decision.duplicate", "false"),
        ],
    );
    assert_eq!(scored.attribute("user.hash").len(), 16);
    let stored = named("INSERT fraud_analysis")?;
    all(
        stored,
        &[
            ("db.system.name", "postgresql"),
            ("db.operation.name", "INSERT"),
            ("db.collection.name", "fraud_analysis"),
        ],
    );
    let delivered = named("deliver desk")?;
    all(
        delivered,
        &[
            ("tollgate.sink.kind", "webhook"),
            ("tollgate.delivery.attempts", "1"),
        ],
    );
    let posted = child(delivered)?;
    all(
        posted,
        &[
            ("http.request.method", "POST"),
            ("http.response.status_code", "200"),
            ("server.address", "127.0.0.1"),
        ],
    );
    Ok(Chain { send, posted })
}

/// The spans that read and commit many records at once are linked to the traces of those records.
async fn check_links(
    traced: &Traced,
    root: &SeenSpan,
    spans: &[SeenSpan],
    send: &SeenSpan,
) -> anyhow::Result<()> {
    let topics = traced.deployment.log.topics();
    let decisions = format!("send {}", topics.decisions);
    let sent_decision = spans.iter().find(|span| span.name == decisions);
    let sent_decision = sent_decision.context("no span of a sent decision")?;
    wait::until(LIMIT, "commits linked to the polls", async || {
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
    .await
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

    let chain = check_attributes(&traced.deployment.log, &root, &spans)?;

    // No value of the payment is in its trace, and its receiver continues the trace.
    for span in &spans {
        for value in span.attributes.values() {
            assert!(!value.contains("5000") && value != "ada", "{span:?}");
        }
        assert!(span.began <= span.ended, "{span:?}");
    }
    let received = TraceContext::parse(traced.receiver.traceparents()[0].as_bytes()).unwrap();
    assert_eq!(format!("{:032x}", received.trace_id), root.trace_id);
    assert_eq!(format!("{:016x}", received.span_id), chain.posted.span_id);

    check_links(&traced, &root, &spans, chain.send).await?;
    traced.stop().await?;
    Ok(())
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
    // The span of a dead letter has the reason.
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
    // A service that has stopped has exported everything.
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
