//! The log on Kafka. No type of the client library is visible outside this module.

mod admin;
mod callbacks;
mod committer;
mod feed;
mod producer;
mod reports;
mod settings;
mod statistics;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer as _};

use crate::backend::{Backend, CreateTopics, Metadata, RecordWriter, WriterOptions};
use crate::config::KafkaConfig;
use crate::consumer::feed::{Feed, FeedOptions};
use crate::error::LogError;
use crate::topics::TopicSpec;

use feed::KafkaFeed;
use reports::Quiet;
pub(crate) use settings::check_properties;

/// How long one request to the cluster may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// A cluster.
#[derive(Debug, Clone)]
pub(crate) struct KafkaBackend {
    config: Arc<KafkaConfig>,
    brokers: String,
}

impl KafkaBackend {
    pub(crate) fn new(config: Arc<KafkaConfig>, brokers: String) -> Self {
        Self { config, brokers }
    }

    /// Settings of a consumer, for a client that another program makes.
    pub(crate) fn consumer_properties(&self) -> Vec<(String, String)> {
        let client = settings::consumer_config(&self.config, &self.brokers);
        // `config_map` masks the values of secrets; `get` does not.
        let names = client.config_map().into_keys();
        names
            .filter_map(|name| Some((name.to_owned(), client.get(name)?.to_owned())))
            .collect()
    }
}

impl Backend for KafkaBackend {
    fn address(&self) -> String {
        self.brokers.clone()
    }

    fn feed(&self, options: FeedOptions) -> Result<Box<dyn Feed>, LogError> {
        let feed = KafkaFeed::new(&self.config, &self.brokers, options)?;
        Ok(Box::new(feed))
    }

    fn writer(&self, options: WriterOptions) -> Result<Arc<dyn RecordWriter>, LogError> {
        let writer = producer::KafkaWriter::new(&self.config, &self.brokers, options)?;
        Ok(Arc::new(writer))
    }

    fn metadata(&self) -> Result<Box<dyn Metadata>, LogError> {
        let client = settings::client_config(&self.config, &self.brokers)
            .create_with_context(Quiet)
            .map_err(LogError::client("cannot make a Kafka client"))?;
        Ok(Box::new(KafkaMetadata {
            client,
            brokers: self.brokers.clone(),
        }))
    }

    fn create_topics<'a>(&'a self, topics: &'a [TopicSpec]) -> CreateTopics<'a> {
        Box::pin(admin::create_topics(self, topics))
    }
}

struct KafkaMetadata {
    client: BaseConsumer<Quiet>,
    brokers: String,
}

impl std::fmt::Debug for KafkaMetadata {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KafkaMetadata")
            .field("brokers", &self.brokers)
            .finish_non_exhaustive()
    }
}

impl Metadata for KafkaMetadata {
    fn partition_counts(
        &self,
        topics: &[&str],
        timeout: Duration,
    ) -> Result<HashMap<String, i32>, LogError> {
        let mut counts = HashMap::new();
        for topic in topics {
            let metadata =
                self.client
                    .fetch_metadata(Some(topic), timeout)
                    .map_err(LogError::client(format!(
                        "no broker at {} answers",
                        self.brokers
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
