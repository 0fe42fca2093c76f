//! One table of `notifier.sinks`, as it is written in the settings.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize, Serializer};
use tollgate_service::Secret;
use tollgate_service::config::ConfigError;
use tollgate_service::secret::redacted_path;

/// One table of `notifier.sinks`. Which members it may have depends on its kind.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SinkConfig {
    /// `console`, `file`, `webhook` or `oci`.
    pub kind: String,
    /// The name of the sink in the delivery log, logs and metrics. Unset: kind and a hash of path or URL. To the delivery
    /// log another name is another sink: the alerts that the log still holds uncommitted are delivered to it again.
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
    /// Allow plain http to any host, for `webhook`: for trials, and where the network itself encrypts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plain_http: Option<bool>,
    /// `whsec_…` of Standard Webhooks, for `webhook`; two separated by a space during a rotation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<Secret>,
    /// Timeout of one request, for `webhook`, in milliseconds. 10,000 unless set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// Messages in flight at once: a crash may send them twice. Unless set, 8 for `webhook`, 4 for `oci`, else 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<usize>,
    /// OCID of the topic, for `oci`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topic: Option<String>,
    /// Messages that this process may publish in a minute, for `oci`. 60 unless set, the limit of a topic. If alerts come
    /// faster, a message contains many.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub messages_per_minute: Option<u32>,
    /// The URL of the read API, linked in a message with many alerts, for `oci`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decisions_url: Option<String>,
    /// The members of the transaction that the sink gets. Unset: all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub members: Option<Vec<String>>,
    /// Further request headers, for `webhook`. Their values are not printed.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, Secret>,
}

impl SinkConfig {
    /// A table with a kind and no other setting.
    #[must_use]
    pub fn of_kind(kind: &str) -> Self {
        Self {
            kind: kind.to_owned(),
            ..Self::default()
        }
    }
}

impl SinkConfig {
    /// Refuses a setting that the kind would ignore.
    pub(super) fn refuse_foreign_members(&self, setting: &str) -> Result<(), ConfigError> {
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
}

/// Receivers put tokens into paths and queries as well as into passwords.
#[expect(clippy::ref_option, reason = "serde calls it so")]
fn without_secrets<S: Serializer>(url: &Option<String>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&redacted_path(url.as_deref().unwrap_or_default()))
}
