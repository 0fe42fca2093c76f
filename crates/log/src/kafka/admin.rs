//! Creating topics on a cluster.

use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::error::RDKafkaErrorCode;

use super::reports::Quiet;
use super::{KafkaBackend, REQUEST_TIMEOUT, settings};
use crate::backend::Backend as _;
use crate::config::Profile;
use crate::error::LogError;
use crate::topics::{TopicOutcome, TopicSpec};

/// Kafka deletes whole segments only, and closes one after 7 days: a topic that is kept for less needs shorter ones.
const SHORT_RETENTION: Duration = Duration::from_secs(24 * 60 * 60);

/// Creates every topic that does not exist.
pub(super) async fn create_topics(
    backend: &KafkaBackend,
    topics: &[TopicSpec],
) -> Result<Vec<(String, TopicOutcome)>, LogError> {
    let config = &backend.config;
    let client: AdminClient<Quiet> = settings::client_config(config, &backend.brokers)
        .create_with_context(Quiet)
        .map_err(LogError::client("cannot make an admin client"))?;
    let retentions: Vec<String> = topics
        .iter()
        .map(|topic| topic.retention.as_millis().to_string())
        .collect();
    let new: Vec<NewTopic<'_>> = topics
        .iter()
        .zip(&retentions)
        .map(|(topic, retention)| {
            let new = NewTopic::new(
                &topic.name,
                topic.partitions,
                TopicReplication::Fixed(config.replication),
            )
            .set("retention.ms", retention);
            // OCI Streaming has no other settings.
            if config.profile() == Profile::OciStreaming {
                return new;
            }
            let new = new.set("cleanup.policy", topic.cleanup.name());
            if topic.retention < SHORT_RETENTION {
                new.set("segment.ms", retention)
            } else {
                new
            }
        })
        .collect();
    let options = AdminOptions::new()
        .operation_timeout(Some(REQUEST_TIMEOUT))
        .request_timeout(Some(REQUEST_TIMEOUT));
    let results = client
        .create_topics(&new, &options)
        .await
        .map_err(LogError::client(format!(
            "cannot create topics at {}",
            backend.brokers
        )))?;
    let names: Vec<&str> = topics.iter().map(|topic| topic.name.as_str()).collect();
    let counts = backend
        .metadata()?
        .partition_counts(&names, REQUEST_TIMEOUT)?;
    results
        .into_iter()
        .map(|result| match result {
            Ok(name) => Ok((name, TopicOutcome::Created)),
            Err((name, RDKafkaErrorCode::TopicAlreadyExists)) => {
                let partitions = counts.get(&name).copied().unwrap_or_default();
                Ok((name, TopicOutcome::Existed { partitions }))
            }
            Err((name, code)) => Err(LogError::Refused(format!(
                "topic {name} was not created: {code}"
            ))),
        })
        .collect()
}
