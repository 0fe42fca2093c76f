//! A message to a topic of Oracle's Notifications, with one alert or with many.

mod digest;

use std::sync::Arc;
use std::time::Duration;

use tollgate_oci::{Cloud, Notifications, OciFailure};

use super::Failure;
use crate::alert::Alert;
use crate::config::OciSpec;

/// Wait before the retry after a topic's limit was exceeded.
const BUSY: Duration = Duration::from_secs(2);

#[derive(Debug)]
pub(crate) struct OciSink {
    notifications: Notifications,
    topic: String,
    decisions_url: String,
}

impl OciSink {
    pub(super) fn new(spec: &OciSpec, cloud: &Cloud) -> Self {
        Self {
            notifications: cloud.notifications(),
            topic: spec.topic.clone(),
            decisions_url: spec.decisions_url.clone(),
        }
    }

    /// A message without an answer is sent again: the API has no idempotency token.
    pub(super) async fn deliver(&self, alerts: &[Arc<Alert>]) -> Result<(), Failure> {
        let (title, body) = match alerts {
            [alert] => digest::single(alert),
            many => digest::of(many, &self.decisions_url),
        };
        let published = self.notifications.publish(&self.topic, &title, &body).await;
        published.map(drop).map_err(|failure: OciFailure| {
            if failure.is_refusal() {
                Failure::Refuse {
                    reason: failure.to_string(),
                }
            } else {
                Failure::Retry {
                    // The SDK does not expose `Retry-After`.
                    after: failure.is_busy().then_some(BUSY),
                    reason: failure.to_string(),
                }
            }
        })
    }
}
