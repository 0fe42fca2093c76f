//! The embedded log: librdkafka's mock cluster, the real protocol inside this process.
//!
//! It keeps each partition in memory and drops the oldest beyond 5 MiB or 100,000 records without a word. So nothing
//! is written to a partition before its reader is near enough: what is unread stays within [`MAX_BYTES`] and
//! [`MAX_RECORDS`], and writers wait. Foreign writers are not held back; the log is for trying out, not for data that
//! must last.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use std::sync::Arc;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, Producer as _};
use tollgate_types::headers::TRACEPARENT;
use tollgate_types::{Partitioner, TRACEPARENT_BYTES, Topics, TraceContext};

use crate::acks::Acks;
use crate::backend::{Backend, CreateTopics, Metadata, RecordWriter, WriterOptions};
use crate::config::KafkaConfig;
use crate::consumer::feed::{
    CommitOffset, CommittedOffset, Feed, FeedEvent, FeedOptions, Membership, OffsetCommitter,
    Polled, StartOffset,
};
use crate::error::LogError;
use crate::kafka::{KafkaBackend, KafkaFeed};
use crate::producer::{ProducerRecord, SendError};
use crate::record::{RawRecord, TopicPartition};
use crate::topics::TopicSpec;

/// Unread bytes a partition, well below the mock cluster's 5 MiB.
const MAX_BYTES: usize = 3 * 1024 * 1024;
/// Unread records a partition, well below the mock cluster's 100,000.
const MAX_RECORDS: usize = 50_000;
/// What the log itself adds to a record, at most: batch and record headers.
const OVERHEAD: usize = 128;

#[derive(Debug, Default, Clone, Copy)]
struct Unread {
    bytes: usize,
    records: usize,
}

/// A log inside this process, and how much of it is unread.
pub struct EmbeddedLog {
    /// The client that owns the mock cluster; it writes nothing itself.
    _owner: BaseProducer,
    brokers: String,
    partitions: i32,
    unread: HashMap<String, Mutex<Vec<Unread>>>,
}

impl std::fmt::Debug for EmbeddedLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EmbeddedLog")
            .field("brokers", &self.brokers)
            .finish_non_exhaustive()
    }
}

impl EmbeddedLog {
    pub(crate) fn start(topics: &Topics, partitions: u16) -> anyhow::Result<Self> {
        let owner: BaseProducer = ClientConfig::new()
            .set("test.mock.num.brokers", "1")
            .create()?;
        let cluster = owner.client().mock_cluster().ok_or_else(|| {
            anyhow::anyhow!("the client library was built without its mock cluster")
        })?;
        let mut unread = HashMap::new();
        for topic in topics.all() {
            cluster.create_topic(topic, i32::from(partitions), 1)?;
            unread.insert(
                topic.to_owned(),
                Mutex::new(vec![Unread::default(); usize::from(partitions)]),
            );
        }
        let brokers = cluster.bootstrap_servers();
        drop(cluster);
        Ok(Self {
            _owner: owner,
            brokers,
            partitions: i32::from(partitions),
            unread,
        })
    }

    /// Where it listens: `127.0.0.1:port`.
    #[must_use]
    pub fn brokers(&self) -> &str {
        &self.brokers
    }

    /// Unread bytes of a topic, all partitions together.
    #[must_use]
    pub fn unread_bytes(&self, topic: &str) -> usize {
        self.with(topic, |partitions| {
            partitions.iter().map(|unread| unread.bytes).sum()
        })
        .unwrap_or_default()
    }

    /// Chooses the record's partition and takes room in it.
    pub(crate) fn reserve(
        &self,
        topic: &str,
        partition: Option<i32>,
        key: Option<&[u8]>,
        size: usize,
        urgent: bool,
    ) -> Result<i32, SendError> {
        let chosen = partition.unwrap_or_else(|| {
            Partitioner::Murmur2.partition(key.unwrap_or_default(), self.partitions)
        });
        let taken = self.with(topic, |partitions| {
            let unread = usize::try_from(chosen)
                .ok()
                .and_then(|index| partitions.get_mut(index))?;
            let cost = size + OVERHEAD;
            let fits = unread.bytes + cost <= MAX_BYTES && unread.records < MAX_RECORDS;
            // A record larger than the room of a whole partition goes alone.
            if !(fits || urgent || unread.records == 0) {
                return Some(false);
            }
            unread.bytes += cost;
            unread.records += 1;
            Some(true)
        });
        match taken.flatten() {
            Some(true) => Ok(chosen),
            Some(false) => Err(SendError::Full),
            None => Err(SendError::Failed(format!(
                "topic {topic} has no partition {chosen}"
            ))),
        }
    }

    /// A record was read, or not written after all: its room is free again.
    pub fn release(&self, topic: &str, partition: i32, size: usize) {
        self.with(topic, |partitions| {
            if let Some(unread) = usize::try_from(partition)
                .ok()
                .and_then(|index| partitions.get_mut(index))
            {
                // Records of foreign writers were never reserved.
                unread.bytes = unread.bytes.saturating_sub(size + OVERHEAD);
                unread.records = unread.records.saturating_sub(1);
            }
        });
    }

    fn with<T>(&self, topic: &str, change: impl FnOnce(&mut Vec<Unread>) -> T) -> Option<T> {
        let partitions = self.unread.get(topic)?;
        Some(change(
            &mut partitions.lock().unwrap_or_else(PoisonError::into_inner),
        ))
    }
}

/// The embedded log behind the same seam as Kafka.
#[derive(Debug)]
pub(crate) struct EmbeddedBackend {
    config: Arc<KafkaConfig>,
    log: Arc<EmbeddedLog>,
    cluster: KafkaBackend,
}

impl EmbeddedBackend {
    pub(crate) fn new(config: Arc<KafkaConfig>, log: Arc<EmbeddedLog>) -> Self {
        let cluster = KafkaBackend::new(Arc::clone(&config), log.brokers().to_owned());
        Self {
            config,
            log,
            cluster,
        }
    }
}

impl Backend for EmbeddedBackend {
    fn address(&self) -> String {
        self.log.brokers().to_owned()
    }

    fn feed(&self, options: FeedOptions) -> Result<Box<dyn Feed>, LogError> {
        // The mock cluster takes seconds for a rebalance, and there is nobody to share with.
        let options = FeedOptions {
            membership: Membership::Outside,
            ..options
        };
        let topics = options.topics.clone();
        // It does not wake a fetch that waits.
        let defaults = [("fetch.wait.max.ms", "5")];
        let client = KafkaFeed::new(&self.config, self.log.brokers(), options, &defaults)?;
        Ok(Box::new(EmbeddedFeed {
            client,
            topics,
            log: Arc::clone(&self.log),
            subscribed: false,
        }))
    }

    fn writer(&self, options: WriterOptions) -> Result<Arc<dyn RecordWriter>, LogError> {
        Ok(Arc::new(EmbeddedWriter {
            client: self.cluster.writer(options)?,
            log: Arc::clone(&self.log),
        }))
    }

    fn metadata(&self) -> Result<Box<dyn Metadata>, LogError> {
        self.cluster.metadata()
    }

    fn create_topics<'a>(&'a self, topics: &'a [TopicSpec]) -> CreateTopics<'a> {
        self.cluster.create_topics(topics)
    }
}

/// A client of the mock cluster that holds room until its record is read.
#[derive(Debug)]
struct EmbeddedWriter {
    client: Arc<dyn RecordWriter>,
    log: Arc<EmbeddedLog>,
}

impl RecordWriter for EmbeddedWriter {
    fn write(
        &self,
        record: &ProducerRecord<'_>,
        trace: Option<TraceContext>,
        acks: &Arc<Acks>,
    ) -> Result<(), SendError> {
        let headers: usize = record
            .headers
            .iter()
            .map(|(name, value)| name.len() + value.map_or(0, <[u8]>::len))
            .sum();
        let trace_bytes = trace.map_or(0, |_| TRACEPARENT.len() + TRACEPARENT_BYTES);
        let size = record.key.map_or(0, <[u8]>::len) + record.payload.len() + headers + trace_bytes;
        let partition = self.log.reserve(
            record.topic,
            record.partition,
            record.key,
            size,
            record.urgent,
        )?;
        let record = ProducerRecord {
            partition: Some(partition),
            ..*record
        };
        self.client
            .write(&record, trace, acks)
            .inspect_err(|_| self.log.release(record.topic, partition, size))
    }

    fn flush(&self, timeout: Duration) -> Result<(), LogError> {
        self.client.flush(timeout)
    }
}

/// A client of the mock cluster that gets every partition at once, and gives room back.
struct EmbeddedFeed {
    client: KafkaFeed,
    topics: Vec<String>,
    log: Arc<EmbeddedLog>,
    subscribed: bool,
}

impl Feed for EmbeddedFeed {
    fn subscribe(&mut self) -> Result<(), LogError> {
        self.subscribed = true;
        Ok(())
    }

    fn poll(&mut self, timeout: Duration, take: &mut dyn FnMut(Polled<'_>)) {
        if std::mem::take(&mut self.subscribed) {
            let all = (0..self.topics.len()).flat_map(|topic| {
                (0..self.log.partitions).map(move |partition| TopicPartition::new(topic, partition))
            });
            return take(Polled::Event(FeedEvent::Assigned(all.collect())));
        }
        let Self {
            client,
            topics,
            log,
            ..
        } = self;
        client.poll(timeout, &mut |polled| {
            let read = match &polled {
                Polled::Record(record) => Some((record.at, size_of(record))),
                _ => None,
            };
            take(polled);
            if let Some((at, size)) = read
                && let Some(topic) = topics.get(at.topic)
            {
                log.release(topic, at.partition, size);
            }
        });
    }

    fn assign(&mut self, starts: &[(TopicPartition, StartOffset)]) -> Result<(), LogError> {
        self.client.assign(starts)
    }

    fn unassign(&mut self) -> Result<(), LogError> {
        self.client.unassign()
    }

    fn pause(&mut self) -> Result<(), LogError> {
        self.client.pause()
    }

    fn resume(&mut self) -> Result<(), LogError> {
        self.client.resume()
    }

    fn partition_count(&mut self, topic: usize) -> Result<i32, LogError> {
        self.client.partition_count(topic)
    }

    fn committed(
        &mut self,
        partitions: &[TopicPartition],
    ) -> Result<Vec<CommittedOffset>, LogError> {
        let none = |partition: &TopicPartition| CommittedOffset {
            partition: *partition,
            offset: None,
            note: String::new(),
        };
        Ok(partitions.iter().map(none).collect())
    }

    fn watermarks(&mut self, partition: TopicPartition) -> Result<(i64, i64), LogError> {
        self.client.watermarks(partition)
    }

    fn offsets_for_time(
        &mut self,
        partitions: &[TopicPartition],
        _since_ms: i64,
    ) -> Result<Vec<Option<i64>>, LogError> {
        // Nothing was committed that could be looked back from.
        Ok(vec![None; partitions.len()])
    }

    fn committer(&self) -> Box<dyn OffsetCommitter> {
        Box::new(NoCommits)
    }
}

/// The mock cluster has no groups: its log ends with the process, and so does what was read of it.
struct NoCommits;

impl OffsetCommitter for NoCommits {
    fn commit(&mut self, _offsets: &[CommitOffset]) -> Result<(), LogError> {
        Ok(())
    }
}

/// Bytes of a record as its writer counted them.
fn size_of(record: &RawRecord<'_>) -> usize {
    let mut headers = 0;
    record.headers.for_each(&mut |name, value| {
        headers += name.len() + value.map_or(0, <[u8]>::len);
    });
    record.key.map_or(0, <[u8]>::len) + record.payload.len() + headers
}
