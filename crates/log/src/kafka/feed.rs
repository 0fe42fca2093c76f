//! Reading from Kafka: the client library behind the trait [`Feed`].
//!
//! `callbacks` sends the events of a rebalance, and `committer` commits for another thread. Invariant: every event of a
//! rebalance is answered once, by `assign` or `unassign`. The group waits for the answer, and so does leaving the group:
//! a feed that is dropped answers an event that is still open.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedHeaders, Headers as _, Message as _};
use rdkafka::{Offset, TopicPartitionList};

use super::callbacks::{ConsumerCallbacks, index_of, partition_of, unassign};
use super::committer::KafkaCommitter;
use super::{REQUEST_TIMEOUT, settings, statistics};
use crate::config::KafkaConfig;
use crate::consumer::feed::{
    CommittedOffset, Feed, FeedEvent, FeedOptions, Membership, OffsetCommitter, OutOfRange, Polled,
    StartOffset,
};
use crate::error::LogError;
use crate::record::{HeaderList, RawRecord, TopicPartition};

/// The client setting for how long a member may be silent, in milliseconds, before the group expels it.
const SESSION_TIMEOUT: &str = "session.timeout.ms";

/// A feed from one client, which is a member of a group or reads outside of it.
pub(super) struct KafkaFeed {
    consumer: Arc<BaseConsumer<ConsumerCallbacks>>,
    brokers: String,
    topics: Arc<[String]>,
    group: String,
    /// Events that the rebalance callback has sent and no poll has returned yet.
    rebalances: Receiver<FeedEvent>,
    /// True from the poll that returns an event of a rebalance until `assign` or `unassign`.
    unanswered: bool,
    /// Set when the feed is dropped: from then on the callback answers rebalances itself.
    closing: Arc<AtomicBool>,
    /// Assigned partitions that have not reported their end yet.
    open: Vec<TopicPartition>,
    /// Ends that were found together. Each poll reports one of them.
    ends: Vec<TopicPartition>,
}

impl KafkaFeed {
    /// Makes the client.
    ///
    /// # Errors
    /// [`LogError::Client`] where the client library refuses the settings.
    pub(super) fn new(
        config: &KafkaConfig,
        brokers: &str,
        options: FeedOptions,
    ) -> Result<Self, LogError> {
        let mut client = settings::consumer_config(config, brokers);
        client
            // The client library requires a name even of a reader outside a group, which commits nothing.
            .set("group.id", &options.group)
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set(
                "auto.offset.reset",
                match options.out_of_range {
                    OutOfRange::Fail => "error",
                    OutOfRange::Oldest => "earliest",
                    OutOfRange::Newest => "latest",
                },
            )
            .set("enable.partition.eof", "true");
        if options.stage.is_some() {
            client.set("statistics.interval.ms", statistics::INTERVAL_MS);
        }
        if options.membership == Membership::Member {
            client.set("partition.assignment.strategy", "range,roundrobin");
            // The group notices a killed member after 10 s, and assigns its partitions to another. A configured
            // property overrides this default.
            if !config.properties.contains_key(SESSION_TIMEOUT) {
                client.set(SESSION_TIMEOUT, "10000");
            }
        }
        let topics: Arc<[String]> = options.topics.into();
        let (sender, rebalances) = channel();
        let closing = Arc::new(AtomicBool::new(false));
        let callbacks = ConsumerCallbacks {
            topics: Arc::clone(&topics),
            stage: options.stage,
            rebalances: sender,
            closing: Arc::clone(&closing),
        };
        let consumer = client
            .create_with_context(callbacks)
            .map_err(LogError::client("cannot make a consumer"))?;
        Ok(Self {
            consumer: Arc::new(consumer),
            brokers: brokers.to_owned(),
            topics,
            group: options.group,
            rebalances,
            unanswered: false,
            closing,
            open: Vec::new(),
            ends: Vec::new(),
        })
    }

    /// Names of the topics, for messages.
    fn names(&self) -> String {
        self.topics.join(", ")
    }

    fn topic(&self, index: usize) -> Result<&str, LogError> {
        let topic = self.topics.get(index).map(String::as_str);
        topic.ok_or_else(|| LogError::Refused(format!("no topic has the index {index}")))
    }

    /// A list for the client, with an offset for each partition.
    fn list(
        &self,
        partitions: impl Iterator<Item = (TopicPartition, Offset)>,
    ) -> Result<TopicPartitionList, LogError> {
        let mut list = TopicPartitionList::new();
        for (at, offset) in partitions {
            list.add_partition_offset(self.topic(at.topic)?, at.partition, offset)
                .map_err(LogError::client("an offset is out of range"))?;
        }
        Ok(list)
    }

    /// Takes the oldest event that the callback has sent, if any. The event then waits for its answer.
    fn take_rebalance(&mut self) -> Option<Polled<'static>> {
        let event = self.rebalances.try_recv().ok()?;
        self.unanswered = true;
        Some(Polled::Event(event))
    }

    /// Finds the partitions of this number that have ended. The library reports the number alone, so where several
    /// topics are read, positions decide which of them has ended.
    fn note_end(&mut self, partition: i32) {
        let open = self.open.iter().copied();
        let candidates: Vec<TopicPartition> = open.filter(|at| at.partition == partition).collect();
        let ended: Vec<TopicPartition> = if self.topics.len() == 1 {
            candidates
        } else {
            candidates
                .into_iter()
                .filter(|at| self.is_at_end(*at).unwrap_or(false))
                .collect()
        };
        self.open.retain(|at| !ended.contains(at));
        self.ends.extend(ended);
    }

    /// Compares the position of the client with the end of the partition. Sends requests to the cluster.
    fn is_at_end(&mut self, at: TopicPartition) -> Result<bool, LogError> {
        let (oldest, end) = self.watermarks(at)?;
        let positions = self
            .consumer
            .position()
            .map_err(LogError::client("cannot look up positions"))?;
        let position = positions.elements().iter().find_map(|element| {
            (partition_of(&self.topics, element) == Some(at)).then(|| element.offset())
        });
        Ok(match position {
            Some(Offset::Offset(position)) => position >= end,
            // No record of the partition was read.
            _ => oldest == end,
        })
    }

    /// Classifies an error of a poll by what the caller does about it.
    fn error(&self, error: KafkaError) -> LogError {
        match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange) => {
                self.refused(&error)
            }
            Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) => {
                LogError::NoTopic(self.names())
            }
            _ if matches!(error, KafkaError::MessageConsumptionFatal(_)) => self.refused(&error),
            // The client recovers by itself: it reconnects and rejoins. Its error callback has logged the error.
            _ => LogError::client("cannot read the log")(error),
        }
    }

    fn refused(&self, error: &KafkaError) -> LogError {
        LogError::Refused(format!(
            "topic {} no longer holds the records to go on with: they were deleted before this stage had read them. \
             Raise the topic's retention; to go on with what is left, reset the offsets of group {}: {error}",
            self.names(),
            self.group
        ))
    }
}

impl Feed for KafkaFeed {
    fn subscribe(&mut self) -> Result<(), LogError> {
        let topics: Vec<&str> = self.topics.iter().map(String::as_str).collect();
        self.consumer
            .subscribe(&topics)
            .map_err(LogError::client(format!(
                "cannot subscribe to {}",
                self.names()
            )))
    }

    fn poll(&mut self, timeout: Duration, take: &mut dyn FnMut(Polled<'_>)) {
        if let Some(end) = self.ends.pop() {
            return take(Polled::Event(FeedEvent::EndOfPartition(end)));
        }
        if let Some(event) = self.take_rebalance() {
            return take(event);
        }
        let mut timeout = timeout;
        loop {
            let error = match self.consumer.poll(timeout) {
                Some(Ok(message)) => {
                    let topic = match &*self.topics {
                        [_] => 0,
                        topics => index_of(topics, message.topic()).unwrap_or_default(),
                    };
                    return take(Polled::Record(RawRecord {
                        at: TopicPartition::new(topic, message.partition()),
                        offset: message.offset(),
                        timestamp_ms: message.timestamp().to_millis(),
                        key: message.key(),
                        payload: message.payload().unwrap_or_default(),
                        headers: &KafkaHeaders(message.headers()),
                    }));
                }
                Some(Err(error)) => error,
                // A poll that has called the rebalance callback returns no record.
                None => return take(self.take_rebalance().unwrap_or(Polled::Nothing)),
            };
            let KafkaError::PartitionEOF(partition) = error else {
                return take(Polled::Event(FeedEvent::Error(self.error(error))));
            };
            self.note_end(partition);
            if let Some(end) = self.ends.pop() {
                return take(Polled::Event(FeedEvent::EndOfPartition(end)));
            }
            // The end was reported before. Other partitions may have records, so poll again without waiting.
            timeout = Duration::ZERO;
        }
    }

    fn assign(&mut self, starts: &[(TopicPartition, StartOffset)]) -> Result<(), LogError> {
        let list = self.list(starts.iter().map(|(at, start)| {
            let offset = match start {
                StartOffset::Oldest => Offset::Beginning,
                StartOffset::At(offset) => Offset::Offset(*offset),
            };
            (*at, offset)
        }))?;
        self.consumer
            .assign(&list)
            .map_err(LogError::client(format!(
                "cannot take partitions of {}",
                self.names()
            )))?;
        self.unanswered = false;
        self.open = starts.iter().map(|(at, _)| *at).collect();
        self.ends.clear();
        Ok(())
    }

    fn unassign(&mut self) -> Result<(), LogError> {
        self.unanswered = false;
        self.open.clear();
        self.ends.clear();
        self.consumer
            .unassign()
            .map_err(LogError::client("cannot give partitions back"))
    }

    fn pause(&mut self) -> Result<(), LogError> {
        let assigned = self.consumer.assignment();
        assigned
            .and_then(|assigned| self.consumer.pause(&assigned))
            .map_err(LogError::client("cannot pause"))
    }

    fn resume(&mut self) -> Result<(), LogError> {
        let assigned = self.consumer.assignment();
        assigned
            .and_then(|assigned| self.consumer.resume(&assigned))
            .map_err(LogError::client("cannot resume"))
    }

    fn partition_count(&mut self, topic: usize) -> Result<i32, LogError> {
        let topic = self.topic(topic)?;
        let metadata = self
            .consumer
            .fetch_metadata(Some(topic), REQUEST_TIMEOUT)
            .map_err(LogError::client(format!(
                "no broker at {} answers",
                self.brokers
            )))?;
        let found = metadata.topics().iter().find(|found| {
            found.name() == topic && found.error().is_none() && !found.partitions().is_empty()
        });
        let count = found.map(|found| found.partitions().len());
        let count = count.ok_or_else(|| LogError::NoTopic(topic.to_owned()))?;
        Ok(i32::try_from(count).unwrap_or(i32::MAX))
    }

    fn committed(
        &mut self,
        partitions: &[TopicPartition],
    ) -> Result<Vec<CommittedOffset>, LogError> {
        let list = self.list(partitions.iter().map(|at| (*at, Offset::Invalid)))?;
        let committed = self
            .consumer
            .committed_offsets(list, REQUEST_TIMEOUT)
            .map_err(LogError::client(format!(
                "cannot read the committed offsets of {}",
                self.names()
            )))?;
        let elements = committed.elements();
        let found = elements.iter().filter_map(|element| {
            Some(CommittedOffset {
                partition: partition_of(&self.topics, element)?,
                offset: match element.offset() {
                    Offset::Offset(offset) => Some(offset),
                    _ => None,
                },
                note: element.metadata().to_owned(),
            })
        });
        Ok(found.collect())
    }

    fn watermarks(&mut self, at: TopicPartition) -> Result<(i64, i64), LogError> {
        let topic = self.topic(at.topic)?;
        self.consumer
            .fetch_watermarks(topic, at.partition, REQUEST_TIMEOUT)
            .map_err(LogError::client(format!("cannot read the ends of {topic}")))
    }

    fn offsets_for_time(
        &mut self,
        partitions: &[TopicPartition],
        since_ms: i64,
    ) -> Result<Vec<Option<i64>>, LogError> {
        let list = self.list(partitions.iter().map(|at| (*at, Offset::Offset(since_ms))))?;
        let found = self
            .consumer
            .offsets_for_times(list, REQUEST_TIMEOUT)
            .map_err(LogError::client(format!(
                "cannot find where the history of {} begins",
                self.names()
            )))?;
        let elements = found.elements();
        let offset_of = |at: &TopicPartition| {
            let element = elements
                .iter()
                .find(|element| partition_of(&self.topics, element) == Some(*at))?;
            match element.offset() {
                Offset::Offset(offset) => Some(offset),
                _ => None,
            }
        };
        Ok(partitions.iter().map(offset_of).collect())
    }

    fn committer(&self) -> Box<dyn OffsetCommitter> {
        Box::new(KafkaCommitter {
            consumer: Arc::clone(&self.consumer),
            topics: Arc::clone(&self.topics),
        })
    }
}

impl Drop for KafkaFeed {
    /// Answers an open event, so that leaving the group does not wait for it.
    fn drop(&mut self) {
        self.closing.store(true, Ordering::Release);
        if self.unanswered || self.rebalances.try_recv().is_ok() {
            unassign(&self.consumer);
        }
    }
}

/// Headers of a record, borrowed from the client.
struct KafkaHeaders<'a>(Option<&'a BorrowedHeaders>);

impl HeaderList for KafkaHeaders<'_> {
    fn for_each(&self, each: &mut dyn FnMut(&str, Option<&[u8]>)) {
        for header in self.0.into_iter().flat_map(BorrowedHeaders::iter) {
            each(header.key, header.value);
        }
    }
}
