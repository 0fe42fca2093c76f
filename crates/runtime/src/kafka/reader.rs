//! Reading a topic from its beginning, outside any consumer group: for tests and tools, not for a stage.

use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::{Headers as _, Message as _};
use rdkafka::{Offset, TopicPartitionList};

use super::{ASK, Kafka, KafkaError};

/// One record, as it stands in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogRecord {
    /// Topic it stands in.
    pub topic: String,
    /// Partition it stands in.
    pub partition: i32,
    /// Offset it stands at.
    pub offset: i64,
    /// The record's own time, milliseconds since 1970.
    pub timestamp_ms: Option<i64>,
    /// The key.
    pub key: Option<Vec<u8>>,
    /// The payload; a record without one reads as empty.
    pub payload: Vec<u8>,
    /// The headers, in order.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
}

impl LogRecord {
    /// The last header of this name that has a value which is text.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self
            .headers
            .iter()
            .rev()
            .find(|(found, value)| found == name && value.is_some());
        found.and_then(|(_, value)| std::str::from_utf8(value.as_deref()?).ok())
    }
}

/// Reads every partition of some topics from the beginning.
pub struct TopicReader {
    kafka: Kafka,
    consumer: BaseConsumer,
}

impl std::fmt::Debug for TopicReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TopicReader").finish_non_exhaustive()
    }
}

impl Kafka {
    /// A reader of all partitions of these topics. In the embedded log, where what is unread holds writers back, it
    /// counts as the reader of these topics: give it none that a stage reads.
    ///
    /// # Errors
    /// Where the topics do not exist, or no broker answers.
    pub fn reader(&self, topics: &[&str]) -> Result<TopicReader, KafkaError> {
        let mut config = self.client_config();
        // The client library wants a name; nothing is committed under it.
        config
            .set("group.id", "tollgate-reader")
            .set("enable.auto.commit", "false")
            .set("fetch.wait.max.ms", "10");
        let consumer: BaseConsumer = config
            .create()
            .map_err(KafkaError::client("cannot make a consumer"))?;
        let counts = self.partition_counts(topics)?;
        let mut list = TopicPartitionList::new();
        for topic in topics {
            let count = counts
                .get(*topic)
                .ok_or_else(|| KafkaError::Refused(format!("topic {topic} does not exist")))?;
            for partition in 0..*count {
                list.add_partition_offset(topic, partition, Offset::Beginning)
                    .map_err(KafkaError::client("an offset is out of range"))?;
            }
        }
        consumer
            .assign(&list)
            .map_err(KafkaError::client("cannot read the topics"))?;
        Ok(TopicReader {
            kafka: self.clone(),
            consumer,
        })
    }
}

impl TopicReader {
    /// The next record, waited for so long at most.
    ///
    /// # Errors
    /// Where the log cannot be read.
    pub fn next(&mut self, timeout: Duration) -> Result<Option<LogRecord>, KafkaError> {
        let deadline = Instant::now() + timeout;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.consumer.poll(left) {
                Some(Ok(message)) => {
                    let headers = message.headers();
                    let headers = headers.iter().flat_map(|headers| headers.iter());
                    let record = LogRecord {
                        topic: message.topic().to_owned(),
                        partition: message.partition(),
                        offset: message.offset(),
                        timestamp_ms: message.timestamp().to_millis(),
                        key: message.key().map(<[u8]>::to_vec),
                        payload: message.payload().unwrap_or_default().to_vec(),
                        headers: headers
                            .map(|header| (header.key.to_owned(), header.value.map(<[u8]>::to_vec)))
                            .collect(),
                    };
                    if let Some(log) = self.kafka.embedded() {
                        log.release(&record.topic, record.partition, record.size());
                    }
                    return Ok(Some(record));
                }
                Some(Err(source)) => {
                    return Err(KafkaError::Client {
                        what: "cannot read the log".to_owned(),
                        source,
                    });
                }
                None if left.is_zero() => return Ok(None),
                None => {}
            }
        }
    }

    /// Where the log ends now, over all partitions: how many records there are if none was deleted.
    ///
    /// # Errors
    /// Where no broker answers.
    pub fn end(&self, topic: &str) -> Result<i64, KafkaError> {
        let count = self
            .kafka
            .partition_counts(&[topic])?
            .get(topic)
            .copied()
            .unwrap_or_default();
        (0..count)
            .map(|partition| {
                self.consumer
                    .fetch_watermarks(topic, partition, ASK)
                    .map(|(_, end)| end)
            })
            .sum::<Result<i64, _>>()
            .map_err(KafkaError::client(format!(
                "cannot find the end of {topic}"
            )))
    }
}

impl LogRecord {
    fn size(&self) -> usize {
        let headers: usize = self
            .headers
            .iter()
            .map(|(name, value)| name.len() + value.as_ref().map_or(0, Vec::len))
            .sum();
        self.key.as_ref().map_or(0, Vec::len) + self.payload.len() + headers
    }
}
