//! Checks the settings of a webhook: where it may send alerts, how it signs them, and its headers.

use std::time::Duration;

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use tollgate_service::config::ConfigError;
use tollgate_service::http::is_loopback;
use url::Url;

use super::sink::SinkConfig;
use crate::signature::Signer;

/// Headers that the sink sets itself.
const OWN_HEADERS: [&str; 6] = [
    "content-length",
    "content-type",
    "host",
    "webhook-id",
    "webhook-signature",
    "webhook-timestamp",
];

/// The settings of a webhook.
#[derive(Debug, Clone)]
pub struct WebhookSpec {
    pub(crate) url: Url,
    /// The host is this machine: plain http is allowed, and no proxy is used.
    pub(crate) loopback: bool,
    /// Plain http is allowed.
    pub(crate) plain_http: bool,
    pub(crate) signer: Signer,
    pub(crate) timeout: Duration,
    pub(crate) headers: HeaderMap,
}

impl SinkConfig {
    pub(super) fn webhook(&self, setting: &str) -> Result<WebhookSpec, ConfigError> {
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
                let reason = "must be https; plain http is allowed on a loopback host, or with plain_http = true where the network itself encrypts";
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
            // A wrong separator makes the value a part of the name, which is not quoted then.
            let member = format!("headers.{name}");
            let name = HeaderName::try_from(name).map_err(|_| {
                invalid(
                    "headers",
                    "has a name that is no valid header name".to_owned(),
                )
            })?;
            if OWN_HEADERS.contains(&name.as_str()) {
                return Err(invalid(
                    &member,
                    "the webhook sets this header itself".to_owned(),
                ));
            }
            let mut value = HeaderValue::try_from(value.expose()).map_err(|_| {
                invalid(
                    &member,
                    "contains characters that are not allowed in a header".to_owned(),
                )
            })?;
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
