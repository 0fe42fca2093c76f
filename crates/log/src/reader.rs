//! Reading a topic from its beginning, outside any consumer group: for tests and tools, not for a stage.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError as ClientError;
use rdkafka::message::{Headers as _, Message as _};
use rdkafka::{Offset, TopicPartitionList};

use super::{ASK, Kafka, KafkaError, Profile, Quiet};

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
    consumer: BaseConsumer<Quiet>,
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
        let mut config = self.consumer_config();
        // The client library wants a name; nothing is committed under it.
        config
            .set("group.id", "tollgate-reader")
            .set("enable.auto.commit", "false")
            .set("enable.partition.eof", "true");
        if self.config().profile() != Profile::OciStreaming {
            config.set("fetch.wait.max.ms", "10");
        }
        let consumer: BaseConsumer<Quiet> = config
            .create_with_context(Quiet)
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
                // Its end for now.
                Some(Err(ClientError::PartitionEOF(_))) => {}
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

    /// Reads from the beginning everything that is there now, and stops where `each` fails.
    ///
    /// # Errors
    /// Where the log cannot be read, or what `each` says.
    pub fn read_all<E: From<KafkaError>>(
        &mut self,
        mut each: impl FnMut(LogRecord) -> Result<(), E>,
    ) -> Result<(), E> {
        let assigned = self
            .consumer
            .assignment()
            .map_err(KafkaError::client("cannot read the topics"))?;
        let mut open = HashMap::new();
        for element in assigned.elements() {
            let (topic, partition) = (element.topic(), element.partition());
            let (low, end) = self
                .consumer
                .fetch_watermarks(topic, partition, ASK)
                .map_err(KafkaError::client("cannot find the ends of the topics"))?;
            if low < end {
                open.insert((topic.to_owned(), partition), end);
            }
        }
        while !open.is_empty() {
            if let Some(record) = self.next(Duration::from_millis(100))? {
                let place = (record.topic.clone(), record.partition);
                let Some(end) = open.get(&place).copied() else {
                    continue;
                };
                if record.offset + 1 >= end {
                    open.remove(&place);
                }
                if record.offset < end {
                    each(record)?;
                }
                continue;
            }
            // The last offsets may be of no record: a broker keeps some for itself.
            let positions = self
                .consumer
                .position()
                .map_err(KafkaError::client("cannot read the topics"))?;
            for element in positions.elements() {
                let place = (element.topic().to_owned(), element.partition());
                if let Offset::Offset(position) = element.offset()
                    && open.get(&place).is_some_and(|end| position >= *end)
                {
                    open.remove(&place);
                }
            }
        }
        Ok(())
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
