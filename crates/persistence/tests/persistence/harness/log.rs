//! The log of a test, written to and read from outside.

use std::time::{Duration, Instant};

use rdkafka::Message as _;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::Headers as _;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use tollgate_log::{Acks, Kafka, KafkaConfig, Producer, ProducerRecord};

use super::{DEADLINE, until};

/// A record on the dead-letter topic.
#[derive(Debug)]
pub(crate) struct DeadRecord {
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) payload: Vec<u8>,
    pub(crate) headers: Vec<(String, Option<Vec<u8>>)>,
}

impl DeadRecord {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let (_, value) = self.headers.iter().rfind(|(found, _)| found == name)?;
        value
            .as_deref()
            .map(|value| std::str::from_utf8(value).unwrap())
    }
}

/// The key of a decision, whatever else is in it.
#[derive(serde::Deserialize)]
struct Keyed {
    user_id: String,
}

/// A log, which outlives the services that read it.
#[derive(Clone)]
pub(crate) struct Log {
    pub(crate) kafka: Kafka,
    producer: Producer,
}

impl Log {
    pub(crate) fn open() -> Self {
        let kafka = Kafka::open(KafkaConfig {
            partitions: 3,
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

    /// Waits until the service has read everything that was sent.
    pub(crate) async fn wait_until_read(&self) {
        let topic = &self.kafka.topics().decisions;
        until("everything is read", async || {
            self.kafka.embedded().unwrap().unread_bytes(topic) == 0
        })
        .await;
    }

    /// What is on the dead-letter topic, once there are `count` records.
    pub(crate) async fn dead_letters(&self, count: usize) -> Vec<DeadRecord> {
        let (brokers, topic) = (
            self.kafka.brokers(),
            self.kafka.topics().decisions_dlq.clone(),
        );
        tokio::task::spawn_blocking(move || read_topic(&brokers, &topic, count))
            .await
            .unwrap()
    }

    /// How many records were ever dead-lettered.
    pub(crate) fn count_dead_letters(&self) -> i64 {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", self.kafka.brokers())
            .set("group.id", "count")
            .create()
            .unwrap();
        let topic = &self.kafka.topics().decisions_dlq;
        (0..3)
            .map(|partition| {
                consumer
                    .fetch_watermarks(topic, partition, DEADLINE)
                    .unwrap()
                    .1
            })
            .sum()
    }
}

fn read_topic(brokers: &str, topic: &str, count: usize) -> Vec<DeadRecord> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", "dead-letters")
        .set("fetch.wait.max.ms", "5")
        .create()
        .unwrap();
    let mut list = TopicPartitionList::new();
    for partition in 0..3 {
        list.add_partition_offset(topic, partition, Offset::Beginning)
            .unwrap();
    }
    consumer.assign(&list).unwrap();
    let deadline = Instant::now() + DEADLINE;
    let mut found = Vec::new();
    while found.len() < count {
        assert!(
            Instant::now() < deadline,
            "{} of {count} dead letters came: {found:?}",
            found.len()
        );
        let Some(message) = consumer.poll(Duration::from_millis(100)) else {
            continue;
        };
        let message = message.unwrap();
        let headers = message.headers().unwrap().iter();
        found.push(DeadRecord {
            key: message.key().map(<[u8]>::to_vec),
            payload: message.payload().unwrap_or_default().to_vec(),
            headers: headers
                .map(|header| (header.key.to_owned(), header.value.map(<[u8]>::to_vec)))
                .collect(),
        });
    }
    found
}
