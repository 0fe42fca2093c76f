//! Which settings of the section `kafka` can be used: each by itself, and how they relate.

use tollgate_service::config::ConfigError;

use super::{KafkaConfig, Profile};

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
            Profile::Kafka | Profile::OciStreaming if self.brokers.contains('@') => {
                // Not printed: what stands before the at sign may be a password.
                return invalid(
                    "brokers",
                    "must be host:port,… without credentials; properties.\"sasl.username\" and \"sasl.password\" are for these",
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
