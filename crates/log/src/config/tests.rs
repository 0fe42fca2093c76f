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

#[test]
fn brokers_with_credentials_are_refused_without_printing_them() {
    let config = KafkaConfig {
        brokers: "user:hunter2@broker.example:9093".into(),
        ..KafkaConfig::default()
    };
    let message = config.validate().unwrap_err().to_string();
    assert!(message.starts_with("kafka.brokers: "), "{message}");
    assert!(!message.contains("hunter2"), "{message}");
}
