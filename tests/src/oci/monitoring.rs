//! `PostMetricData` of Monitoring: `POST /20180401/metrics`.
//!
//! Limits: 50 unique metric streams a call, 50 calls a second and tenancy
//! (`MonitoringClient.post_metric_data` of Oracle's SDKs).

use std::collections::HashSet;
use std::sync::{Arc, Mutex};

use axum::body::Bytes;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use axum::{Json, Router};
use chrono::{DateTime, TimeDelta, Utc};
use serde::Deserialize;
use serde_json::{Value, json};

use super::answer::{
    cannot_parse, invalid_parameter, missing_parameter, not_json, too_many_requests,
};
use super::clock::Window;
use super::core::Core;
use super::metric::{MetricDetails, StoredMetric};
use super::store::{Kept, lock};

const STREAMS_PER_CALL: usize = 50;
const CALLS_PER_SECOND: usize = 50;

/// What was posted, and how much of the limit is used.
#[derive(Debug)]
pub(super) struct Monitoring {
    window: Mutex<Window>,
    metrics: Mutex<Kept<StoredMetric>>,
}

impl Default for Monitoring {
    fn default() -> Self {
        Self {
            window: Mutex::new(Window::new(TimeDelta::seconds(1))),
            metrics: Mutex::default(),
        }
    }
}

impl Monitoring {
    /// The latest 10,000, oldest first.
    pub(super) fn metrics(&self) -> Vec<StoredMetric> {
        lock(&self.metrics).all()
    }

    /// Whether one more call may pass.
    pub(super) fn admit(&self, now: DateTime<Utc>) -> bool {
        lock(&self.window).admit(now, CALLS_PER_SECOND)
    }
}

pub(super) fn routes() -> Router<Arc<Core>> {
    Router::new().route("/20180401/metrics", post(post_metric_data))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Details {
    metric_data: Option<Vec<Value>>,
    #[serde(default)]
    batch_atomicity: Atomicity,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
enum Atomicity {
    /// What is good is kept, where anything is.
    #[default]
    NonAtomic,
    Atomic,
}

async fn post_metric_data(
    State(core): State<Arc<Core>>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let now = core.clock.now();
    if !core.monitoring.admit(now) {
        return too_many_requests(&format!("more than {CALLS_PER_SECOND} calls a second"));
    }
    let header = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let content_type = header("content-type").unwrap_or_default();
    if content_type.split(';').next().map(str::trim) != Some("application/json") {
        return not_json(content_type);
    }
    // Oracle takes gzip; here nothing unpacks it.
    if let Some(encoding) = header("content-encoding") {
        return invalid_parameter(&format!(
            "content-encoding: {encoding:?} is not stood in for"
        ));
    }
    match store(&core.monitoring, &body, now) {
        Ok(failed) => {
            let count = failed.len();
            Json(json!({ "failedMetricsCount": count, "failedMetrics": failed })).into_response()
        }
        Err(refusal) => *refusal,
    }
}

/// Keeps the good metrics of a call. The others, each with what is wrong with it.
fn store(
    monitoring: &Monitoring,
    body: &[u8],
    now: DateTime<Utc>,
) -> Result<Vec<Value>, Box<Response>> {
    let unparsable = |error: serde_json::Error| cannot_parse(&format!("body: {error}"));
    let details: Details = serde_json::from_slice(body).map_err(unparsable)?;
    let posted = details.metric_data.unwrap_or_default();
    if posted.is_empty() {
        return Err(Box::new(missing_parameter("metricData")));
    }
    let (mut good, mut failed, mut streams) = (Vec::new(), Vec::new(), HashSet::new());
    for metric in posted {
        let details = MetricDetails::deserialize(&metric).map_err(unparsable)?;
        streams.insert(details.stream());
        match details.check(now) {
            Ok(metric) => good.push(metric),
            Err(message) => failed.push(json!({ "message": message, "metricData": metric })),
        }
    }
    // Which code Oracle has for this is not documented.
    if streams.len() > STREAMS_PER_CALL {
        return Err(Box::new(invalid_parameter(&format!(
            "metricData: {} unique metric streams, {STREAMS_PER_CALL} are allowed",
            streams.len()
        ))));
    }
    // "A partial pass: at least one metric object in the request must pass", says the SDK of NON_ATOMIC.
    let passes = match details.batch_atomicity {
        Atomicity::NonAtomic => !good.is_empty(),
        Atomicity::Atomic => failed.is_empty(),
    };
    if !passes {
        let messages: Vec<&str> = failed
            .iter()
            .filter_map(|one| one["message"].as_str())
            .collect();
        return Err(Box::new(invalid_parameter(&messages.join("; "))));
    }
    let mut metrics = lock(&monitoring.metrics);
    for metric in good {
        metrics.push(metric);
    }
    Ok(failed)
}
