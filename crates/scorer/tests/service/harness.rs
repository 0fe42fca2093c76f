//! A scorer of a test's own, over an embedded log.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tollgate_log::{
    Acks, AuthenticationConfig, KafkaConfig, Log, LogRecord, Producer, ProducerRecord, TopicReader,
};
use tollgate_scorer::{ScorerConfig, start};
use tollgate_service::Shutdown;
use tollgate_service::supervisor::RunningService;
use tollgate_types::Transaction;

/// Partition 1 of `replies`, and a nonce.
pub(crate) const ADDRESS: &[u8] = b"1:00112233445566778899aabbccddeeff";

pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

pub(crate) struct Harness {
    pub(crate) kafka: Log,
    pub(crate) producer: Producer,
    pub(crate) shutdown: Shutdown,
    pub(crate) scorer: RunningService,
}

impl Harness {
    pub(crate) async fn start(change: impl FnOnce(&mut ScorerConfig)) -> Self {
        Self::start_with(AuthenticationConfig::default(), change).await
    }

    pub(crate) async fn start_with(
        authentication: AuthenticationConfig,
        change: impl FnOnce(&mut ScorerConfig),
    ) -> Self {
        let kafka = Log::open(KafkaConfig {
            partitions: 4,
            authentication,
            ..KafkaConfig::default()
        })
        .unwrap();
        Self::on(kafka, change).await
    }

    /// A scorer on a log that has been there before.
    pub(crate) async fn on(kafka: Log, change: impl FnOnce(&mut ScorerConfig)) -> Self {
        let mut config = ScorerConfig {
            admin_listen: "127.0.0.1:0".parse().unwrap(),
            ..ScorerConfig::default()
        };
        change(&mut config);
        let shutdown = Shutdown::new(Duration::from_secs(10));
        let scorer = start(config, kafka.clone(), shutdown.clone())
            .await
            .unwrap();
        let producer = kafka.producer("test").unwrap();
        Self {
            kafka,
            producer,
            shutdown,
            scorer,
        }
    }

    pub(crate) fn put(&self, record: &ProducerRecord<'_>) {
        let acks = Acks::new(|result| result.unwrap());
        self.producer.send(record, &acks).unwrap();
        acks.seal();
    }

    pub(crate) fn put_transaction(&self, json: &str) {
        let user = Transaction::parse(json.as_bytes())
            .unwrap()
            .user_id
            .into_owned();
        self.put(&ProducerRecord::new(
            &self.kafka.topics().transactions,
            user.as_bytes(),
            json.as_bytes(),
        ));
    }

    pub(crate) fn read(&self, topic: &str, count: usize) -> Vec<LogRecord> {
        let mut reader = self.kafka.reader(&[topic]).unwrap();
        take(&mut reader, count)
    }

    /// What `/readyz` answers once the scorer is ready.
    pub(crate) async fn readiness(&self) -> String {
        assert!(self.scorer.ready().await);
        let url = self.scorer.admin_url();
        let address = url.trim_start_matches("http://").trim_end_matches('/');
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request =
            format!("GET /readyz HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    pub(crate) async fn stop(self) {
        self.shutdown.begin();
        self.scorer.join().await.unwrap();
    }
}

pub(crate) fn take(reader: &mut TopicReader, count: usize) -> Vec<LogRecord> {
    let deadline = Instant::now() + DEADLINE;
    let mut records = Vec::new();
    while records.len() < count {
        let left = deadline.saturating_duration_since(Instant::now());
        assert!(!left.is_zero(), "{} of {count} records came", records.len());
        records.extend(reader.next(left).unwrap());
    }
    records
}
