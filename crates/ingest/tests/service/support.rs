//! A service on its own ports with an embedded log, and access to both.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use reqwest::{Client, RequestBuilder, Response};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tollgate_ingest::IngestConfig;
use tollgate_log::{
    Acks, AuthenticationConfig, KafkaConfig, Log, LogRecord, ProducerRecord, TopicReader,
};
use tollgate_service::Shutdown;
use tollgate_service::supervisor::RunningService;
use tollgate_types::{ReplyAddress, headers};

pub(crate) const JSON: &str = "application/json";
pub(crate) const NDJSON: &str = "application/x-ndjson";
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

pub(crate) fn embedded() -> Log {
    let config = KafkaConfig {
        partitions: 3,
        ..KafkaConfig::default()
    };
    Log::open(config).unwrap()
}

/// One on which services sign what they write.
pub(crate) fn signed() -> Log {
    let config = KafkaConfig {
        partitions: 3,
        authentication: AuthenticationConfig::with_key("k1", "0123456789abcdef0123456789abcdef"),
        ..KafkaConfig::default()
    };
    Log::open(config).unwrap()
}

/// A log that the service reaches over its address.
/// A log that acknowledges what is on disk.
pub(crate) fn journaled(path: &std::path::Path) -> Log {
    let config = KafkaConfig {
        partitions: 3,
        journal: path.to_string_lossy().into_owned(),
        ..KafkaConfig::default()
    };
    Log::open(config).unwrap()
}

pub(crate) fn cluster_at(brokers: &str) -> Log {
    let config = KafkaConfig {
        brokers: brokers.to_owned(),
        ..KafkaConfig::default()
    };
    Log::open(config).unwrap()
}

pub(crate) fn config() -> IngestConfig {
    IngestConfig {
        listen: "127.0.0.1:0".parse().unwrap(),
        admin_listen: "127.0.0.1:0".parse().unwrap(),
        // The transactions of the tests are of a certain day.
        max_age_hours: 0,
        ..IngestConfig::default()
    }
}

pub(crate) struct Service {
    pub(crate) kafka: Log,
    pub(crate) shutdown: Shutdown,
    pub(crate) url: String,
    pub(crate) admin: String,
    pub(crate) client: Client,
    ingest: RunningService,
}

/// Starts a service without waiting for its log.
pub(crate) async fn start_with(kafka: Log, config: IngestConfig) -> Service {
    // Before the first measurement, which would be lost otherwise.
    tollgate_service::telemetry::metrics_handle();
    let shutdown = Shutdown::new(Duration::from_secs(10));
    let ingest = tollgate_ingest::start(config, kafka.clone(), shutdown.clone())
        .await
        .unwrap();
    Service {
        kafka,
        shutdown,
        url: ingest.url().unwrap(),
        admin: ingest.admin_url(),
        client: Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .unwrap(),
        ingest,
    }
}

pub(crate) async fn start(change: impl FnOnce(&mut IngestConfig)) -> Service {
    start_on(embedded(), change).await
}

/// Starts a service on this log, and waits until it is ready.
pub(crate) async fn start_on(kafka: Log, change: impl FnOnce(&mut IngestConfig)) -> Service {
    let mut config = config();
    change(&mut config);
    let service = start_with(kafka, config).await;
    let ready = tokio::time::timeout(DEADLINE, service.ingest.ready());
    assert!(ready.await.unwrap());
    service
}

impl Service {
    pub(crate) fn post(
        &self,
        content_type: &str,
        body: impl Into<reqwest::Body>,
    ) -> RequestBuilder {
        let url = format!("{}/v1/transactions", self.url);
        self.client
            .post(url)
            .header("content-type", content_type)
            .body(body)
    }

    pub(crate) async fn send(&self, content_type: &str, body: impl Into<reqwest::Body>) -> Answer {
        let response = self.post(content_type, body).send().await.unwrap();
        Answer::of(response).await
    }

    pub(crate) async fn get(&self, path: &str) -> Response {
        let url = format!("{}{path}", self.url);
        self.client.get(url).send().await.unwrap()
    }

    pub(crate) async fn readiness(&self) -> Answer {
        let url = format!("{}/readyz", self.admin);
        Answer::of(self.client.get(url).send().await.unwrap()).await
    }

    pub(crate) async fn metrics(&self) -> String {
        let url = format!("{}/metrics", self.admin);
        let response = self.client.get(url).send().await.unwrap();
        response.text().await.unwrap()
    }

    /// The first `count` records of the topic of transactions.
    pub(crate) fn records(&self, count: usize) -> Vec<Record> {
        let topic = &self.kafka.topics().transactions;
        let mut reader = Reader::new(&self.kafka, topic);
        let deadline = Instant::now() + DEADLINE;
        let mut records = Vec::new();
        while records.len() < count {
            assert!(Instant::now() < deadline, "only {records:?} arrived");
            records.extend(reader.next());
        }
        records
    }

    pub(crate) async fn post_to(
        &self,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<reqwest::Body>,
    ) -> Answer {
        let mut request = self.client.post(format!("{}{path}", self.url)).body(body);
        if !headers.iter().any(|(name, _)| *name == "content-type") {
            request = request.header("content-type", JSON);
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        Answer::of(request.send().await.unwrap()).await
    }

    /// All records that are on a topic now.
    pub(crate) fn all(&self, topic: &str) -> Vec<LogRecord> {
        let mut found = Vec::new();
        let mut reader = self.kafka.reader(&[topic]).unwrap();
        let read = reader.read_all(|record| {
            found.push(record);
            Ok::<(), tollgate_log::LogError>(())
        });
        read.unwrap();
        found
    }

    /// The dead letters of ingest.
    pub(crate) fn letters(&self) -> Vec<LogRecord> {
        self.all(&self.kafka.topics().transactions_dlq)
    }

    pub(crate) async fn stop(self) {
        self.shutdown.begin();
        let stopped = tokio::time::timeout(DEADLINE, self.ingest.join());
        stopped.await.unwrap().unwrap();
    }
}

/// Status, headers and JSON of an answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: reqwest::header::HeaderMap,
    pub(crate) text: String,
    pub(crate) body: Value,
}

impl Answer {
    pub(crate) async fn of(response: Response) -> Self {
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let text = response.text().await.unwrap();
        let body = serde_json::from_str(&text).unwrap_or(Value::Null);
        Self {
            status,
            headers,
            text,
            body,
        }
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    pub(crate) fn is_problem(&self, status: u16) {
        assert_eq!(self.status, status, "{}", self.text);
        assert_eq!(
            self.header("content-type"),
            Some("application/problem+json")
        );
        assert_eq!(self.body["status"], status);
        assert!(self.body["detail"].is_string() && self.body["title"].is_string());
    }

    /// `Retry-After`, in seconds.
    pub(crate) fn retry_after(&self) -> u64 {
        self.header("retry-after").unwrap().parse().unwrap()
    }
}

/// A request whose body is sent in pieces.
pub(crate) struct Pieces(TcpStream);

impl Pieces {
    pub(crate) async fn begin(service: &Service, content_type: &str) -> Self {
        let address = service.url.trim_start_matches("http://");
        let mut stream = TcpStream::connect(address).await.unwrap();
        let head = format!(
            "POST /v1/transactions HTTP/1.1\r\nhost: {address}\r\ncontent-type: {content_type}\r\n\
             transfer-encoding: chunked\r\nconnection: close\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        Self(stream)
    }

    pub(crate) async fn send(&mut self, piece: &str) {
        let chunk = format!("{:x}\r\n{piece}\r\n", piece.len());
        self.0.write_all(chunk.as_bytes()).await.unwrap();
    }

    pub(crate) async fn end(mut self) -> Answer {
        self.0.write_all(b"0\r\n\r\n").await.unwrap();
        self.answer().await
    }

    /// The answer to what was sent so far.
    pub(crate) async fn answer(mut self) -> Answer {
        let mut text = String::new();
        self.0.read_to_string(&mut text).await.unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let mut lines = head.lines();
        let status = lines.next().unwrap().split(' ').nth(1).unwrap();
        let headers = lines.map(|line| {
            let (name, value) = line.split_once(": ").unwrap();
            let name: reqwest::header::HeaderName = name.parse().unwrap();
            (name, value.parse().unwrap())
        });
        Answer {
            status: status.parse().unwrap(),
            headers: headers.collect(),
            text: body.to_owned(),
            body: serde_json::from_str(body).unwrap(),
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Record {
    pub(crate) partition: i32,
    pub(crate) key: String,
    pub(crate) payload: String,
    pub(crate) headers: Vec<(String, String)>,
}

impl Record {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(found, _)| found == name);
        found.map(|(_, value)| value.as_str())
    }
}

/// Reads all partitions of a topic from their beginning.
pub(crate) struct Reader(TopicReader);

impl Reader {
    pub(crate) fn new(kafka: &Log, topic: &str) -> Self {
        Self(kafka.reader(&[topic]).unwrap())
    }

    pub(crate) fn next(&mut self) -> Option<Record> {
        let record = self.0.next(Duration::from_millis(50)).unwrap()?;
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        let headers = record.headers.into_iter();
        Some(Record {
            partition: record.partition,
            key: text(record.key.unwrap()),
            payload: text(record.payload),
            headers: headers
                .map(|(name, value)| (name, text(value.unwrap())))
                .collect(),
        })
    }
}

/// Answers records that request a reply, as the test decides.
pub(crate) struct Scorer {
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Scorer {
    /// `decide` gets each record and gives the texts of its replies.
    pub(crate) fn start(
        kafka: &Log,
        mut decide: impl FnMut(&Record) -> Vec<String> + Send + 'static,
    ) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, kafka) = (Arc::clone(&stop), kafka.clone());
        let thread = std::thread::spawn(move || {
            let mut reader = Reader::new(&kafka, &kafka.topics().transactions);
            let producer = kafka.producer("test").unwrap();
            while !stopped.load(Ordering::Relaxed) {
                let Some(record) = reader.next() else {
                    continue;
                };
                let Some(address) = record.header("reply-to") else {
                    continue;
                };
                let parsed = ReplyAddress::parse(address.as_bytes()).unwrap();
                let repeated = [(headers::REPLY_TO, Some(address.as_bytes()))];
                for reply in decide(&record) {
                    let topic = &kafka.topics().replies;
                    let out = ProducerRecord {
                        partition: Some(parsed.partition),
                        headers: &repeated,
                        ..ProducerRecord::signed(topic, record.key.as_bytes(), reply.as_bytes())
                    };
                    producer.send(&out, &Acks::new(|_| ())).unwrap();
                }
            }
        });
        Self {
            stop,
            thread: Some(thread),
        }
    }
}

impl Drop for Scorer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let ended = self.thread.take().unwrap().join();
        assert!(ended.is_ok() || std::thread::panicking());
    }
}

/// Waits for a condition with a deadline; a failure names the condition.
pub(crate) async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !condition().await {
        assert!(Instant::now() < deadline, "never: {what}");
        tokio::task::yield_now().await;
    }
}

pub(crate) fn transaction(id: &str, user: &str) -> String {
    format!(
        r#"{{"transaction_id":"{id}","user_id":"{user}","amount":12.5,"timestamp":"2026-03-01T12:30:00Z"}}"#
    )
}
