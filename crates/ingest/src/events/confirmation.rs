//! Confirming a subscription of Oracle's Notifications, by asking for the address that it sends:
//! <https://docs.oracle.com/iaas/Content/Notification/Tasks/confirm-subscription.htm>.
//!
//! Invariant: only addresses on configured hosts are asked for, and no redirect is followed: whoever may send here could
//! else make this service ask for anything.

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
/// How long Notifications may take to answer.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Confirms subscriptions.
#[derive(Debug)]
pub(crate) struct Confirmations {
    client: reqwest::Client,
    hosts: Vec<String>,
}

/// The address in a request to confirm a subscription; none, where it is another request.
pub(super) fn asked(headers: &HeaderMap, body: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Asked {
        #[serde(rename = "ConfirmationURL")]
        url: String,
    }
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let is_one =
        text(TYPE).is_some_and(|kind| kind.eq_ignore_ascii_case("SubscriptionConfirmation"));
    if !is_one {
        return None;
    }
    let in_body = || Some(serde_json::from_slice::<Asked>(body).ok()?.url);
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

    pub(super) async fn confirm(&self, url: &str) -> Result<(), Problem> {
        let Some(url) = allowed(url, &self.hosts) else {
            let detail = "the confirmation URL is on none of the hosts of ingest.confirmation_hosts, or not https";
            return Err(Problem::new(StatusCode::BAD_REQUEST, detail));
        };
        // It holds a token, so neither log nor answer names it.
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
    let detail = "the confirmation URL did not answer as expected; have it sent again";
    Problem::new(StatusCode::BAD_GATEWAY, detail)
}

/// https on a host that is configured, or below one; plain http only where this machine is.
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
    fn only_addresses_on_known_hosts_are_asked_for() {
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
    fn the_address_stands_in_the_header_or_in_the_body() {
        let mut headers = HeaderMap::new();
        assert_eq!(asked(&headers, b"{}"), None);
        headers.insert(TYPE, "SubscriptionConfirmation".parse().unwrap());
        let body = br#"{"ConfirmationURL":"https://b"}"#;
        assert_eq!(asked(&headers, body).as_deref(), Some("https://b"));
        headers.insert(URL, "https://h".parse().unwrap());
        assert_eq!(asked(&headers, body).as_deref(), Some("https://h"));
        headers.insert(TYPE, "Notification".parse().unwrap());
        assert_eq!(asked(&headers, body), None);
    }
}
