//! Reading and writing the log: consume batches, produce with acknowledgement, dead-letter records, read topics.
//!
//! Invariant: an offset is committed only when everything that its record caused is acknowledged, and so is
//! everything before it. See `ledger`, the one place that decides what may be committed.

mod acks;
mod acls;
mod authentication;
mod backend;
mod batch;
mod config;
mod consumer;
mod dead_letter;
mod embedded;
mod error;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod histories;
mod in_flight;
mod kafka;
mod ledger;
mod producer;
mod reader;
mod record;
pub mod spans;
mod topics;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tollgate_service::Shutdown;
use tollgate_service::health::Health;
use tollgate_types::{Partitioner, Stage, Topics};

use authentication::Authenticator;
use backend::{Backend, Metadata};

pub use acks::{Acks, DeliveryFailure};
pub use acls::{Grant, Operation};
pub use authentication::{
    AuthenticationConfig, AuthenticationMode, MacKey, Provenance, Unauthenticated,
};
pub use batch::{Batch, Headers};
pub use config::{KafkaConfig, OciStreamingConfig, Profile, RECORD_OVERHEAD};
pub use consumer::{
    Assignment, Batching, ConsumerHandle, ConsumerOptions, Distribution, Event, SNAPSHOT_GRACE,
    StartingPosition, WorkerQueue,
};
pub use dead_letter::{Claims, DeadLetter, Origin, RejectedRow};
pub use embedded::EmbeddedLog;
pub use error::LogError;
pub use histories::{BarrierInterval, Histories, Position, SnapshotRequirements};
pub use producer::{Producer, ProducerRecord, SendError};
pub use reader::{ReaderEvent, TopicReader};
pub use record::{HeaderList, LogRecord, RawRecord, Record, TopicPartition};
pub use spans::Reads;
pub use topics::{CleanupPolicy, TopicOutcome, TopicSpec};

/// How long a look for topics may take.
const LOOK_UP_TIMEOUT: Duration = Duration::from_secs(10);

/// A connection to the log as it is configured. Clones share it.
#[derive(Debug, Clone)]
pub struct Log {
    config: Arc<KafkaConfig>,
    topics: Arc<Topics>,
    backend: Arc<dyn Backend>,
    embedded: Option<EmbeddedLog>,
    authenticator: Option<Arc<Authenticator>>,
}

impl Log {
    /// Checks the settings, and opens the embedded log where they select it.
    ///
    /// # Errors
    /// Names the setting at fault, or the journal that cannot be opened.
    pub fn open(config: KafkaConfig) -> anyhow::Result<Self> {
        config.validate()?;
        let topics = Topics::with_prefix(&config.topic_prefix);
        let authenticator = Authenticator::new(&config.authentication).map(Arc::new);
        let config = Arc::new(config);
        let (backend, embedded): (Arc<dyn Backend>, _) = match config.profile() {
            Profile::Embedded => {
                let log = embedded::open(&config, &topics)?;
                let backend = embedded::EmbeddedBackend::new(log.clone(), config.partitioner);
                (Arc::new(backend), Some(log))
            }
            Profile::Kafka | Profile::OciStreaming => {
                let brokers = config.brokers.clone();
                let backend = kafka::KafkaBackend::new(Arc::clone(&config), brokers);
                (Arc::new(backend), None)
            }
        };
        Ok(Self {
            config,
            topics: Arc::new(topics),
            backend,
            embedded,
            authenticator,
        })
    }

    /// For a service that is a process of its own: its settings must name a cluster, and the keys by which services
    /// authenticate what they write to each other.
    ///
    /// # Errors
    /// Names the setting at fault.
    pub fn open_for_service(config: KafkaConfig) -> anyhow::Result<Self> {
        config.validate_for_service()?;
        Self::open_cluster(config)
    }

    /// For a command that is a process of its own: the embedded log lives in one process only.
    ///
    /// # Errors
    /// Where the settings name no cluster.
    pub fn open_cluster(config: KafkaConfig) -> anyhow::Result<Self> {
        if config.profile() == Profile::Embedded {
            anyhow::bail!(
                "kafka.brokers is not set, and the embedded log lives inside one process. \
                 Set TOLLGATE_KAFKA__BROKERS=host:port,… or run everything in one process with `tollgate up`"
            );
        }
        Self::open(config)
    }

    pub(crate) fn backend(&self) -> &dyn Backend {
        &*self.backend
    }

    pub(crate) fn authenticator(&self) -> Option<&Arc<Authenticator>> {
        self.authenticator.as_ref()
    }

    /// Names of the topics.
    #[must_use]
    pub fn topics(&self) -> &Topics {
        &self.topics
    }

    /// How users are spread over partitions.
    #[must_use]
    pub fn partitioner(&self) -> Partitioner {
        self.config.partitioner
    }

    /// The settings.
    #[must_use]
    pub fn config(&self) -> &KafkaConfig {
        &self.config
    }

    /// The embedded log, in a process that has one.
    #[must_use]
    pub fn embedded(&self) -> Option<&EmbeddedLog> {
        self.embedded.as_ref()
    }

    /// Addresses at which the log is reached. The embedded log has none: it is named in words.
    #[must_use]
    pub fn brokers(&self) -> String {
        self.backend.address()
    }

    /// Settings of a Kafka client that reads this log, for one that is not this crate's.
    #[must_use]
    pub fn consumer_properties(&self) -> Vec<(String, String)> {
        kafka::KafkaBackend::new(Arc::clone(&self.config), self.brokers()).consumer_properties()
    }

    /// The consumer group of a stage. The prefix of the topics keeps the groups of installations apart too.
    #[must_use]
    pub fn group(&self, stage: Stage) -> String {
        self.config.group(stage)
    }

    /// A client that looks up topics, for repeated use.
    ///
    /// # Errors
    /// Where the client cannot be made of the settings.
    pub fn topic_lookup(&self) -> Result<TopicLookup, LogError> {
        self.backend.metadata().map(TopicLookup)
    }

    /// Number of partitions of each given topic; a topic that does not exist is left out.
    ///
    /// # Errors
    /// Where no broker answers.
    pub fn partition_counts(&self, topics: &[&str]) -> Result<HashMap<String, i32>, LogError> {
        self.topic_lookup()?
            .partition_counts(topics, LOOK_UP_TIMEOUT)
    }

    /// Waits until all these topics exist, and reports in `health` which one does not. False: the shutdown came first.
    pub async fn wait_for_topics(
        &self,
        topics: &[&str],
        health: &Health,
        shutdown: &Shutdown,
    ) -> bool {
        let wanted: Vec<String> = topics.iter().map(|topic| (*topic).to_owned()).collect();
        while !shutdown.is_begun() {
            let (log, names) = (self.clone(), wanted.clone());
            let counts = tokio::task::spawn_blocking(move || {
                log.partition_counts(&names.iter().map(String::as_str).collect::<Vec<_>>())
            });
            let missing = match counts.await {
                Ok(Ok(counts)) => wanted
                    .iter()
                    .find(|topic| !counts.contains_key(*topic))
                    .map(|topic| LogError::NoTopic(topic.clone()).to_string()),
                Ok(Err(error)) => Some(error.to_string()),
                Err(error) => Some(error.to_string()),
            };
            match missing {
                None => {
                    health.ready("topics");
                    return true;
                }
                Some(reason) => health.not_ready("topics", reason),
            }
            tokio::select! {
                () = tokio::time::sleep(Duration::from_millis(500)) => {}
                () = shutdown.begun() => {}
            }
        }
        false
    }
}

/// Looks up topics with one client.
#[derive(Debug)]
pub struct TopicLookup(Box<dyn Metadata>);

impl TopicLookup {
    /// Number of partitions of each given topic; a topic that does not exist is left out.
    ///
    /// # Errors
    /// Where no broker answers within the time.
    pub fn partition_counts(
        &self,
        topics: &[&str],
        timeout: Duration,
    ) -> Result<HashMap<String, i32>, LogError> {
        self.0.partition_counts(topics, timeout)
    }
}
