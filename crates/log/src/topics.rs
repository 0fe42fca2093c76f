//! Making the topics of an installation.

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::error::RDKafkaErrorCode;

use super::{ASK, Kafka, KafkaError, Quiet};

/// What became of one topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TopicOutcome {
    /// It was made.
    Created,
    /// It was there already, with so many partitions.
    Existed {
        /// How many it has.
        partitions: i32,
    },
}

impl Kafka {
    /// Makes every topic that is not there yet, with the configured partitions, replication and retention.
    ///
    /// # Errors
    /// Where the cluster does not answer, or refuses.
    pub async fn create_topics(&self) -> Result<Vec<(String, TopicOutcome)>, KafkaError> {
        let config = self.config();
        let client: AdminClient<Quiet> = self
            .client_config()
            .create_with_context(Quiet)
            .map_err(KafkaError::client("cannot make an admin client"))?;
        let retention = (u64::from(config.retention_hours) * 3_600_000).to_string();
        let names = self.topics().all();
        let topics: Vec<NewTopic<'_>> = names
            .iter()
            .map(|name| {
                NewTopic::new(
                    name,
                    i32::from(config.partitions),
                    TopicReplication::Fixed(config.replication),
                )
                .set("retention.ms", &retention)
            })
            .collect();
        let options = AdminOptions::new()
            .operation_timeout(Some(ASK))
            .request_timeout(Some(ASK));
        let results = client
            .create_topics(&topics, &options)
            .await
            .map_err(KafkaError::client(format!(
                "cannot create topics at {}",
                self.brokers()
            )))?;
        let counts = self.partition_counts(&names)?;
        results
            .into_iter()
            .map(|result| match result {
                Ok(name) => Ok((name, TopicOutcome::Created)),
                Err((name, RDKafkaErrorCode::TopicAlreadyExists)) => {
                    let partitions = counts.get(&name).copied().unwrap_or_default();
                    Ok((name, TopicOutcome::Existed { partitions }))
                }
                Err((name, code)) => Err(KafkaError::Refused(format!(
                    "topic {name} was not created: {code}"
                ))),
            })
            .collect()
    }
}
