//! Section `kafka` of the configuration.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize, Serializer};
use tollgate_types::{Partitioner, Stage};

use crate::authentication::AuthenticationConfig;
use tollgate_service::config::ConfigError;
use tollgate_service::secret::Secret;

use crate::embedded::MAX_RECORD_BYTES as EMBEDDED_MAX_BYTES;

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
    /// How long topics that `tollgate topics create` makes keep their records, in hours. Scoring looks back 7 days.
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
            // The 7 days that scores look back, the hour that a transaction may be late, and the rest of that day.
            retention_hours: 8 * 24,
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

/// Properties that Tollgate's guarantees rest on, and why they are not to be set.
const RESERVED: &[(&str, &str)] = &[
    (
        "acks",
        "an answer means that every in-sync replica has the record",
    ),
    (
        "auto.offset.reset",
        "the starting position is a setting of the service",
    ),
    ("bootstrap.servers", "set kafka.brokers"),
    ("metadata.broker.list", "set kafka.brokers"),
    (
        "delivery.report.only.error",
        "offsets are committed on acknowledgements",
    ),
    (
        "enable.auto.commit",
        "offsets are committed after the effect, not by a timer",
    ),
    (
        "auto.commit.enable",
        "offsets are committed after the effect, not by a timer",
    ),
    (
        "enable.auto.offset.store",
        "offsets are committed after the effect",
    ),
    (
        "enable.partition.eof",
        "the rebuilding of histories ends on it",
    ),
    (
        "group.id",
        "each stage has its own group; set kafka.topic_prefix to keep installations apart",
    ),
    (
        "max.in.flight",
        "retries must not reorder a user's transactions",
    ),
    (
        "max.in.flight.requests.per.connection",
        "retries must not reorder a user's transactions",
    ),
    (
        "partition.assignment.strategy",
        "histories move with whole assignments",
    ),
    ("partitioner", "set kafka.partitioner"),
    (
        "request.required.acks",
        "an answer means that every in-sync replica has the record",
    ),
    (
        "transactional.id",
        "transactions are not used; OCI Streaming has none",
    ),
];

/// Largest request to OCI Streaming, in bytes, which says 1 MB and not which one.
pub(crate) const OCI_REQUEST_BYTES: u64 = 1_000_000;

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

    /// Checks what one setting means for another, and refuses properties that would break a promise.
    ///
    /// # Errors
    /// Names the setting at fault.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let invalid = |setting: &str, reason: &str| {
            Err(ConfigError::invalid(format!("kafka.{setting}"), reason))
        };
        match self.profile() {
            Profile::Embedded if !self.brokers.is_empty() => {
                return invalid(
                    "brokers",
                    "the profile `embedded` has its own broker; leave this out, or choose the profile `kafka`",
                );
            }
            Profile::Kafka | Profile::OciStreaming if self.brokers.is_empty() => {
                return invalid("brokers", "must be set to host:port,… for this profile");
            }
            Profile::Kafka | Profile::OciStreaming if !self.journal.is_empty() => {
                return invalid(
                    "journal",
                    "is for the embedded log; leave it out beside brokers",
                );
            }
            Profile::OciStreaming => self.validate_oci_streaming()?,
            Profile::Embedded | Profile::Kafka => {}
        }
        if !["none", "lz4", "zstd", "gzip", "snappy"].contains(&self.compression.as_str()) {
            return invalid("compression", "must be none, lz4, zstd, gzip or snappy");
        }
        if self.partitions == 0 {
            return invalid("partitions", "must be at least 1");
        }
        if self.stall_seconds == 0 {
            return invalid("stall_seconds", "must be at least 1");
        }
        for name in self.properties.keys() {
            if let Some((_, why)) = RESERVED.iter().find(|(reserved, _)| reserved == name) {
                return invalid(
                    &format!("properties.{name}"),
                    &format!("is not to be set: {why}"),
                );
            }
        }
        crate::kafka::check_properties(self)
            .map_err(|reason| ConfigError::invalid("kafka.properties", reason))?;
        self.authentication.validate()?;
        self.validate_encryption()
    }

    /// As [`KafkaConfig::validate`], for a service: what it writes to others, and reads from them, is authenticated.
    ///
    /// # Errors
    /// Names the setting at fault.
    pub fn validate_for_service(&self) -> Result<(), ConfigError> {
        self.validate()?;
        match self.profile() {
            // No other process can write to it.
            Profile::Embedded => Ok(()),
            Profile::Kafka | Profile::OciStreaming => self.authentication.require_keys(),
        }
    }

    /// Without TLS, everybody on the way reads transactions and passwords, and changes what the brokers answer.
    fn validate_encryption(&self) -> Result<(), ConfigError> {
        let protocol = self.properties.get("security.protocol");
        let encrypted = match protocol.map(|name| name.to_ascii_lowercase()) {
            Some(name) => matches!(name.as_str(), "ssl" | "sasl_ssl"),
            None => self.profile() == Profile::OciStreaming,
        };
        if encrypted || self.allow_plaintext || self.profile() == Profile::Embedded {
            return Ok(());
        }
        let is_remote = |broker: &&str| !is_loopback(host_of(broker));
        let Some(broker) = self.brokers.split(',').map(str::trim).find(is_remote) else {
            return Ok(());
        };
        Err(ConfigError::invalid(
            "kafka.allow_plaintext",
            format!(
                "the connection to {broker}, which is not on this machine, would not be encrypted: set \
                 kafka.properties.security.protocol to SSL or SASL_SSL, or, where the network in between is yours alone, \
                 kafka.allow_plaintext = true"
            ),
        ))
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

    /// What OCI Streaming needs, and what it does not know: <https://docs.oracle.com/iaas/Content/Streaming/Tasks/kafkacompatibility.htm>.
    fn validate_oci_streaming(&self) -> Result<(), ConfigError> {
        let invalid = |setting: &str, reason: &str| {
            Err(ConfigError::invalid(format!("kafka.{setting}"), reason))
        };
        let oci = &self.oci;
        let own_user = self.properties.contains_key("sasl.username");
        for (setting, missing) in [
            ("oci.tenancy", oci.tenancy.is_empty() && !own_user),
            ("oci.user", oci.user.is_empty() && !own_user),
            ("oci.stream_pool", oci.stream_pool.is_empty() && !own_user),
            (
                "oci.auth_token",
                oci.auth_token.is_empty() && !self.properties.contains_key("sasl.password"),
            ),
        ] {
            if missing {
                return invalid(setting, "must be set for the profile oci-streaming");
            }
        }
        let idempotence = self.properties.get("enable.idempotence");
        if idempotence.is_some_and(|value| value != "false") {
            return invalid(
                "properties.enable.idempotence",
                "is not to be set: OCI Streaming has no idempotent producer",
            );
        }
        for name in ["message.max.bytes", "batch.size"] {
            let given = self
                .properties
                .get(name)
                .and_then(|value| value.parse().ok());
            if given.is_some_and(|bytes: u64| bytes > OCI_REQUEST_BYTES) {
                return invalid(
                    &format!("properties.{name}"),
                    &format!(
                        "must be at most {OCI_REQUEST_BYTES}: OCI Streaming takes requests of 1 MB"
                    ),
                );
            }
        }
        Ok(())
    }
}

/// The host of `[PROTOCOL://]host[:port]`; an IPv6 address stands in brackets.
fn host_of(broker: &str) -> &str {
    let address = broker.split_once("://").map_or(broker, |(_, rest)| rest);
    if let Some(rest) = address.strip_prefix('[') {
        return rest.split_once(']').map_or(rest, |(host, _)| host);
    }
    address.rsplit_once(':').map_or(address, |(host, _)| host)
}

/// A name counts as this machine only if it is `localhost`: any other may be resolved to another machine.
fn is_loopback(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost")
        || host
            .parse()
            .is_ok_and(|address: std::net::IpAddr| address.to_canonical().is_loopback())
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
pub(crate) mod tests {
    use super::*;
    use crate::authentication::AuthenticationMode;

    #[test]
    fn a_property_that_would_break_a_guarantee_is_refused_with_the_reason() {
        let mut config = KafkaConfig {
            brokers: "localhost:1".into(),
            ..KafkaConfig::default()
        };
        config
            .properties
            .insert("enable.auto.commit".into(), "true".into());
        let message = config.validate().unwrap_err().to_string();
        assert!(
            message.starts_with("kafka.properties.enable.auto.commit: "),
            "{message}"
        );
        assert!(message.contains("after the effect"), "{message}");
    }

    #[test]
    fn a_property_that_does_not_exist_is_refused() {
        let mut config = KafkaConfig {
            brokers: "localhost:1".into(),
            ..KafkaConfig::default()
        };
        config
            .properties
            .insert("fetch.wait.maxi.ms".into(), "5".into());
        let message = config.validate().unwrap_err().to_string();
        assert!(message.contains("fetch.wait.maxi.ms"), "{message}");
    }

    /// Valid settings of the profile, with a change.
    pub(crate) fn oci_streaming(change: impl FnOnce(&mut KafkaConfig)) -> KafkaConfig {
        let mut config = KafkaConfig {
            profile: Some(Profile::OciStreaming),
            brokers: "cell-1.streaming.eu-frankfurt-1.oci.oraclecloud.com:9092".into(),
            oci: OciStreamingConfig {
                tenancy: "acme".into(),
                user: "payments".into(),
                stream_pool: "ocid1.streampool.oc1..x".into(),
                auth_token: Secret::new("token"),
                ..OciStreamingConfig::default()
            },
            ..KafkaConfig::default()
        };
        change(&mut config);
        config
    }

    #[test]
    fn what_oci_streaming_lacks_or_misses_is_refused_by_its_name() {
        type Change = fn(&mut KafkaConfig);
        let cases: [(&str, Change); 4] = [
            ("kafka.oci.tenancy", |c| c.oci.tenancy.clear()),
            ("kafka.oci.auth_token", |c| {
                c.oci.auth_token = Secret::default()
            }),
            ("kafka.properties.enable.idempotence", |c| {
                c.properties.insert("enable.idempotence".into(), "1".into());
            }),
            ("kafka.properties.message.max.bytes", |c| {
                c.properties
                    .insert("message.max.bytes".into(), "2000000".into());
            }),
        ];
        for (setting, change) in cases {
            let message = oci_streaming(change).validate().unwrap_err().to_string();
            assert!(message.starts_with(&format!("{setting}: ")), "{message}");
        }
    }

    #[test]
    fn a_connection_without_tls_to_another_machine_is_refused_unless_a_setting_asks_for_it() {
        let check = |brokers: &str, protocol: Option<&str>, allow_plaintext| {
            let mut config = KafkaConfig {
                brokers: brokers.to_owned(),
                allow_plaintext,
                ..KafkaConfig::default()
            };
            if let Some(protocol) = protocol {
                let name = "security.protocol".to_owned();
                config.properties.insert(name, protocol.to_owned());
            }
            config.validate().map_err(|error| error.to_string())
        };
        for (brokers, protocol) in [
            ("kafka:9092", None),
            ("127.0.0.1:9092,10.0.0.7:9092", None),
            ("localhost.example.com:9092", None),
            ("PLAINTEXT://kafka:9092", Some("plaintext")),
            ("[2001:db8::1]:9092", Some("SASL_PLAINTEXT")),
        ] {
            let error = check(brokers, protocol, false).unwrap_err();
            assert!(error.starts_with("kafka.allow_plaintext: "), "{error}");
            assert!(error.contains("SASL_SSL"), "{error}");
            assert_eq!(check(brokers, protocol, true), Ok(()), "{brokers}");
        }
        for (brokers, protocol) in [
            ("localhost:9092, 127.0.0.2:9", None),
            ("[::1]:9092", None),
            ("[::ffff:127.0.0.1]:9092", Some("PLAINTEXT")),
            ("kafka:9092", Some("ssl")),
            ("kafka:9092", Some("SASL_SSL")),
        ] {
            assert_eq!(check(brokers, protocol, false), Ok(()), "{brokers}");
        }
        assert!(oci_streaming(|_| {}).validate().is_ok());
    }

    #[test]
    fn a_service_on_a_cluster_needs_keys_or_says_that_it_needs_none() {
        let mut config = KafkaConfig {
            brokers: "127.0.0.1:9".into(),
            ..KafkaConfig::default()
        };
        assert!(config.validate().is_ok(), "commands need no keys");
        let error = config.validate_for_service().unwrap_err().to_string();
        assert!(error.starts_with("kafka.authentication.keys: "), "{error}");
        assert!(error.contains("kafka.authentication.mode"), "{error}");
        config.authentication.mode = AuthenticationMode::Off;
        assert!(config.validate_for_service().is_ok());
        assert!(KafkaConfig::default().validate_for_service().is_ok());
    }

    #[test]
    fn printed_settings_hold_no_password() {
        let mut config = KafkaConfig::default();
        config
            .properties
            .insert("sasl.password".into(), "hunter2".into());
        config.oci.auth_token = Secret::new("hunter2");
        assert!(!toml::to_string(&config).unwrap().contains("hunter2"));
    }
}
