//! The topics of an installation and how they are created.
//!
//! All of them have `kafka.partitions` partitions and the same cleanup policy; the table in [`Log::topic_specs`] has the
//! retention of each. On OCI Streaming `deploy/terraform` creates the streams instead; the embedded log has its own retention.

use std::time::Duration;

use crate::Log;
use crate::config::Profile;
use crate::error::LogError;

/// How long a reply is kept: a caller waits for seconds, so anything older is of no use to anybody.
const REPLIES_RETENTION: Duration = Duration::from_secs(60 * 60);
/// The shortest retention that OCI Streaming has.
const OCI_MIN_RETENTION: Duration = Duration::from_secs(24 * 60 * 60);

/// A topic as it is created.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicSpec {
    /// Its name, with the prefix.
    pub name: String,
    /// Number of partitions.
    pub partitions: i32,
    /// How long records are kept.
    pub retention: Duration,
    /// What is deleted.
    pub cleanup: CleanupPolicy,
}

/// Which records of a topic are deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CleanupPolicy {
    /// Those older than the retention.
    Delete,
    /// Those with a newer record of the same key.
    Compact,
}

impl CleanupPolicy {
    /// The value of Kafka's topic setting `cleanup.policy`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Delete => "delete",
            Self::Compact => "compact",
        }
    }
}

/// What became of one topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TopicOutcome {
    /// It was created.
    Created,
    /// It existed already, with so many partitions.
    Existed {
        /// How many it has.
        partitions: i32,
    },
}

impl Log {
    /// Every topic of the installation, in the order of the flow, as `tollgate topics create` makes it.
    #[must_use]
    pub fn topic_specs(&self) -> Vec<TopicSpec> {
        let config = self.config();
        let retention = Duration::from_secs(u64::from(config.retention_hours) * 60 * 60);
        let shortest = match config.profile() {
            Profile::OciStreaming => OCI_MIN_RETENTION,
            Profile::Kafka | Profile::Embedded => REPLIES_RETENTION,
        };
        let topics = self.topics();
        let retentions = [
            (&topics.transactions, retention),
            (&topics.decisions, retention),
            (&topics.alerts, retention),
            (&topics.replies, shortest.min(retention)),
            (&topics.imports, retention),
            (&topics.transactions_dlq, retention),
            (&topics.decisions_dlq, retention),
            (&topics.alerts_dlq, retention),
        ];
        let spec = |(name, retention): (&String, Duration)| TopicSpec {
            name: name.clone(),
            partitions: i32::from(config.partitions),
            retention,
            // Imports too: an open import is its request and its progress, which are records of the same key, and
            // compaction would keep the progress alone.
            cleanup: CleanupPolicy::Delete,
        };
        retentions.map(spec).into()
    }

    /// Creates every topic that does not exist yet. One that exists keeps its settings.
    ///
    /// # Errors
    /// Where the cluster does not answer, or refuses.
    pub async fn create_topics(&self) -> Result<Vec<(String, TopicOutcome)>, LogError> {
        self.backend().create_topics(&self.topic_specs()).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::KafkaConfig;

    #[test]
    fn replies_are_kept_for_an_hour_and_everything_else_for_the_configured_time() {
        let log = Log::open(KafkaConfig {
            brokers: "127.0.0.1:9".to_owned(),
            retention_hours: 100,
            ..KafkaConfig::default()
        })
        .unwrap();
        let specs = log.topic_specs();
        let names: Vec<&str> = specs.iter().map(|spec| spec.name.as_str()).collect();
        assert_eq!(names, log.topics().all(), "every topic has a retention");
        for spec in specs {
            let hours = spec.retention.as_secs() / 3600;
            let expected = if spec.name == "replies" { 1 } else { 100 };
            assert_eq!(
                (hours, spec.cleanup),
                (expected, CleanupPolicy::Delete),
                "{spec:?}"
            );
        }
    }
}
