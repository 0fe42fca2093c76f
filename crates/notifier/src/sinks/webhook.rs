//! A signed POST by Standard Webhooks, and the meaning of each answer.
//!
//! Invariant: attempts and redeliveries of one alert carry the same `webhook-id`. An alert leaves this machine only
//! over TLS to the host that was configured: certificates are checked and redirects are not followed.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

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

/// Longest part of an answer that is read. After a longer answer the connection is closed instead of reused.
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
        let now = SystemTime::now();
        let timestamp = seconds(now);
        let signature = self
            .signer
            .sign(&id, timestamp, &body)
            .map_err(|error| Failure::retry(error.to_string()))?;
        let mut request = self
            .client
            .post(self.url.clone())
            .header(CONTENT_TYPE, "application/json")
            .header("webhook-id", &id)
            .header("webhook-timestamp", timestamp)
            .header("webhook-signature", signature);
        // The path may hold a token, so that neither spans nor errors contain it.
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
        let context = span.in_scope(current).filter(|_| is_on()).or(alert.trace);
        if let Some(trace) = context {
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
        let result = classify(response.status(), response.headers(), now);
        if result.is_err() {
            span.record("error.type", response.status().as_str());
            span.record("otel.status_code", "error");
        }
        drain(response).await;
        result
    }
}

/// What to do after an answer. A redirect is retried: the alert waits until an operator sets the new URL.
fn classify(status: StatusCode, headers: &HeaderMap, now: SystemTime) -> Result<(), Failure> {
    match status.as_u16() {
        200..=299 => Ok(()),
        300..=399 => Err(Failure::retry(format!(
            "HTTP {status}: redirects are not followed; set the URL it leads to"
        ))),
        // The receiver rejects the sender, not this alert.
        401 | 403 | 407 => Err(Failure::retry(format!(
            "HTTP {status}: the receiver does not accept the sender: check its secret and the headers of the sink"
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
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let until = httpdate::parse_http_date(text).ok()?;
    until.duration_since(now).ok()
}

/// Seconds since 1970.
fn seconds(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// Reads the answer to its end, so that the connection can be reused.
async fn drain(mut response: Response) {
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

    fn result(status: u16) -> &'static str {
        let status = StatusCode::from_u16(status).unwrap();
        match classify(status, &HeaderMap::new(), SystemTime::now()) {
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
            assert_eq!(result(status), expected, "{status}");
        }
    }

    #[test]
    fn a_receiver_may_ask_for_a_pause_in_seconds_or_by_a_date() {
        let now = UNIX_EPOCH + Duration::from_secs(1_445_412_470);
        let asked = |text: &str| {
            let headers = HeaderMap::from_iter([(RETRY_AFTER, text.parse().unwrap())]);
            retry_after(&headers, now)
        };
        assert_eq!(asked("120"), Some(Duration::from_secs(120)));
        assert_eq!(
            asked("Wed, 21 Oct 2015 07:28:00 GMT"),
            Some(Duration::from_secs(10))
        );
        // The two obsolete forms of RFC 9110, section 5.6.7.
        assert_eq!(
            asked("Wednesday, 21-Oct-15 07:28:00 GMT"),
            Some(Duration::from_secs(10))
        );
        assert_eq!(
            asked("Wed Oct 21 07:28:00 2015"),
            Some(Duration::from_secs(10))
        );
        assert_eq!(asked("Wed, 21 Oct 2015 07:27:00 GMT"), None);
        assert_eq!(asked("soon"), None);
    }
}
