//! The embedded log: librdkafka's mock cluster, the real protocol inside this process.
//!
//! It keeps each partition in memory and drops the oldest beyond 5 MiB or 100,000 records without a word. So nothing
//! is written to a partition before its reader is near enough: what is unread stays within [`MAX_BYTES`] and
//! [`MAX_RECORDS`], and writers wait. Foreign writers are not held back; the log is for trying out, not for data that
//! must last.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, Producer as _};
use tollgate_types::{Partitioner, Topics};

use super::SendError;

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
