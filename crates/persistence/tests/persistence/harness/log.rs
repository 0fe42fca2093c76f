//! The log of a test, written to and read from outside.

use std::time::Instant;

use tollgate_log::{
    Acks, AuthenticationConfig, KafkaConfig, Log, LogRecord, Producer, ProducerRecord,
};

use super::{DEADLINE, until};

/// The key of a decision, whatever else is in it.
#[derive(serde::Deserialize)]
struct Keyed {
    user_id: String,
}

/// A log, which outlives the services that read it.
#[derive(Clone)]
pub(crate) struct TestLog {
    pub(crate) kafka: Log,
    producer: Producer,
}

impl TestLog {
    pub(crate) fn open() -> Self {
        Self::open_with(AuthenticationConfig::default())
    }

    /// One whose services sign what they write.
    pub(crate) fn open_signed() -> Self {
        let secret = "0123456789abcdef0123456789abcdef";
        Self::open_with(AuthenticationConfig::with_key("k1", secret))
    }

    fn open_with(authentication: AuthenticationConfig) -> Self {
        let kafka = Log::open(KafkaConfig {
            partitions: 3,
            authentication,
            ..KafkaConfig::default()
        })
        .unwrap();
        Self {
            producer: kafka.producer("test").unwrap(),
            kafka,
        }
    }

    /// Writes decisions, each into the partition of its user.
    pub(crate) async fn send(&self, decisions: impl IntoIterator<Item = impl AsRef<str>>) {
        let user = |decision: &str| serde_json::from_str::<Keyed>(decision).unwrap().user_id;
        let keyed: Vec<(String, String)> = decisions
            .into_iter()
            .map(|decision| (user(decision.as_ref()), decision.as_ref().to_owned()))
            .collect();
        let topic = &self.kafka.topics().decisions;
        self.send_records(keyed.iter().map(|(user, decision)| {
            ProducerRecord::new(topic, user.as_bytes(), decision.as_bytes())
        }))
        .await;
    }

    /// Writes records of any shape, and waits until they are on the log.
    pub(crate) async fn send_records<'a>(
        &self,
        records: impl IntoIterator<Item = ProducerRecord<'a>>,
    ) {
        let (done, acknowledged) = tokio::sync::oneshot::channel();
        let acks = Acks::new(|result| done.send(result).unwrap());
        let deadline = Instant::now() + DEADLINE;
        for record in records {
            self.producer
                .send_until(&record, &acks, deadline)
                .await
                .unwrap();
        }
        acks.seal();
        acknowledged.await.unwrap().unwrap();
    }

    /// Waits until the service has stored everything that was sent, and has committed it.
    pub(crate) async fn wait_until_committed(&self) {
        let topic = &self.kafka.topics().decisions;
        until("everything is committed", async || {
            self.kafka.embedded().unwrap().uncommitted(topic) == 0
        })
        .await;
    }

    /// What is on the dead-letter topic, once there are `count` records.
    pub(crate) async fn dead_letters(&self, count: usize) -> Vec<LogRecord> {
        let kafka = self.kafka.clone();
        let read = move || {
            let mut reader = kafka.reader(&[&kafka.topics().decisions_dlq]).unwrap();
            let deadline = Instant::now() + DEADLINE;
            let mut found = Vec::new();
            while found.len() < count {
                let left = deadline.saturating_duration_since(Instant::now());
                assert!(
                    !left.is_zero(),
                    "{} of {count} dead letters came: {found:?}",
                    found.len()
                );
                found.extend(reader.next(left).unwrap());
            }
            found
        };
        tokio::task::spawn_blocking(read).await.unwrap()
    }

    /// How many records were ever dead-lettered.
    pub(crate) fn count_dead_letters(&self) -> i64 {
        let topic = self.kafka.topics().decisions_dlq.as_str();
        let mut reader = self.kafka.reader(&[topic]).unwrap();
        reader.end(topic).unwrap()
    }
}
