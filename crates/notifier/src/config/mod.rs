//! Section `notifier` of the configuration.
//!
//! Sinks are read as flat tables ([`SinkConfig`]), so that an error names the setting, and are then checked and turned
//! into [`SinkSpec`]s, which hold what their kind needs and nothing else.

mod sink;
mod spec;
mod webhook;

use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize, Serializer};
use tollgate_service::config::ConfigError;
use tollgate_service::database_tls::require_verified;
use tollgate_service::http::TlsConfig;
use tollgate_service::resilience::{BreakerConfig, DependencyConfig, RetryConfig};
use tollgate_service::secret::redacted_url;

pub use sink::SinkConfig;
#[cfg(feature = "oci")]
pub(crate) use spec::OciSpec;
pub use spec::{SinkKind, SinkSpec};
pub(crate) use webhook::WebhookSpec;

/// Longer than a request for a key, the wait for the turn of a message, and its request may take together.
const OCI_TIMEOUT: Duration = Duration::from_secs(900);
/// A budget beyond this bounds nothing.
const MAX_BUDGET: usize = 1 << 30;

/// Section `notifier`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NotifierConfig {
    /// Probes and metrics.
    pub admin_listen: SocketAddr,
    /// Section `tls`, which all services of the process share.
    #[serde(skip)]
    pub tls: TlsConfig,
    /// The database of the delivery log: `sqlite://…` or `postgres://…`.
    #[serde(serialize_with = "without_password")]
    pub delivery_log_url: String,
    /// Whether a PostgreSQL beyond loopback may be used without `sslmode=verify-full`.
    pub allow_unverified_database: bool,
    /// How long its rows are kept, in days: at least as long as the log keeps alerts.
    pub delivery_log_retention_days: u32,
    /// Most records in flight, over all sinks. Beyond it a sink that is down delays the others.
    pub budget_records: usize,
    /// Most bytes in flight.
    pub budget_bytes: usize,
    /// When a failed delivery is retried.
    pub retry: RetryConfig,
    /// When the circuit of a sink opens: its alerts wait, and one of them is sent as a probe.
    pub breaker: BreakerConfig,
    /// Failed attempts of one alert after which it is dead-lettered. Only attempts between which the sink accepted another
    /// alert count.
    pub poison_after: u32,
    /// The sinks.
    pub sinks: Vec<SinkConfig>,
}

impl Default for NotifierConfig {
    fn default() -> Self {
        Self {
            admin_listen: SocketAddr::from(([127, 0, 0, 1], 9104)),
            tls: TlsConfig::default(),
            delivery_log_url: "sqlite://tollgate-notifier.db".to_owned(),
            allow_unverified_database: false,
            delivery_log_retention_days: 30,
            budget_records: 10_000,
            budget_bytes: 32 * 1024 * 1024,
            retry: RetryConfig {
                base_ms: 250,
                cap_ms: 30_000,
                ..RetryConfig::default()
            },
            breaker: BreakerConfig::default(),
            poison_after: 20,
            sinks: vec![SinkConfig::of_kind("console")],
        }
    }
}

impl NotifierConfig {
    /// Checks everything that can be checked without a log, and returns the sinks.
    ///
    /// # Errors
    /// Names the invalid setting.
    pub fn validate(&self) -> Result<Vec<SinkSpec>, ConfigError> {
        require_verified(
            "notifier",
            "delivery_log_url",
            &self.delivery_log_url,
            self.allow_unverified_database,
        )?;
        self.retry.validate("notifier.retry")?;
        self.breaker.validate("notifier.breaker")?;
        if self.poison_after == 0 {
            return Err(ConfigError::invalid(
                "notifier.poison_after",
                "must be at least 1",
            ));
        }
        for (setting, value) in [
            ("budget_records", self.budget_records),
            ("budget_bytes", self.budget_bytes),
        ] {
            if !(1..=MAX_BUDGET).contains(&value) {
                return Err(ConfigError::invalid(
                    format!("notifier.{setting}"),
                    format!("must lie between 1 and {MAX_BUDGET}"),
                ));
            }
        }
        if self.delivery_log_retention_days > 36_500 {
            return Err(ConfigError::invalid(
                "notifier.delivery_log_retention_days",
                "must be at most 36500",
            ));
        }
        if self.sinks.is_empty() {
            let reason = format!(
                "must hold at least one sink of kind {}",
                spec::KINDS.join(", ")
            );
            return Err(ConfigError::invalid("notifier.sinks", reason));
        }
        let mut specs: Vec<SinkSpec> = Vec::with_capacity(self.sinks.len());
        for (index, config) in self.sinks.iter().enumerate() {
            let spec = config.spec(format!("notifier.sinks[{index}]"))?;
            if let Some(other) = specs.iter().find(|other| other.name == spec.name) {
                let reason = format!(
                    "{} has the name {} already; give one of them another, or leave one out",
                    other.setting, spec.name
                );
                return Err(ConfigError::invalid(
                    format!("{}.name", spec.setting),
                    reason,
                ));
            }
            specs.push(spec);
        }
        Ok(specs)
    }

    /// How a sink is called.
    pub(crate) fn dependency_config(&self, spec: &SinkSpec) -> DependencyConfig {
        DependencyConfig {
            timeout: match &spec.kind {
                // The timeout of the HTTP client comes first: its error has more details.
                SinkKind::Webhook(webhook) => webhook.timeout + Duration::from_secs(1),
                // Blocking work cannot be aborted, and would be written twice.
                SinkKind::Console | SinkKind::File(_) => Duration::MAX,
                // The timeout of the client comes first.
                SinkKind::Oci(_) => OCI_TIMEOUT,
            },
            concurrency: spec.concurrency,
            retry: self.retry.clone(),
            poison_after: Some(self.poison_after),
            breaker: self.breaker.clone(),
        }
    }

    /// The delivery log must keep a row at least as long as the log may deliver its alert again.
    pub(crate) fn check_retention(&self, log_hours: u32) -> Result<(), ConfigError> {
        if u64::from(self.delivery_log_retention_days) * 24 >= u64::from(log_hours) {
            return Ok(());
        }
        let reason = format!(
            "{} days are shorter than kafka.retention_hours, {log_hours} hours: an alert read again would be sent again",
            self.delivery_log_retention_days
        );
        Err(ConfigError::invalid(
            "notifier.delivery_log_retention_days",
            reason,
        ))
    }
}

fn without_password<S: Serializer>(url: &str, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&redacted_url(url))
}

#[cfg(test)]
mod tests {
    use tollgate_service::Secret;

    use super::*;

    fn webhook(url: &str) -> SinkConfig {
        SinkConfig {
            url: Some(url.into()),
            secret: Some(Secret::new("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")),
            ..SinkConfig::of_kind("webhook")
        }
    }

    fn file(path: &str) -> SinkConfig {
        SinkConfig {
            path: Some(path.into()),
            ..SinkConfig::of_kind("file")
        }
    }

    fn names(sinks: Vec<SinkConfig>) -> Vec<String> {
        let config = NotifierConfig {
            sinks,
            ..NotifierConfig::default()
        };
        let specs = config.validate().unwrap();
        specs.into_iter().map(|spec| spec.name).collect()
    }

    #[test]
    fn the_names_of_sinks_in_the_delivery_log_do_not_depend_on_their_order() {
        let (a, b, c) = (
            file("a"),
            webhook("https://h.example/x"),
            SinkConfig::of_kind("console"),
        );
        let mut forward = names(vec![a.clone(), b.clone(), c.clone()]);
        let mut backward = names(vec![c, b, a]);
        forward.sort();
        backward.sort();
        assert_eq!(forward, backward);
        assert!(forward[2].starts_with("webhook-h.example-"), "{forward:?}");
    }

    #[test]
    fn two_receivers_on_one_host_are_two_sinks() {
        let names = names(vec![
            webhook("https://h.example/x"),
            webhook("https://h.example/y"),
        ]);
        assert_ne!(names[0], names[1]);
    }

    #[test]
    fn a_delivery_log_with_a_shorter_retention_than_the_log_is_refused() {
        let config = NotifierConfig {
            delivery_log_retention_days: 6,
            ..NotifierConfig::default()
        };
        let message = config.check_retention(168).unwrap_err().to_string();
        assert!(
            message.starts_with("notifier.delivery_log_retention_days: "),
            "{message}"
        );
        assert!(NotifierConfig::default().check_retention(168).is_ok());
    }

    #[test]
    fn printed_settings_hold_no_secret() {
        let mut sink = webhook("https://me:hunter2@h.example/x?token=hunter2");
        sink.headers
            .insert("authorization".into(), Secret::new("Bearer hunter2"));
        let config = NotifierConfig {
            delivery_log_url: "postgres://me:hunter2@db/x?sslmode=verify-full".into(),
            sinks: vec![sink, SinkConfig::of_kind("console")],
            ..NotifierConfig::default()
        };
        let printed = toml::to_string_pretty(&config).unwrap();
        assert!(
            !printed.contains("hunter2") && !printed.contains("MfKQ9"),
            "{printed}"
        );
        assert!(!format!("{:?}", config.validate().unwrap()[0].kind).contains("MfKQ9"));
    }
}
