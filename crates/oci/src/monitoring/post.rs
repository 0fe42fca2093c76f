//! Posts batches to Monitoring: 50 streams a call, few calls a second. Points are kept during an outage of less than two
//! hours; older ones are refused by Monitoring.

use std::collections::VecDeque;
use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use governor::clock::Clock as _;
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use metrics::counter;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;
use tollgate_service::resilience::{CallFailure, CallPolicy, Dependency, DependencyConfig};

use super::streams::Points;
use crate::config::OciConfig;
use crate::{Client, OciFailure};
use tollgate_service::telemetry::exposition::Labels;

/// Most streams in a call.
const STREAMS_A_CALL: usize = 50;
/// Points are dropped after this time: Monitoring refuses points older than two hours.
const KEPT: Duration = Duration::from_secs(110 * 60);
const PATH: &str = "/20180401/metrics";

/// <https://docs.oracle.com/iaas/api/#/en/monitoring/20180401/datatypes/MetricDataDetails>
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct MetricData {
    namespace: String,
    compartment_id: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    resource_group: String,
    name: &'static str,
    dimensions: Labels,
    metadata: Metadata,
    datapoints: Vec<Datapoint>,
}

#[derive(Debug, Clone, Serialize)]
struct Metadata {
    unit: &'static str,
}

#[derive(Debug, Clone, Serialize)]
struct Datapoint {
    timestamp: String,
    value: f64,
    count: u64,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Details<'a> {
    metric_data: &'a [MetricData],
    /// A refused stream does not affect the others.
    batch_atomicity: &'static str,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Answer {
    failed_metrics_count: u64,
    failed_metrics: Vec<Failed>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Failed {
    message: String,
}

struct Batch {
    data: Vec<MetricData>,
    made: Instant,
}

/// Sends batches in their order.
pub(super) struct Poster {
    client: Client,
    dependency: Dependency,
    pace: DefaultDirectRateLimiter,
    queue: VecDeque<Batch>,
    config: OciConfig,
    service: &'static str,
}

impl Poster {
    pub(super) fn new(client: Client, config: &OciConfig, service: &'static str) -> Self {
        let calls = NonZeroU32::new(config.monitoring.calls_per_second).unwrap_or(NonZeroU32::MIN);
        let limits = DependencyConfig::new(config.timeout() + Duration::from_secs(1), 1);
        Self {
            client,
            dependency: Dependency::new("oci monitoring", &limits, None),
            // No burst: Monitoring counts calls a second over the whole tenancy.
            pace: RateLimiter::direct(Quota::per_second(calls).allow_burst(NonZeroU32::MIN)),
            queue: VecDeque::new(),
            config: config.clone(),
            service,
        }
    }

    /// Queues the points of one interval.
    pub(super) fn add(&mut self, points: Vec<Points>) {
        let settings = &self.config.monitoring;
        let now = chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Millis, true);
        let data: Vec<MetricData> = points
            .into_iter()
            .map(|points| {
                let mut dimensions = points.dimensions;
                dimensions.insert("service".to_owned(), self.service.to_owned());
                MetricData {
                    namespace: settings.namespace.clone(),
                    compartment_id: settings.compartment.clone(),
                    resource_group: settings.resource_group.clone(),
                    name: points.name,
                    dimensions,
                    metadata: Metadata { unit: points.unit },
                    datapoints: points
                        .points
                        .into_iter()
                        .map(|(value, count)| Datapoint {
                            timestamp: now.clone(),
                            value,
                            count,
                        })
                        .collect(),
                }
            })
            .collect();
        self.queue
            .extend(data.chunks(STREAMS_A_CALL).map(|chunk| Batch {
                data: chunk.to_vec(),
                made: Instant::now(),
            }));
    }

    /// Posts the queue. Ends early if Monitoring does not answer and `over` is cancelled.
    pub(super) async fn send(&mut self, over: &CancellationToken) {
        while let Some(batch) = self.queue.front() {
            let streams = batch.data.len() as u64;
            if batch.made.elapsed() > KEPT {
                tracing::warn!(streams, "metrics for Oracle Cloud are too old to be sent");
                count("dropped", streams);
                self.queue.pop_front();
                continue;
            }
            let details = Details {
                metric_data: &batch.data,
                batch_atomicity: "NON_ATOMIC",
            };
            let policy = CallPolicy::unlimited().cancelled_by(over.clone());
            let call = self.dependency.call(policy, || async {
                self.wait_for_turn().await;
                self.client.post(PATH, &details).await
            });
            match call.await.1 {
                Ok(answer) => match serde_json::from_value(answer) {
                    Ok(answer) => report(streams, answer),
                    Err(_) => {
                        tracing::warn!(
                            "the answer to metrics is not that of Monitoring; they are sent again"
                        );
                        return;
                    }
                },
                Err(CallFailure::Rejected(failure)) => refused(streams, &failure),
                // It is posted in the next interval.
                Err(CallFailure::Unavailable(_)) => return,
            }
            self.queue.pop_front();
        }
    }

    async fn wait_for_turn(&self) {
        while let Err(early) = self.pace.check() {
            let wait = early.wait_time_from(self.pace.clock().now());
            tokio::time::sleep(wait).await;
        }
    }
}

/// An answer with 2xx may contain refusals. They would be refused again, so that they are logged and counted.
fn report(streams: u64, answer: Answer) {
    let failed = answer.failed_metrics_count.min(streams);
    count("posted", streams - failed);
    if failed > 0 {
        let reason = answer.failed_metrics.into_iter().next().unwrap_or_default();
        tracing::warn!(
            failed,
            reason = reason.message,
            "metrics were refused by Oracle Cloud"
        );
        count("refused", failed);
    }
}

fn refused(streams: u64, failure: &OciFailure) {
    tracing::warn!(%failure, streams, "metrics were refused by Oracle Cloud");
    count("refused", streams);
}

fn count(outcome: &'static str, streams: u64) {
    counter!("tollgate_oci_metric_streams_total", "outcome" => outcome).increment(streams);
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use axum::Router;
    use axum::http::StatusCode;
    use axum::response::IntoResponse;
    use axum::routing::post;
    use openssl::rsa::Rsa;
    use serde_json::{Value, json};
    use tollgate_service::Secret;

    use super::*;
    use crate::client::Endpoint;
    use crate::config::Auth;
    use crate::credentials::Credentials;

    type Calls = Arc<Mutex<Vec<(Instant, Value)>>>;

    /// Answers 503 as often as the test sets, then accepts calls and refuses one stream of each.
    async fn monitoring(failures: usize) -> (String, Calls) {
        let calls = Calls::default();
        let seen = Arc::clone(&calls);
        let app = Router::new().route(
            PATH,
            post(async move |body: String| {
                let mut seen = seen.lock().unwrap();
                seen.push((Instant::now(), serde_json::from_str(&body).unwrap()));
                if seen.len() <= failures {
                    return StatusCode::SERVICE_UNAVAILABLE.into_response();
                }
                let failed = json!({"failedMetricsCount": 1, "failedMetrics": [{"message": "no", "metricData": {}}]});
                axum::Json(failed).into_response()
            }),
        );
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async { axum::serve(listener, app).await });
        (format!("http://{address}"), calls)
    }

    fn poster(endpoint: String) -> Poster {
        let key = Rsa::generate(2048).unwrap().private_key_to_pem().unwrap();
        let mut config = OciConfig {
            auth: Auth::ApiKey,
            private_key: Secret::new(String::from_utf8(key).unwrap()),
            ..OciConfig::default()
        };
        config.monitoring.compartment = "c".to_owned();
        config.monitoring.calls_per_second = 10;
        let credentials = Arc::new(Credentials::new(&config));
        let client = Client::new(credentials, Endpoint::Given(endpoint), config.timeout());
        Poster::new(client, &config, "scorer")
    }

    fn points(number: usize) -> Vec<Points> {
        (0..number)
            .map(|index| Points {
                name: "decisions",
                unit: "count",
                dimensions: Labels::from([("n".to_owned(), index.to_string())]),
                points: vec![(1.0, 1)],
            })
            .collect()
    }

    fn streams(call: &Value) -> usize {
        call["metricData"].as_array().unwrap().len()
    }

    #[tokio::test]
    async fn no_call_holds_more_than_fifty_streams_and_none_comes_sooner_than_it_may() {
        let (endpoint, calls) = monitoring(0).await;
        let mut poster = poster(endpoint);
        poster.add(points(220));
        poster.send(&CancellationToken::new()).await;
        let calls = calls.lock().unwrap();
        let sizes: Vec<usize> = calls.iter().map(|(_, call)| streams(call)).collect();
        // A stream that was refused within an answer of 200 is not sent again.
        assert_eq!(sizes, [50, 50, 50, 50, 20]);
        let took = calls[4].0 - calls[0].0;
        assert!(
            took >= Duration::from_millis(300),
            "{took:?} for 5 calls at 10 a second"
        );
    }

    #[tokio::test]
    async fn what_was_not_answered_is_sent_again_and_what_nobody_waits_for_at_the_next_look() {
        let (endpoint, calls) = monitoring(2).await;
        let mut poster = poster(endpoint);
        poster.add(points(1));
        let over = CancellationToken::new();
        over.cancel();
        poster.send(&over).await;
        assert_eq!(poster.queue.len(), 1);
        poster.add(points(2));
        poster.send(&CancellationToken::new()).await;
        assert!(poster.queue.is_empty());
        let calls = calls.lock().unwrap();
        let sizes: Vec<usize> = calls.iter().map(|(_, call)| streams(call)).collect();
        assert_eq!(sizes, [1, 1, 1, 2]);
    }
}
