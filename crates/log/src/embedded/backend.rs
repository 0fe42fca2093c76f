//! The embedded log as an implementation of [`Backend`], like Kafka.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tollgate_types::headers::TRACEPARENT;
use tollgate_types::{Partitioner, Stage, Topics, TraceContext};

use super::feed::EmbeddedFeed;
use super::topic::Retention;
use super::{AppendError, EmbeddedLog, NewRecord, TopicSettings};
use crate::acks::Acks;
use crate::backend::{Backend, CreateTopics, Metadata, RecordWriter, WriterOptions};
use crate::config::KafkaConfig;
use crate::consumer::feed::{Feed, FeedOptions};
use crate::error::LogError;
use crate::producer::{ProducerRecord, SendError};
use crate::topics::{TopicOutcome, TopicSpec};

/// Opens the log that the settings describe.
///
/// # Errors
/// Where its journal cannot be opened.
pub(crate) fn open(config: &KafkaConfig, topics: &Topics) -> anyhow::Result<EmbeddedLog> {
    let settings: Vec<TopicSettings> = topics
        .all()
        .into_iter()
        .map(|name| TopicSettings {
            name: name.to_owned(),
            retention: retention(config, topics, name),
        })
        .collect();
    let journal = (!config.journal.is_empty()).then(|| Path::new(&config.journal));
    EmbeddedLog::open(&settings, config.partitions, journal)
}

fn retention(config: &KafkaConfig, topics: &Topics, name: &str) -> Retention {
    let kept = Duration::from_secs(u64::from(config.retention_hours) * 3_600);
    let stage = Stage::ALL
        .into_iter()
        .find(|stage| topics.input_of(*stage) == name);
    match stage {
        Some(stage) => Retention::UntilCommitted {
            group: config.group(stage),
            // Histories are rebuilt from transactions. Decisions and alerts are read once.
            then: match stage {
                Stage::Scorer => kept,
                Stage::Persistence | Stage::Notifier => Duration::ZERO,
            },
        },
        None if name == topics.replies => Retention::Newest,
        None => Retention::For(kept),
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct EmbeddedBackend {
    log: EmbeddedLog,
    partitioner: Partitioner,
}

impl EmbeddedBackend {
    pub(crate) const fn new(log: EmbeddedLog, partitioner: Partitioner) -> Self {
        Self { log, partitioner }
    }
}

impl Backend for EmbeddedBackend {
    fn address(&self) -> String {
        "the embedded log".to_owned()
    }

    fn feed(&self, options: FeedOptions) -> Result<Box<dyn Feed>, LogError> {
        Ok(Box::new(EmbeddedFeed::new(self.log.clone(), options)))
    }

    fn writer(&self, _options: WriterOptions) -> Result<Arc<dyn RecordWriter>, LogError> {
        Ok(Arc::new(EmbeddedWriter {
            log: self.log.clone(),
            partitioner: self.partitioner,
            without_key: AtomicU32::new(0),
        }))
    }

    fn metadata(&self) -> Result<Box<dyn Metadata>, LogError> {
        Ok(Box::new(EmbeddedMetadata(self.log.clone())))
    }

    fn create_topics<'a>(&'a self, topics: &'a [TopicSpec]) -> CreateTopics<'a> {
        let partitions = i32::from(self.log.partitions());
        let outcome = |topic: &TopicSpec| match self.log.topic(&topic.name) {
            Some(_) => Ok((topic.name.clone(), TopicOutcome::Existed { partitions })),
            None => Err(LogError::NoTopic(topic.name.clone())),
        };
        let outcomes = topics.iter().map(outcome).collect();
        Box::pin(std::future::ready(outcomes))
    }
}

#[derive(Debug)]
struct EmbeddedMetadata(EmbeddedLog);

impl Metadata for EmbeddedMetadata {
    fn partition_counts(
        &self,
        topics: &[&str],
        _timeout: Duration,
    ) -> Result<HashMap<String, i32>, LogError> {
        if let Some(failure) = self.0.failure() {
            return Err(LogError::client("the journal cannot be written")(failure));
        }
        let partitions = i32::from(self.0.partitions());
        let known = topics.iter().filter(|topic| self.0.topic(topic).is_some());
        Ok(known
            .map(|topic| ((*topic).to_owned(), partitions))
            .collect())
    }
}

/// Appends on the caller's thread, or hands over to the journal's.
///
/// A record never fails by a timeout: it waits as long as the journal cannot be written, and writers get
/// [`SendError::Full`] when too many wait.
#[derive(Debug)]
struct EmbeddedWriter {
    log: EmbeddedLog,
    partitioner: Partitioner,
    /// The partition of the next record without a key.
    without_key: AtomicU32,
}

impl EmbeddedWriter {
    fn partition(&self, key: Option<&[u8]>) -> i32 {
        let partitions = self.log.partitions();
        match key {
            Some(key) => self.partitioner.partition(key, i32::from(partitions)),
            None => {
                let next = self.without_key.fetch_add(1, Ordering::Relaxed);
                i32::try_from(next % u32::from(partitions)).unwrap_or_default()
            }
        }
    }
}

impl RecordWriter for EmbeddedWriter {
    fn write(
        &self,
        record: &ProducerRecord<'_>,
        trace: Option<TraceContext>,
        acks: &Arc<Acks>,
    ) -> Result<(), SendError> {
        let partition = record
            .partition
            .unwrap_or_else(|| self.partition(record.key));
        let traceparent = trace.map(TraceContext::to_traceparent);
        let with_trace: Vec<(&str, Option<&[u8]>)>;
        let headers = match &traceparent {
            None => record.headers,
            Some(traceparent) => {
                let last = (TRACEPARENT, Some(traceparent.as_slice()));
                with_trace = record.headers.iter().copied().chain([last]).collect();
                &with_trace
            }
        };
        let new = NewRecord {
            timestamp_ms: record.timestamp_ms,
            key: record.key,
            payload: record.payload,
            headers,
        };
        self.log
            .append(record.topic, partition, &new, record.urgent, acks)
            .map_err(|error| match error {
                AppendError::Full => SendError::Full,
                AppendError::TooLarge => SendError::TooLarge,
                AppendError::NoPartition(..) => SendError::Failed(error.to_string()),
            })
    }

    fn flush(&self, timeout: Duration) -> Result<(), LogError> {
        if self.log.flush(timeout) {
            return Ok(());
        }
        let reason = self.log.failure().unwrap_or_else(|| "timed out".to_owned());
        Err(LogError::client("not everything was acknowledged")(reason))
    }
}
