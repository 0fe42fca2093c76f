//! The four services with a collector, and what a trace looks like.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::http::HeaderMap;
use serde_json::json;
use tollgate_tests::collector::{Collector, SeenSpan};
use tollgate_tests::deployment::Deployment;
use tollgate_tests::process::Service;
use tollgate_tests::wait;
use tollgate_types::TraceContext;

pub(crate) const LIMIT: Duration = Duration::from_secs(60);
const SERVICES: [&str; 4] = ["ingest", "scorer", "persistence", "notifier"];

/// A receiver of webhooks, which keeps the trace context of each alert.
pub(crate) struct Receiver {
    url: String,
    traceparents: Arc<Mutex<Vec<String>>>,
}

impl Receiver {
    pub(crate) async fn start() -> anyhow::Result<Self> {
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

    pub(crate) fn traceparents(&self) -> Vec<String> {
        let seen = self.traceparents.lock();
        seen.unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The four services, their collector, and who receives their alerts.
pub(crate) struct Traced {
    pub(crate) deployment: Deployment,
    pub(crate) collector: Collector,
    pub(crate) receiver: Receiver,
    pub(crate) services: HashMap<&'static str, Service>,
}

impl Traced {
    pub(crate) async fn start(test: &str, settings: &[(&str, &str)]) -> anyhow::Result<Self> {
        Self::start_with(test, Collector::start().await?, settings).await
    }

    pub(crate) async fn start_with(
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

    pub(crate) async fn post(
        &mut self,
        headers: &[(&str, &str)],
        body: &str,
    ) -> anyhow::Result<u16> {
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

    pub(crate) fn write(
        &self,
        payload: &str,
        headers: &[(&str, Option<&[u8]>)],
    ) -> anyhow::Result<()> {
        let writer = self.deployment.log.writer()?;
        let topic = &self.deployment.log.topics().transactions;
        writer.write_with(topic, Some(b"ada"), Some(payload.as_bytes()), headers)?;
        writer.flush()
    }

    /// Waits until a trace has so many spans; all that have come by then.
    pub(crate) async fn spans_of(
        &self,
        trace: &str,
        number: usize,
    ) -> anyhow::Result<Vec<SeenSpan>> {
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
    pub(crate) fn tree(&self, spans: &[SeenSpan], trace: &str) -> Vec<String> {
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
    pub(crate) fn collector_gone(&mut self) -> anyhow::Result<()> {
        self.collector.kill()
    }

    pub(crate) async fn stop(self) -> anyhow::Result<Collector> {
        for (_, service) in self.services {
            service.stop().await?;
        }
        Ok(self.collector)
    }
}

pub(crate) fn payment(id: &str, amount: &str) -> String {
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

pub(crate) fn behind_the_log(depth: usize) -> Vec<String> {
    let lines = BEHIND_THE_LOG.iter();
    lines
        .map(|line| format!("{}{line}", "  ".repeat(depth)))
        .collect()
}

/// A trace of a stranger's, and the header and span id that it comes with.
pub(crate) fn foreign(number: u128, sampled: bool) -> (String, String) {
    let context = TraceContext::new(number << 64 | 0xf0, 0xabc0_0000_0000_0001, sampled);
    let Some(context) = context else {
        panic!("ids that are not zero");
    };
    (format!("{:032x}", context.trace_id), context.to_string())
}
