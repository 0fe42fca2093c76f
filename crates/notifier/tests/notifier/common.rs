//! A log in this process, a notifier on it, and receivers of webhooks.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use tempfile::TempDir;
use tollgate_log::{Acks, KafkaConfig, Log, Producer, ProducerRecord};
use tollgate_notifier::{Cloud, ConsoleOut, NotifierConfig, SinkConfig};
use tollgate_service::supervisor::RunningService;
use tollgate_service::{Secret, Shutdown};

pub(crate) const DEADLINE: Duration = Duration::from_secs(30);
pub(crate) const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// Waits until the condition holds, with a deadline.
pub(crate) async fn eventually(what: &str, condition: impl AsyncFn() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !condition().await {
        assert!(Instant::now() < deadline, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// One embedded log, a directory, and whatever notifiers are started on them.
pub(crate) struct World {
    pub(crate) kafka: Log,
    pub(crate) directory: TempDir,
    producer: Producer,
}

pub(crate) struct Running {
    pub(crate) notifier: RunningService,
    pub(crate) shutdown: Shutdown,
}

impl Running {
    pub(crate) async fn stop(self) {
        self.shutdown.begin();
        tokio::time::timeout(DEADLINE, self.notifier.join())
            .await
            .expect("it does not stop")
            .unwrap();
    }

    /// Status and body of the readiness probe.
    pub(crate) async fn readiness(&self) -> (u16, String) {
        let url = format!("http://{}/readyz", self.notifier.admin_address);
        let response = reqwest::get(url).await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    }

    /// The value of one time series, such as `name{label="x"}`.
    pub(crate) async fn metric(&self, series: &str) -> Option<f64> {
        let url = format!("http://{}/metrics", self.notifier.admin_address);
        let text = reqwest::get(url).await.unwrap().text().await.unwrap();
        text.lines()
            .find_map(|line| line.strip_prefix(series)?.trim().parse().ok())
    }
}

impl World {
    pub(crate) fn new() -> Self {
        Self::with(KafkaConfig::default())
    }

    pub(crate) fn with(config: KafkaConfig) -> Self {
        let kafka = Log::open(config).unwrap();
        let producer = kafka.producer("test").unwrap();
        Self {
            kafka,
            producer,
            directory: tempfile::tempdir().unwrap(),
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn config(&self, sinks: Vec<SinkConfig>) -> NotifierConfig {
        let mut config = NotifierConfig {
            admin_listen: "127.0.0.1:0".parse().unwrap(),
            delivery_log_url: format!("sqlite://{}", self.path("delivery-log.db").display()),
            sinks,
            ..NotifierConfig::default()
        };
        config.retry.base_ms = 20;
        config.retry.cap_ms = 100;
        config.breaker.open_ms = 100;
        config
    }

    pub(crate) async fn start(&self, sinks: Vec<SinkConfig>) -> Running {
        self.start_with(self.config(sinks), ConsoleOut::stdout())
            .await
    }

    pub(crate) async fn start_with(&self, config: NotifierConfig, console: ConsoleOut) -> Running {
        let shutdown = Shutdown::default();
        let notifier = tollgate_notifier::start(
            config,
            self.kafka.clone(),
            shutdown.clone(),
            console,
            &Cloud::default(),
        )
        .await
        .unwrap();
        Running { notifier, shutdown }
    }

    /// Writes records to the topic `alerts`, and returns when they are there.
    pub(crate) fn write(&self, records: impl IntoIterator<Item = impl AsRef<[u8]>>) {
        self.write_with(records, &[]);
    }

    /// As [`World::write`], as the scorer does.
    pub(crate) fn write_signed(&self, record: &str) {
        let acks = Acks::new(|result| result.unwrap());
        let topic = &self.kafka.topics().alerts;
        let record = ProducerRecord::signed(topic, b"ann", record.as_bytes());
        self.producer.send(&record, &acks).unwrap();
        acks.seal();
        self.producer.flush(DEADLINE).unwrap();
    }

    pub(crate) fn write_with(
        &self,
        records: impl IntoIterator<Item = impl AsRef<[u8]>>,
        headers: &[(&str, Option<&[u8]>)],
    ) {
        let acks = Acks::new(|result| result.unwrap());
        for record in records {
            let outgoing = ProducerRecord {
                headers,
                ..ProducerRecord::new(&self.kafka.topics().alerts, b"ann", record.as_ref())
            };
            self.producer.send(&outgoing, &acks).unwrap();
        }
        acks.seal();
        self.producer.flush(DEADLINE).unwrap();
    }

    /// Waits for so many dead letters: payload and headers of each.
    pub(crate) fn dead_letters(&self, count: usize) -> Vec<(Vec<u8>, HashMap<String, String>)> {
        let topic = self.kafka.topics().alerts_dlq.as_str();
        let mut reader = self.kafka.reader(&[topic]).unwrap();
        let deadline = Instant::now() + DEADLINE;
        let mut found = Vec::new();
        while found.len() < count {
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "{} of {count} dead letters", found.len());
            if let Some(letter) = reader.next(left).unwrap() {
                let text = |value: Option<Vec<u8>>| String::from_utf8(value.unwrap_or_default());
                let headers = letter.headers.into_iter();
                let headers = headers.map(|(name, value)| (name, text(value).unwrap()));
                found.push((letter.payload, headers.collect()));
            }
        }
        found
    }
}

/// An alert as the scorer writes it, with members that Tollgate does not know.
pub(crate) fn alert(user: &str, transaction: &str) -> String {
    serde_json::json!({
        "transaction_id": transaction,
        "user_id": user,
        "fraud_score": 80.5,
        "fraud_indicators": ["high_velocity", "high_amount", "rule_of_a_newer_version"],
        "status": "blocked",
        "processed_at": "2026-03-01T12:30:00.25Z",
        "ruleset_version": "r1",
        "from_tomorrow": {"x": 1},
        "transaction": {"transaction_id": transaction, "user_id": user, "amount": 5000.25, "channel": "pos"},
    })
    .to_string()
}

pub(crate) fn console() -> SinkConfig {
    SinkConfig::of_kind("console")
}

pub(crate) fn file(path: &Path) -> SinkConfig {
    SinkConfig {
        path: Some(path.to_owned()),
        ..SinkConfig::of_kind("file")
    }
}

pub(crate) fn webhook(address: SocketAddr) -> SinkConfig {
    SinkConfig {
        url: Some(format!("http://{address}/alerts")),
        secret: Some(Secret::new(SECRET)),
        timeout_ms: Some(1_000),
        ..SinkConfig::of_kind("webhook")
    }
}

/// The transaction ids in a file of decisions, one a line; lines that are no JSON are left out.
pub(crate) fn transactions_in(path: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let decisions = text
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    decisions
        .map(|decision| decision["transaction_id"].as_str().unwrap().to_owned())
        .collect()
}

pub(crate) fn sorted(mut list: Vec<String>) -> Vec<String> {
    list.sort();
    list
}

/// What a receiver does with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    Status(u16),
    /// Takes the request and never answers.
    Hang,
    /// 429, come again in that many seconds.
    After(u32),
}

/// One request with a valid signature.
#[derive(Debug, Clone)]
pub(crate) struct Received {
    pub(crate) transaction: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: serde_json::Value,
    pub(crate) answer: Answer,
    pub(crate) at: Instant,
}

type Behaviour = dyn Fn(&str, usize) -> Answer + Send + Sync;

#[derive(Clone)]
pub(crate) struct Receiver {
    pub(crate) address: SocketAddr,
    received: Arc<Mutex<Vec<Received>>>,
    behaviour: Arc<Behaviour>,
}

impl Receiver {
    /// Answers by transaction and by how often it has come before.
    pub(crate) async fn start(
        behaviour: impl Fn(&str, usize) -> Answer + Send + Sync + 'static,
    ) -> Self {
        Self::start_closing_first(0, behaviour).await
    }

    /// As `start`, but closes so many connections first, before anything is read.
    pub(crate) async fn start_closing_first(
        closed: usize,
        behaviour: impl Fn(&str, usize) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let receiver = Self {
            address: listener.local_addr().unwrap(),
            received: Arc::default(),
            behaviour: Arc::new(behaviour),
        };
        let app = Router::new()
            .route("/alerts", post(receive))
            .with_state(receiver.clone());
        tokio::spawn(async move {
            for _ in 0..closed {
                drop(listener.accept().await.unwrap());
            }
            axum::serve(listener, app).await.unwrap();
        });
        receiver
    }

    pub(crate) fn received(&self) -> Vec<Received> {
        self.received.lock().unwrap().clone()
    }

    /// Transactions that were answered with success, in order.
    pub(crate) fn accepted(&self) -> Vec<String> {
        let accepted = |one: &Received| matches!(one.answer, Answer::Status(200..=299));
        self.received()
            .into_iter()
            .filter(accepted)
            .map(|one| one.transaction)
            .collect()
    }
}

async fn receive(State(receiver): State<Receiver>, headers: HeaderMap, body: Bytes) -> Response {
    let verifier = standardwebhooks::Webhook::new(SECRET).unwrap();
    if let Err(error) = verifier.verify(&body, &headers) {
        // No test expects it, so every one fails by it.
        eprintln!("signature: {error}");
        return StatusCode::UNAUTHORIZED.into_response();
    }
    let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
    let transaction = body["data"]["transaction_id"].as_str().unwrap().to_owned();
    let answer = {
        let mut received = receiver.received.lock().unwrap();
        let before = received
            .iter()
            .filter(|one| one.transaction == transaction)
            .count();
        let answer = (receiver.behaviour)(&transaction, before);
        received.push(Received {
            transaction,
            headers,
            body,
            answer,
            at: Instant::now(),
        });
        answer
    };
    match answer {
        Answer::Status(status) => StatusCode::from_u16(status).unwrap().into_response(),
        Answer::Hang => std::future::pending().await,
        Answer::After(seconds) => (
            StatusCode::TOO_MANY_REQUESTS,
            [("retry-after", seconds.to_string())],
        )
            .into_response(),
    }
}
