//! The log, seen from a service: consume batches, produce with acknowledgement, give records up.
//!
//! Invariant: an offset is committed only when everything that its record caused is acknowledged, and so is
//! everything before it. See `ledger`, the one place that decides what may be committed.

mod assignment;
mod batch;
mod config;
mod consumer;
mod dead_letter;
mod embedded;
mod histories;
mod ledger;
mod producer;
mod reader;
pub mod reports;
mod restore;
mod shared;
pub mod spans;
mod statistics;
mod topics;
mod tracker;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use tollgate_types::{Partitioner, Topics};

use tollgate_service::Shutdown;
use tollgate_service::health::Health;

pub use batch::{Batch, Headers, Record};
pub use config::{KafkaConfig, OciStreamingConfig, Profile};
pub use consumer::{
    Assignment, Batching, ConsumerHandle, ConsumerOptions, Distribution, Event, StartingPosition,
    WorkerQueue,
};
pub use dead_letter::{DeadLetter, Origin, RejectedRow};
pub use embedded::EmbeddedLog;
pub use histories::{BarrierInterval, Histories, Position, SnapshotRequirements};
pub use producer::{Acks, DeliveryFailure, Producer, ProducerRecord, SendError};
pub use reader::{LogRecord, TopicReader};
pub use reports::Quiet;
pub use spans::Reads;
pub use topics::TopicOutcome;

/// How long one question to the cluster may take.
const ASK: Duration = Duration::from_secs(10);

/// A failure of the log that no retry in here mends.
#[derive(Debug, thiserror::Error)]
pub enum KafkaError {
    /// The client library says so.
    #[error("{what}: {source}")]
    Client {
        /// What was being done.
        what: String,
        /// The library's error.
        #[source]
        source: rdkafka::error::KafkaError,
    },
    /// The state of the cluster or of the group forbids to go on; the text says what to do.
    #[error("{0}")]
    Refused(String),
}

impl KafkaError {
    pub(crate) fn client(
        what: impl Into<String>,
    ) -> impl FnOnce(rdkafka::error::KafkaError) -> Self {
        let what = what.into();
        move |source| Self::Client { what, source }
    }
}

/// A connection to the log as it is configured. Clones share the embedded log, if there is one.
#[derive(Debug, Clone)]
pub struct Kafka {
    config: Arc<KafkaConfig>,
    topics: Arc<Topics>,
    embedded: Option<Arc<EmbeddedLog>>,
}

impl Kafka {
    /// Checks the settings, and starts the embedded log where they ask for it.
    ///
    /// # Errors
    /// Names the setting at fault.
    pub fn open(config: KafkaConfig) -> anyhow::Result<Self> {
        config.validate()?;
        let topics = Topics::with_prefix(&config.topic_prefix);
        let embedded = match config.profile() {
            Profile::Embedded => Some(Arc::new(EmbeddedLog::start(&topics, config.partitions)?)),
            Profile::Kafka | Profile::OciStreaming => None,
        };
        Ok(Self {
            config: Arc::new(config),
            topics: Arc::new(topics),
            embedded,
        })
    }

    /// For a service that is a process of its own: the embedded log lives in one process only.
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
    pub fn embedded(&self) -> Option<&Arc<EmbeddedLog>> {
        self.embedded.as_ref()
    }

    /// Addresses at which the log is reached.
    #[must_use]
    pub fn brokers(&self) -> String {
        self.embedded.as_ref().map_or_else(
            || self.config.brokers.clone(),
            |log| log.brokers().to_owned(),
        )
    }

    /// The consumer group of a stage; the prefix of the topics keeps installations apart here too.
    #[must_use]
    pub fn group(&self, stage: tollgate_types::Stage) -> String {
        format!("{}tollgate-{stage}", self.config.topic_prefix)
    }

    /// Waits until all these topics exist, and says in `health` which one does not. False: the shutdown came first.
    pub async fn wait_for_topics(
        &self,
        topics: &[&str],
        health: &Health,
        shutdown: &Shutdown,
    ) -> bool {
        let wanted: Vec<String> = topics.iter().map(|topic| (*topic).to_owned()).collect();
        while !shutdown.is_begun() {
            let (kafka, asked) = (self.clone(), wanted.clone());
            let counts = tokio::task::spawn_blocking(move || {
                kafka.partition_counts(&asked.iter().map(String::as_str).collect::<Vec<_>>())
            });
            let missing = match counts.await {
                Ok(Ok(counts)) => wanted
                    .iter()
                    .find(|topic| !counts.contains_key(*topic))
                    .map(|topic| {
                        format!("topic {topic} does not exist; `tollgate topics create` makes it")
                    }),
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

    /// The settings that every client of this log shares, for one that reads in its own way.
    #[must_use]
    pub fn client_config(&self) -> ClientConfig {
        self.config.client_config(&self.brokers())
    }

    /// As [`Kafka::client_config`], for a client that consumes.
    #[must_use]
    pub fn consumer_config(&self) -> ClientConfig {
        self.config.consumer_config(&self.brokers())
    }

    /// Number of partitions of each given topic; a topic that does not exist is left out.
    ///
    /// # Errors
    /// Where no broker answers.
    pub fn partition_counts(&self, topics: &[&str]) -> Result<HashMap<String, i32>, KafkaError> {
        let client: BaseConsumer<Quiet> = self
            .client_config()
            .create_with_context(Quiet)
            .map_err(KafkaError::client("cannot make a Kafka client"))?;
        let mut counts = HashMap::new();
        for topic in topics {
            let metadata = client
                .fetch_metadata(Some(topic), ASK)
                .map_err(KafkaError::client(format!(
                    "no broker at {} answers",
                    self.brokers()
                )))?;
            for found in metadata
                .topics()
                .iter()
                .filter(|found| found.error().is_none() && !found.partitions().is_empty())
            {
                counts.insert(
                    found.name().to_owned(),
                    i32::try_from(found.partitions().len()).unwrap_or(i32::MAX),
                );
            }
        }
        Ok(counts)
    }
}
