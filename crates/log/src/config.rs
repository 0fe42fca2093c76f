//! Section `kafka` of the configuration.

mod validate;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize, Serializer};
use tollgate_types::{Partitioner, Stage};

use crate::authentication::AuthenticationConfig;
use tollgate_service::config::ConfigError;
use tollgate_service::secret::Secret;

use crate::embedded::MAX_RECORD_BYTES as EMBEDDED_MAX_BYTES;

pub(crate) use validate::OCI_REQUEST_BYTES;

/// The most that key, headers, framing, and what the scorer says of a transaction add to it in a record, in bytes.
pub const RECORD_OVERHEAD: usize = 16 * 1024;
/// librdkafka's default limit of a record, in bytes; OCI Streaming's is larger.
const DEFAULT_MESSAGE_MAX_BYTES: usize = 1_000_000;

/// What kind of log it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Profile {
    /// Apache Kafka, or anything that speaks its protocol in full.
    Kafka,
    /// OCI Streaming: SASL_SSL, no idempotent producer, requests up to 1 MB, few reads a second.
    OciStreaming,
    /// In this process, with a journal or in memory only. Other processes cannot reach it.
    Embedded,
}

/// Section `kafka`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct KafkaConfig {
    /// Unset: `kafka` where brokers are given, else `embedded`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub profile: Option<Profile>,
    /// `host:port,…`
    pub brokers: String,
    /// File in which the embedded log keeps what it has acknowledged. Empty: in memory only, and lost with the process.
    /// `tollgate up` sets it to `tollgate-data/journal.db` where it is not set.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub journal: String,
    /// Put before the names of topics and consumer groups.
    pub topic_prefix: String,
    /// How users are spread over partitions; that of your producers.
    pub partitioner: Partitioner,
    /// Partitions of each topic that `tollgate topics create` makes, and of the embedded log.
    pub partitions: u16,
    /// Copies of each partition that `tollgate topics create` asks for; −1 is the broker's default.
    pub replication: i32,
    /// How long topics that `tollgate topics create` makes keep their records, in hours. A history is rebuilt from 11 days and an hour.
    pub retention_hours: u32,
    /// Longest wait for records to fill a request, in milliseconds.
    pub linger_ms: u32,
    /// How long a record may wait for its acknowledgement before the send counts as failed, in milliseconds.
    pub delivery_timeout_ms: u32,
    /// A consumer loop that takes no turn for this time, in seconds, makes its service not ready.
    pub stall_seconds: u32,
    /// `none`, `lz4`, `zstd` or `gzip`.
    pub compression: String,
    /// Any further librdkafka property.
    #[serde(serialize_with = "without_secrets")]
    pub properties: BTreeMap<String, String>,
    /// Credentials of OCI Streaming, from which its SASL user name is built.
    pub oci: OciStreamingConfig,
    /// Permits connections without TLS to brokers beyond this machine.
    pub allow_plaintext: bool,
    /// Keyed hashes over what services write to each other.
    pub authentication: AuthenticationConfig,
}

/// Section `kafka.oci`: SASL/PLAIN credentials of OCI Streaming.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OciStreamingConfig {
    /// Name of the tenancy.
    pub tenancy: String,
    /// Identity domain of the user, where there is one.
    pub domain: String,
    /// Name of the user.
    pub user: String,
    /// OCID of the stream pool.
    pub stream_pool: String,
    /// The user's auth token.
    pub auth_token: Secret,
}

impl Default for KafkaConfig {
    fn default() -> Self {
        Self {
            profile: None,
            brokers: String::new(),
            journal: String::new(),
            topic_prefix: String::new(),
            partitioner: Partitioner::Murmur2,
            partitions: 12,
            replication: -1,
            // The 7 days that scores look back, the hour that a transaction may be late, the 3 days by which it may be older than
            // its record and the day by which it may be ahead of it, and the rest of that day.
            retention_hours: 12 * 24,
            linger_ms: 5,
            delivery_timeout_ms: 30_000,
            // Long enough for one request to the log, far shorter than `max.poll.interval.ms`, after which the group expels
            // a member that does not poll.
            stall_seconds: 5,
            compression: "none".to_owned(),
            properties: BTreeMap::new(),
            oci: OciStreamingConfig::default(),
            allow_plaintext: false,
            authentication: AuthenticationConfig::default(),
        }
    }
}

impl KafkaConfig {
    /// The profile in force.
    #[must_use]
    pub fn profile(&self) -> Profile {
        let given = !self.brokers.is_empty();
        self.profile.unwrap_or(if given {
            Profile::Kafka
        } else {
            Profile::Embedded
        })
    }

    /// The consumer group of a stage. The prefix of the topics keeps the groups of installations apart too.
    pub(crate) fn group(&self, stage: Stage) -> String {
        format!("{}tollgate-{stage}", self.topic_prefix)
    }

    /// The largest record that the log takes, in bytes, with its key and its headers.
    #[must_use]
    pub fn max_record_bytes(&self) -> usize {
        let given = ["message.max.bytes", "max.request.size"]
            .iter()
            .find_map(|name| self.properties.get(*name)?.parse().ok());
        match self.profile() {
            Profile::Embedded => EMBEDDED_MAX_BYTES,
            Profile::Kafka | Profile::OciStreaming => given.unwrap_or(DEFAULT_MESSAGE_MAX_BYTES),
        }
    }

    /// Checks that records with a transaction of `bytes`, and with the decision on it, fit into the log. Otherwise every
    /// attempt to send them would fail.
    ///
    /// # Errors
    /// Names `setting`, which has the size, and how much it may be.
    pub fn check_transaction_bytes(&self, setting: &str, bytes: usize) -> Result<(), ConfigError> {
        let largest = self.max_record_bytes();
        if bytes.saturating_add(RECORD_OVERHEAD) <= largest {
            return Ok(());
        }
        Err(ConfigError::invalid(
            setting,
            format!(
                "must be at most {}, since a record of the log has at most {largest} bytes; \
                 kafka.properties.\"message.max.bytes\" raises the limit, if the brokers permit it",
                largest.saturating_sub(RECORD_OVERHEAD)
            ),
        ))
    }
}

/// Passwords, keys and tokens among the properties are not printed.
fn without_secrets<S: Serializer>(
    properties: &BTreeMap<String, String>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let secret = |name: &str| {
        [
            "password",
            "secret",
            "key.pem",
            "token",
            "oauthbearer.config",
            "oauthbearer.extensions",
            "assertion",
            "kinit",
            "jaas",
        ]
        .iter()
        .any(|word| name.contains(word))
    };
    serializer.collect_map(properties.iter().map(|(name, value)| {
        (
            name,
            if secret(name) {
                "(hidden)"
            } else {
                value.as_str()
            },
        )
    }))
}

#[cfg(test)]
pub(crate) mod tests;
