//! Confirms a subscription of Oracle's Notifications by requesting the URL that it sends:
//! <https://docs.oracle.com/iaas/Content/Notification/Tasks/confirm-subscription.htm>.
//!
//! Invariant: only URLs on configured hosts are requested, and no redirect is followed. Otherwise any caller could make
//! this service send requests to any host.

use std::time::Duration;

use axum::http::{HeaderMap, StatusCode};
use reqwest::redirect::Policy;
use serde::Deserialize;
use tollgate_service::http::Problem;
use tollgate_service::http::is_loopback;
use url::Url;

use crate::IngestConfig;

const TYPE: &str = "x-oci-ns-messagetype";
const URL: &str = "x-oci-ns-confirmationurl";
/// How long Notifications may take to answer the confirmation.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Confirms subscriptions.
#[derive(Debug)]
pub(crate) struct Confirmations {
    client: reqwest::Client,
    hosts: Vec<String>,
}

/// The URL in a request to confirm a subscription, empty if it has none; `None` for any other request.
pub(super) fn confirmation_url(headers: &HeaderMap, body: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Confirmation {
        #[serde(rename = "ConfirmationURL")]
        url: String,
    }
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let kind = text(TYPE)?;
    if !kind.eq_ignore_ascii_case("SubscriptionConfirmation") {
        return None;
    }
    let in_body = || Some(serde_json::from_slice::<Confirmation>(body).ok()?.url);
    Some(
        text(URL)
            .map(str::to_owned)
            .or_else(in_body)
            .unwrap_or_default(),
    )
}

impl Confirmations {
    pub(crate) fn new(config: &IngestConfig) -> anyhow::Result<Self> {
        let client = reqwest::Client::builder()
            .user_agent(concat!("tollgate/", env!("CARGO_PKG_VERSION")))
            .redirect(Policy::none())
            .timeout(TIMEOUT);
        Ok(Self {
            client: client.build()?,
            hosts: config.confirmation_hosts.clone(),
        })
    }

    /// Confirms a subscription.
    ///
    /// # Errors
    /// 400 if the URL is not allowed, 502 if it does not answer with success.
    pub(super) async fn confirm(&self, url: &str) -> Result<(), Problem> {
        let Some(url) = allowed(url, &self.hosts) else {
            let detail = "the confirmation URL is not https, or its host is not in ingest.confirmation_hosts";
            return Err(Problem::new(StatusCode::BAD_REQUEST, detail));
        };
        // The URL contains a token, so neither the log nor the answer contains it.
        let host = url.host_str().unwrap_or_default().to_owned();
        let answer = self.client.get(url).send().await;
        match answer.map(|answer| answer.status()) {
            Ok(status) if status.is_success() => {
                tracing::info!(host, "a subscription is confirmed");
                Ok(())
            }
            Ok(status) => {
                tracing::warn!(host, %status, "a subscription was not confirmed");
                Err(not_confirmed())
            }
            Err(error) => {
                let error = error.without_url();
                tracing::warn!(host, %error, "a subscription was not confirmed");
                Err(not_confirmed())
            }
        }
    }
}

fn not_confirmed() -> Problem {
    let detail = "the confirmation URL did not answer with success; request the confirmation again";
    Problem::new(StatusCode::BAD_GATEWAY, detail)
}

/// An https URL on a configured host or a subdomain of one. Plain http is allowed on loopback only.
fn allowed(text: &str, hosts: &[String]) -> Option<Url> {
    let url = Url::parse(text).ok()?;
    let host = url.host_str()?;
    let known = hosts.iter().any(|known| {
        host == known
            || host
                .strip_suffix(known.as_str())
                .is_some_and(|rest| rest.ends_with('.'))
    });
    let secure = url.scheme() == "https" || is_loopback(&url) && url.scheme() == "http";
    (known && secure).then_some(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_urls_on_configured_hosts_are_allowed() {
        let hosts = ["oraclecloud.com".to_owned(), "127.0.0.1".to_owned()];
        for good in [
            "https://cell1.notification.eu-frankfurt-1.oci.oraclecloud.com/20181201/x?token=1",
            "https://oraclecloud.com/",
            "http://127.0.0.1:8080/x",
        ] {
            assert!(allowed(good, &hosts).is_some(), "{good}");
        }
        for bad in [
            "",
            "https://evil.example/?oraclecloud.com",
            "https://evil-oraclecloud.com/",
            "https://oraclecloud.com.evil.example/",
            "https://oraclecloud.com@evil.example/",
            "http://notification.oraclecloud.com/",
            "http://169.254.169.254/opc/v2",
            "file:///etc/passwd",
        ] {
            assert!(allowed(bad, &hosts).is_none(), "{bad}");
        }
    }

    #[test]
    fn the_confirmation_url_is_in_the_header_or_in_the_body() {
        let mut headers = HeaderMap::new();
        assert_eq!(confirmation_url(&headers, b"{}"), None);
        headers.insert(TYPE, "SubscriptionConfirmation".parse().unwrap());
        let body = br#"{"ConfirmationURL":"https://b"}"#;
        assert_eq!(
            confirmation_url(&headers, body).as_deref(),
            Some("https://b")
        );
        headers.insert(URL, "https://h".parse().unwrap());
        assert_eq!(
            confirmation_url(&headers, body).as_deref(),
            Some("https://h")
        );
        headers.insert(TYPE, "Notification".parse().unwrap());
        assert_eq!(confirmation_url(&headers, body), None);
    }
}
