//! Section `notifier` of the configuration.
//!
//! Sinks are read as flat tables, so that an error names the very member, and are then turned into [`SinkSpec`]s,
//! which hold what their kind needs and nothing else.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use serde::{Deserialize, Serialize, Serializer};
use sha2::{Digest, Sha256};
use tollgate_service::Secret;
use tollgate_service::config::ConfigError;
use tollgate_service::http::is_loopback;
use tollgate_service::resilience::{BreakerConfig, DependencyConfig, RetryConfig};
use tollgate_service::secret::redacted_url;
use url::Url;

use crate::alert::hex;
use crate::signature::Signer;

/// Section `notifier`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NotifierConfig {
    /// Probes and metrics.
    pub admin_listen: SocketAddr,
    /// Where it is remembered what each sink has: `sqlite://…` or `postgres://…`.
    #[serde(serialize_with = "without_password")]
    pub delivery_log_url: String,
    /// How long it is remembered, in days. As long as the log keeps alerts, at least.
    pub delivery_log_retention_days: u32,
    /// Most records in hand, over all sinks together. A sink that stands still holds the others up beyond it.
    pub budget_records: usize,
    /// Most bytes in hand.
    pub budget_bytes: usize,
    /// When a sink that does not answer is tried again.
    pub retry: RetryConfig,
    /// When a sink counts as down: its alerts wait then, and one of them asks whether it is back.
    pub breaker: BreakerConfig,
    /// Failed attempts, each after the sink took another alert, after which an alert becomes a dead letter.
    pub poison_after: u32,
    /// Where alerts go.
    pub sinks: Vec<SinkConfig>,
}

impl Default for NotifierConfig {
    fn default() -> Self {
        Self {
            admin_listen: SocketAddr::from(([127, 0, 0, 1], 9104)),
            delivery_log_url: "sqlite://tollgate-notifier.db".to_owned(),
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

/// One table of `notifier.sinks`. Which members it may have depends on its kind.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SinkConfig {
    /// `console`, `file`, `webhook` or `oci`.
    pub kind: String,
    /// Names the sink in the delivery log, logs and metrics. Unset: kind and a hash of path or URL. A sink of another name
    /// is another sink to the delivery log, and gets again what the log still holds unread.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The file, for `file`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<PathBuf>,
    /// The receiver, for `webhook`: https, or http on a loopback host, or with `plain_http`.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        serialize_with = "without_secrets"
    )]
    pub url: Option<String>,
    /// Alerts go over plain http to any host, for `webhook`: for trying out, and where the network itself encrypts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plain_http: Option<bool>,
    /// `whsec_…` of Standard Webhooks, for `webhook`; two separated by a space while it is being changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<Secret>,
    /// How long one request may take, for `webhook`. 10,000 unless set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// Messages under way at once; those are what a crash may send twice. Unless set, 8 for `webhook`, 4 for `oci`, else 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<usize>,
    /// OCID of the topic, for `oci`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topic: Option<String>,
    /// Messages that this process may publish in a minute, for `oci`: 60 unless set, which is what a topic takes. When
    /// alerts come faster, one message tells of many.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub messages_per_minute: Option<u32>,
    /// Where the read API is for whoever reads a message that tells of many, for `oci`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decisions_url: Option<String>,
    /// Further request headers, for `webhook`. Their values are not printed.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, Secret>,
}

impl SinkConfig {
    /// A table that says nothing but its kind.
    #[must_use]
    pub fn of_kind(kind: &str) -> Self {
        Self {
            kind: kind.to_owned(),
            ..Self::default()
        }
    }
}

/// A sink whose settings were checked.
#[derive(Debug, Clone)]
pub struct SinkSpec {
    /// Unique among the sinks, whatever their order.
    pub name: String,
    /// The setting it comes from, such as `notifier.sinks[1]`.
    pub setting: String,
    /// Messages under way at once.
    pub concurrency: usize,
    /// Messages that it takes in a minute.
    pub messages_per_minute: Option<NonZeroU32>,
    /// What it is.
    pub kind: SinkKind,
}

/// What a sink is, with what it needs.
#[derive(Debug, Clone)]
pub enum SinkKind {
    /// A line on standard output.
    Console,
    /// A line in a file.
    File(PathBuf),
    /// A signed POST.
    Webhook(Box<WebhookSpec>),
    /// Oracle's Notifications.
    Oci(OciSpec),
}

/// What a topic of Notifications needs.
#[derive(Debug, Clone)]
pub struct OciSpec {
    /// Its OCID.
    pub(crate) topic: String,
    /// Where the read API is, without a slash at its end.
    #[cfg_attr(
        not(feature = "oci"),
        expect(dead_code, reason = "read in builds with Oracle Cloud")
    )]
    pub(crate) decisions_url: String,
}

/// What a webhook needs.
#[derive(Debug, Clone)]
pub struct WebhookSpec {
    pub(crate) url: Url,
    /// The host is this machine: plain http will do, and no proxy is asked.
    pub(crate) loopback: bool,
    /// Plain http will do.
    pub(crate) plain_http: bool,
    pub(crate) signer: Signer,
    pub(crate) timeout: Duration,
    pub(crate) headers: HeaderMap,
}

/// Far longer than requests for a key and for a message may take, and the wait for the turn of a message.
const OCI_TIMEOUT: Duration = Duration::from_secs(900);
/// Beyond this a budget bounds nothing.
const MAX_BUDGET: usize = 1 << 30;
const KINDS: [&str; 4] = ["console", "file", "webhook", "oci"];
/// What a topic takes in a minute.
const OCI_MESSAGES_PER_MINUTE: u32 = 60;
/// The sink sets these itself.
const OWN_HEADERS: [&str; 6] = [
    "content-length",
    "content-type",
    "host",
    "webhook-id",
    "webhook-signature",
    "webhook-timestamp",
];

impl NotifierConfig {
    /// Checks everything that can be checked without a log, and gives the sinks.
    ///
    /// # Errors
    /// Names the setting at fault.
    pub fn validate(&self) -> Result<Vec<SinkSpec>, ConfigError> {
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
            let reason = format!("must hold at least one sink of kind {}", KINDS.join(", "));
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
                // The client's own timeout ends it first, and says more.
                SinkKind::Webhook(webhook) => webhook.timeout + Duration::from_secs(1),
                // What blocks goes on all the same, and would be written twice.
                SinkKind::Console | SinkKind::File(_) => Duration::MAX,
                // The client's own ends it first; a key may have to be got, and a message's turn waited for.
                SinkKind::Oci(_) => OCI_TIMEOUT,
            },
            concurrency: spec.concurrency,
            retry: self.retry.clone(),
            poison_after: Some(self.poison_after),
            breaker: self.breaker.clone(),
        }
    }

    /// The delivery log must not forget what the log may still bring again.
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

impl SinkConfig {
    fn spec(&self, setting: String) -> Result<SinkSpec, ConfigError> {
        let invalid = |member: &str, reason: &str| {
            ConfigError::invalid(format!("{setting}.{member}"), reason)
        };
        let (kind, default_name, default_concurrency) = match self.kind.as_str() {
            "console" => (SinkKind::Console, "console".to_owned(), 1),
            "file" => {
                let path = self.path.clone().filter(|path| path.file_name().is_some());
                let path = path.ok_or_else(|| invalid("path", "must name the file"))?;
                let name = format!("file-{}", short_hash(&path.to_string_lossy()));
                (SinkKind::File(path), name, 1)
            }
            "webhook" => {
                let spec = self.webhook(&setting)?;
                let host = spec.url.host_str().unwrap_or_default();
                let host = host.replace(['[', ']', ':'], "");
                let name = format!("webhook-{host}-{}", short_hash(spec.url.as_str()));
                (SinkKind::Webhook(Box::new(spec)), name, 8)
            }
            "oci" => {
                let spec = self.oci(&setting)?;
                let name = format!("oci-{}", short_hash(&spec.topic));
                (SinkKind::Oci(spec), name, 4)
            }
            other => {
                let reason = format!("unknown kind `{other}`; known are {}", KINDS.join(", "));
                return Err(invalid("kind", &reason));
            }
        };
        self.refuse_foreign_members(&setting)?;
        let name = self.name.clone().unwrap_or(default_name);
        let plain = |c: char| c.is_ascii_alphanumeric() || ['.', '_', '-'].contains(&c);
        if name.is_empty() || name.len() > 128 || !name.chars().all(plain) {
            return Err(invalid("name", "must be 1 to 128 of a-z A-Z 0-9 . _ -"));
        }
        let concurrency = self.concurrency.unwrap_or(default_concurrency);
        if !(1..=1_024).contains(&concurrency) {
            return Err(invalid("concurrency", "must lie between 1 and 1024"));
        }
        let messages_per_minute = match (&kind, self.messages_per_minute) {
            (SinkKind::Oci(_), Some(0)) => {
                return Err(invalid("messages_per_minute", "must be at least 1"));
            }
            (SinkKind::Oci(_), given) => NonZeroU32::new(given.unwrap_or(OCI_MESSAGES_PER_MINUTE)),
            _ => None,
        };
        Ok(SinkSpec {
            name,
            setting,
            concurrency,
            messages_per_minute,
            kind,
        })
    }

    /// A member that would be ignored was meant for something.
    fn refuse_foreign_members(&self, setting: &str) -> Result<(), ConfigError> {
        let [file, webhook, oci] = ["file", "webhook", "oci"].map(|kind| self.kind == kind);
        let members = [
            ("path", self.path.is_some(), file),
            ("url", self.url.is_some(), webhook),
            ("plain_http", self.plain_http.is_some(), webhook),
            ("secret", self.secret.is_some(), webhook),
            ("timeout_ms", self.timeout_ms.is_some(), webhook),
            ("headers", !self.headers.is_empty(), webhook),
            ("topic", self.topic.is_some(), oci),
            (
                "messages_per_minute",
                self.messages_per_minute.is_some(),
                oci,
            ),
            ("decisions_url", self.decisions_url.is_some(), oci),
        ];
        match members.iter().find(|(_, given, fits)| *given && !fits) {
            None => Ok(()),
            Some((member, ..)) => Err(ConfigError::invalid(
                format!("{setting}.{member}"),
                format!("a sink of kind {} has no such setting", self.kind),
            )),
        }
    }

    fn oci(&self, setting: &str) -> Result<OciSpec, ConfigError> {
        let invalid = |member: &str, reason: &str| {
            Err(ConfigError::invalid(format!("{setting}.{member}"), reason))
        };
        if cfg!(not(feature = "oci")) {
            return invalid("kind", tollgate_service::cloud::NOT_BUILT);
        }
        let topic = self.topic.clone().unwrap_or_default();
        if !topic.starts_with("ocid1.onstopic.") {
            return invalid("topic", "must be the OCID of a topic: ocid1.onstopic.…");
        }
        let decisions_url = self.decisions_url.clone().unwrap_or_default();
        let is_url = Url::parse(&decisions_url).is_ok_and(|url| url.has_host());
        if !decisions_url.is_empty() && !is_url {
            return invalid(
                "decisions_url",
                "must be a URL, such as https://tollgate.example.com",
            );
        }
        Ok(OciSpec {
            topic,
            decisions_url: decisions_url.trim_end_matches('/').to_owned(),
        })
    }

    fn webhook(&self, setting: &str) -> Result<WebhookSpec, ConfigError> {
        let invalid = |member: &str, reason: String| {
            ConfigError::invalid(format!("{setting}.{member}"), reason)
        };
        let text = self.url.as_deref().unwrap_or_default();
        let expected = || {
            invalid(
                "url",
                "must be an https URL, such as https://hooks.example.com/alerts".to_owned(),
            )
        };
        let url = Url::parse(text).map_err(|_| expected())?;
        if !url.has_host() {
            return Err(expected());
        }
        let loopback = is_loopback(&url);
        let plain_http = loopback || self.plain_http.unwrap_or_default();
        match url.scheme() {
            "https" => {}
            "http" if plain_http => {}
            "http" => {
                let reason = "alerts leave this machine over https only; plain http will do on a loopback host, or with plain_http = true where the network itself encrypts";
                return Err(invalid("url", reason.to_owned()));
            }
            _ => return Err(expected()),
        }
        let secret = self.secret.clone().unwrap_or_default();
        let signer = Signer::new(&secret).map_err(|reason| invalid("secret", reason))?;
        let timeout_ms = self.timeout_ms.unwrap_or(10_000);
        if !(1..=300_000).contains(&timeout_ms) {
            return Err(invalid(
                "timeout_ms",
                "must lie between 1 and 300000".to_owned(),
            ));
        }
        let mut headers = HeaderMap::new();
        for (name, value) in &self.headers {
            let member = format!("headers.{name}");
            let name = HeaderName::try_from(name)
                .map_err(|_| invalid(&member, "is no name of a header".to_owned()))?;
            if OWN_HEADERS.contains(&name.as_str()) {
                return Err(invalid(
                    &member,
                    "the webhook sets this header itself".to_owned(),
                ));
            }
            let mut value = HeaderValue::try_from(value.expose())
                .map_err(|_| invalid(&member, "holds characters that no header may".to_owned()))?;
            value.set_sensitive(true);
            headers.insert(name, value);
        }
        Ok(WebhookSpec {
            url,
            loopback,
            plain_http,
            signer,
            timeout: Duration::from_millis(timeout_ms),
            headers,
        })
    }
}

/// Eight digits that tell a handful of paths or URLs apart without showing them.
fn short_hash(text: &str) -> String {
    hex(&Sha256::digest(text)[..4])
}

fn without_password<S: Serializer>(url: &str, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&redacted_url(url))
}

/// Receivers put tokens into queries as well as into passwords.
#[expect(clippy::ref_option, reason = "serde calls it so")]
fn without_secrets<S: Serializer>(url: &Option<String>, serializer: S) -> Result<S::Ok, S::Error> {
    let text = url.as_deref().unwrap_or_default();
    let shown = Url::parse(text).map_or_else(
        |_| text.to_owned(),
        |mut url| {
            if url.query().is_some() {
                url.set_query(Some("hidden"));
            }
            redacted_url(url.as_str())
        },
    );
    serializer.serialize_str(&shown)
}

#[cfg(test)]
mod tests {
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
    fn the_order_of_sinks_does_not_change_who_they_are_to_the_delivery_log() {
        let (a, b, c) = (
            file("a"),
            webhook("https://h.example/x"),
            SinkConfig::of_kind("console"),
        );
        let mut there = names(vec![a.clone(), b.clone(), c.clone()]);
        let mut back = names(vec![c, b, a]);
        there.sort();
        back.sort();
        assert_eq!(there, back);
        assert!(there[2].starts_with("webhook-h.example-"), "{there:?}");
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
    fn a_delivery_log_that_forgets_before_the_log_does_is_refused() {
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
            delivery_log_url: "postgres://me:hunter2@db/x".into(),
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
