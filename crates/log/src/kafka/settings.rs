//! Settings of the Kafka client that follow from the configuration.

use rdkafka::ClientConfig;
use rdkafka::error::KafkaError;

use crate::config::{KafkaConfig, OCI_REQUEST_BYTES, Profile};

/// How OCI Streaming is read, which allows 5 requests per second for each partition and group. A request waits up to
/// 250 ms for 1 MB of records, and the next request is delayed by 334 ms (`fetch.queue.backoff.ms`) while records of the
/// last one are still queued. This adds up to about half a second to the latency of a record.
const OCI_READING: &[(&str, &str)] = &[
    ("fetch.wait.max.ms", "250"),
    ("fetch.min.bytes", "1000000"),
    ("max.partition.fetch.bytes", "1048576"),
    ("queued.min.messages", "1"),
    ("fetch.queue.backoff.ms", "334"),
];

/// Settings of every client.
pub(super) fn client_config(config: &KafkaConfig, brokers: &str) -> ClientConfig {
    let mut client = ClientConfig::new();
    client
        .set("bootstrap.servers", brokers)
        .set("client.id", "tollgate")
        .set("socket.keepalive.enable", "true")
        .set("reconnect.backoff.max.ms", "2000")
        .set("allow.auto.create.topics", "false")
        .set("log.connection.close", "false");
    if config.profile() == Profile::OciStreaming {
        let oci = &config.oci;
        let names = [&oci.tenancy, &oci.domain, &oci.user, &oci.stream_pool];
        let user: Vec<&str> = names
            .into_iter()
            .map(String::as_str)
            .filter(|name| !name.is_empty())
            .collect();
        client
            .set("security.protocol", "SASL_SSL")
            .set("sasl.mechanism", "PLAIN")
            .set("sasl.username", user.join("/"))
            .set("sasl.password", oci.auth_token.expose())
            // The system's certificates: the OpenSSL in here has none of its own.
            .set("ssl.ca.location", "probe")
            .set("message.max.bytes", OCI_REQUEST_BYTES.to_string())
            // Connections are closed from time to time to spread them anew: a waiting caller cannot wait long.
            .set("reconnect.backoff.max.ms", "1000");
    }
    for (name, value) in &config.properties {
        client.set(name, value);
    }
    client
}

/// As [`client_config`], for a client that reads.
pub(super) fn consumer_config(config: &KafkaConfig, brokers: &str) -> ClientConfig {
    let mut client = client_config(config, brokers);
    if config.profile() == Profile::OciStreaming {
        for (name, value) in OCI_READING {
            if !config.properties.contains_key(*name) {
                client.set(*name, *value);
            }
        }
    }
    client
}

/// Whether the client library accepts the configured properties; if not, why.
pub(crate) fn check_properties(config: &KafkaConfig) -> Result<(), String> {
    client_config(config, "127.0.0.1:9")
        .create_native_config()
        .map(drop)
        .map_err(|error| match error {
            // The library's own text ends with the value, and its description may quote it.
            KafkaError::ClientConfig(_, description, name, value) => {
                let quotes = !value.is_empty() && description.contains(&value);
                match quotes {
                    true => format!("{name}: its value is not accepted"),
                    false => format!("{name}: {description}"),
                }
            }
            other => without_values(&other.to_string(), config),
        })
}

/// The text without the values of properties: a message about several of them may quote any.
fn without_values(text: &str, config: &KafkaConfig) -> String {
    let mut values: Vec<&str> = config.properties.values().map(String::as_str).collect();
    values.push(config.oci.auth_token.expose());
    // Of two values of which one is a part of the other, the longer one first.
    values.sort_by_key(|value| std::cmp::Reverse(value.len()));
    let values = values.into_iter().filter(|value| value.len() > 3);
    values.fold(text.to_owned(), |text, value| {
        text.replace(value, "(hidden)")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::oci_streaming;

    #[test]
    fn the_user_name_of_oci_streaming_has_three_parts_or_with_a_domain_four() {
        let user = |config: &KafkaConfig| {
            let client = client_config(config, "b:1");
            client.get("sasl.username").unwrap().to_owned()
        };
        let plain = oci_streaming(|_| {});
        assert!(plain.validate().is_ok());
        assert_eq!(user(&plain), "acme/payments/ocid1.streampool.oc1..x");
        let domain = oci_streaming(|config| config.oci.domain = "Default".into());
        assert_eq!(
            user(&domain),
            "acme/Default/payments/ocid1.streampool.oc1..x"
        );
    }

    #[test]
    fn oci_streaming_is_read_seldom_unless_a_property_says_otherwise() {
        let config = oci_streaming(|config| {
            config
                .properties
                .insert("fetch.wait.max.ms".into(), "500".into());
        });
        let reading = consumer_config(&config, "b:1");
        assert_eq!(reading.get("fetch.wait.max.ms"), Some("500"));
        assert_eq!(reading.get("fetch.min.bytes"), Some("1000000"));
        assert_eq!(client_config(&config, "b:1").get("fetch.min.bytes"), None);
    }
}
