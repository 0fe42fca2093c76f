//! A signed POST as Standard Webhooks has it, and what each answer means.
//!
//! Invariant: attempts and redeliveries of one alert carry the same `webhook-id`. An alert leaves this machine only
//! over TLS to the host that was configured: certificates are checked and redirects are not followed.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use reqwest::header::{CONTENT_TYPE, HeaderMap, RETRY_AFTER};
use reqwest::redirect::Policy;
use reqwest::{Client, Response, StatusCode};
use tollgate_service::http::with_causes;
use tollgate_service::telemetry::trace::{SPAN_TARGET, current, is_on};
use tollgate_types::headers::TRACEPARENT;
use tracing::Instrument as _;
use tracing::field::Empty;
use url::Url;

use super::Failure;
use crate::alert::Alert;
use crate::config::WebhookSpec;
use crate::signature::Signer;

/// More of an answer than this is not read; the connection is closed instead of used again.
const ANSWER_READ: usize = 64 * 1024;

#[derive(Debug)]
pub(crate) struct WebhookSink {
    client: Client,
    url: Url,
    signer: Signer,
}

impl WebhookSink {
    pub(super) fn new(spec: &WebhookSpec) -> reqwest::Result<Self> {
        let mut client = Client::builder()
            .user_agent(concat!("tollgate/", env!("CARGO_PKG_VERSION")))
            .default_headers(spec.headers.clone())
            .redirect(Policy::none())
            .https_only(!spec.plain_http)
            .connect_timeout(spec.timeout)
            .timeout(spec.timeout);
        if spec.loopback {
            client = client.no_proxy();
        }
        Ok(Self {
            client: client.build()?,
            url: spec.url.clone(),
            signer: spec.signer.clone(),
        })
    }

    pub(super) async fn deliver(&self, alert: &Arc<Alert>) -> Result<(), Failure> {
        let id = alert.key.message_id();
        let body = format!(
            r#"{{"type":"fraud.alert","timestamp":"{}","data":{}}}"#,
            alert.processed_at, alert.json
        );
        let now = Utc::now();
        let mut request = self
            .client
            .post(self.url.clone())
            .header(CONTENT_TYPE, "application/json")
            .header("webhook-id", &id)
            .header("webhook-timestamp", now.timestamp())
            .header(
                "webhook-signature",
                self.signer.sign(&id, now.timestamp(), body.as_bytes()),
            );
        // The path may hold a token, so neither spans nor errors tell it.
        let span = tracing::info_span!(
            target: SPAN_TARGET,
            "POST",
            otel.kind = "client",
            http.request.method = "POST",
            server.address = self.url.host_str(),
            server.port = self.url.port_or_known_default().map(i64::from),
            url.full = self.url.origin().ascii_serialization(),
            http.response.status_code = Empty,
            error.r#type = Empty,
            otel.status_code = Empty,
        );
        let receiver_sees = span.in_scope(current).filter(|_| is_on()).or(alert.trace);
        if let Some(trace) = receiver_sees {
            request = request.header(TRACEPARENT, trace.to_string());
        }
        let answered = request.body(body).send().instrument(span.clone()).await;
        let response = answered.map_err(|error| {
            span.record("error.type", "unanswered");
            span.record("otel.status_code", "error");
            Failure::retry(with_causes(&error.without_url()))
        })?;
        span.record(
            "http.response.status_code",
            i64::from(response.status().as_u16()),
        );
        let verdict = classify(response.status(), response.headers(), now);
        if verdict.is_err() {
            span.record("error.type", response.status().as_str());
            span.record("otel.status_code", "error");
        }
        read_up(response).await;
        verdict
    }
}

/// What the receiver's answer asks for. A redirect is the receiver's matter, not this alert's: it waits for somebody
/// to set the new URL.
fn classify(status: StatusCode, headers: &HeaderMap, now: DateTime<Utc>) -> Result<(), Failure> {
    match status.as_u16() {
        200..=299 => Ok(()),
        300..=399 => Err(Failure::retry(format!(
            "HTTP {status}: redirects are not followed; set the URL it leads to"
        ))),
        // The alert is as good as any: whoever sends it is not let in.
        401 | 403 | 407 => Err(Failure::retry(format!(
            "HTTP {status}: the receiver does not accept who sends: see its secret and the sink's headers"
        ))),
        408 | 425 | 429 | 500.. => Err(Failure::Retry {
            reason: format!("HTTP {status}"),
            after: retry_after(headers, now),
        }),
        ..=199 | 400..=499 => Err(Failure::Refuse {
            reason: format!("HTTP {status}"),
        }),
    }
}

/// `Retry-After` of RFC 9110, section 10.2.3: seconds, or a date.
fn retry_after(headers: &HeaderMap, now: DateTime<Utc>) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let until = DateTime::parse_from_rfc2822(text).ok()?;
    (until.to_utc() - now).to_std().ok()
}

/// An answer that was read to its end leaves its connection for the next request.
async fn read_up(mut response: Response) {
    let mut read = 0;
    while let Ok(Some(chunk)) = response.chunk().await {
        read += chunk.len();
        if read > ANSWER_READ {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(status: u16) -> &'static str {
        let status = StatusCode::from_u16(status).unwrap();
        match classify(status, &HeaderMap::new(), Utc::now()) {
            Ok(()) => "delivered",
            Err(Failure::Retry { .. }) => "retry",
            Err(Failure::Refuse { .. }) => "refuse",
        }
    }

    #[test]
    fn every_status_means_one_of_three_things() {
        for status in 100..1_000 {
            let expected = match status {
                200..=299 => "delivered",
                401 | 403 | 407 | 408 | 425 | 429 | 300..=399 | 500.. => "retry",
                _ => "refuse",
            };
            assert_eq!(verdict(status), expected, "{status}");
        }
    }

    #[test]
    fn a_receiver_may_ask_for_a_pause_in_seconds_or_by_a_date() {
        let now = DateTime::parse_from_rfc3339("2015-10-21T07:27:50Z")
            .unwrap()
            .to_utc();
        let asked = |text: &str| {
            let headers = HeaderMap::from_iter([(RETRY_AFTER, text.parse().unwrap())]);
            retry_after(&headers, now)
        };
        assert_eq!(asked("120"), Some(Duration::from_secs(120)));
        assert_eq!(
            asked("Wed, 21 Oct 2015 07:28:00 GMT"),
            Some(Duration::from_secs(10))
        );
        assert_eq!(asked("Wed, 21 Oct 2015 07:27:00 GMT"), None);
        assert_eq!(asked("soon"), None);
    }
}
