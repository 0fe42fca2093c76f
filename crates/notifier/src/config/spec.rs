//! Checks a table of `notifier.sinks`, and turns it into what its kind needs.

use std::num::NonZeroU32;
use std::path::PathBuf;

use data_encoding::HEXLOWER;
use sha2::{Digest, Sha256};
use tollgate_service::config::ConfigError;
use url::Url;

use super::sink::SinkConfig;
use super::webhook::WebhookSpec;
use crate::members::SentMembers;

/// The kinds of sinks.
pub(super) const KINDS: [&str; 4] = ["console", "file", "webhook", "oci"];
/// Messages that a topic of Oracle's Notifications accepts in a minute.
const OCI_MESSAGES_PER_MINUTE: u32 = 60;

/// A sink whose settings were checked.
#[derive(Debug, Clone)]
pub struct SinkSpec {
    /// Unique among the sinks, whatever their order.
    pub name: String,
    /// The setting it comes from, such as `notifier.sinks[1]`.
    pub setting: String,
    /// The members of the transaction that it gets.
    pub members: SentMembers,
    /// Messages in flight at once.
    pub concurrency: usize,
    /// Messages that it accepts in a minute.
    pub messages_per_minute: Option<NonZeroU32>,
    /// Its kind, with the settings of the kind.
    pub kind: SinkKind,
}

/// The kind of a sink, with the settings of the kind.
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

/// The settings of a topic of Oracle's Notifications.
#[derive(Debug, Clone)]
pub struct OciSpec {
    /// Its OCID.
    pub(crate) topic: String,
    /// The URL of the read API, without a slash at its end.
    #[cfg_attr(
        not(feature = "oci"),
        expect(dead_code, reason = "read in builds with Oracle Cloud")
    )]
    pub(crate) decisions_url: String,
}

impl SinkConfig {
    /// Checks the table. `setting` is its path, such as `notifier.sinks[1]`.
    pub(super) fn spec(&self, setting: String) -> Result<SinkSpec, ConfigError> {
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
            members: SentMembers::only(self.members.as_deref()),
            setting,
            concurrency,
            messages_per_minute,
            kind,
        })
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
        // It is printed, and stands in messages to people.
        let is_public =
            |url: &Url| url.has_host() && url.username().is_empty() && url.password().is_none();
        let is_url = Url::parse(&decisions_url).is_ok_and(|url| is_public(&url));
        if !decisions_url.is_empty() && !is_url {
            return invalid(
                "decisions_url",
                "must be a URL without credentials, such as https://tollgate.example.com",
            );
        }
        Ok(OciSpec {
            topic,
            decisions_url: decisions_url.trim_end_matches('/').to_owned(),
        })
    }
}

/// Eight hexadecimal digits that distinguish a few paths or URLs without showing them.
fn short_hash(text: &str) -> String {
    HEXLOWER.encode(&Sha256::digest(text)[..4])
}
