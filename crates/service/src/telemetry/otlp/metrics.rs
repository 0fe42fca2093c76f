//! Exports all metrics at a fixed interval.

use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ::metrics::{Counter, counter};
use anyhow::Context as _;
use opentelemetry_http::{HttpClient as _, Request};
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_client::MetricsServiceClient;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value};
use opentelemetry_proto::tonic::metrics::v1::{ResourceMetrics, ScopeMetrics};
use opentelemetry_proto::tonic::resource::v1::Resource as ProtoResource;
use opentelemetry_sdk::Resource;
use prost::Message as _;
use tonic::metadata::MetadataMap;
use tonic::transport::Channel;

use super::convert::{self, Times};
use super::{queue, transport};
use crate::telemetry::config::{OtlpProtocol, Target};
use crate::telemetry::metrics_text;

/// The task that exports.
#[derive(Debug)]
pub(super) struct MetricsSender {
    task: tokio::task::JoinHandle<()>,
    exporter: Arc<Exporter>,
}

#[derive(Debug)]
enum Transport {
    Http(transport::HttpSender),
    Grpc(Box<(MetricsServiceClient<Channel>, MetadataMap)>),
}

struct Exporter {
    transport: Transport,
    target: Target,
    resource: ProtoResource,
    began: SystemTime,
    sent: Counter,
    failed: Counter,
    logged: Mutex<Option<std::time::Instant>>,
}

impl std::fmt::Debug for Exporter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Exporter")
            .field("transport", &self.transport)
            .finish_non_exhaustive()
    }
}

impl MetricsSender {
    pub(super) fn start(
        clients: &mut transport::Clients,
        target: &Target,
        resource: &Resource,
        every: Duration,
    ) -> anyhow::Result<Self> {
        let transport = match target.protocol {
            OtlpProtocol::HttpProtobuf => {
                Transport::Http(clients.sender(target, &transport::Cause::default())?)
            }
            OtlpProtocol::Grpc => {
                let client = MetricsServiceClient::new(transport::channel(target)?);
                Transport::Grpc(Box::new((client, transport::metadata(target)?)))
            }
        };
        let items = |outcome: &'static str| counter!("tollgate_telemetry_items_total", "signal" => "metrics", "outcome" => outcome);
        let exporter = Arc::new(Exporter {
            transport,
            target: target.clone(),
            resource: proto(resource),
            began: SystemTime::now(),
            sent: items("sent"),
            failed: items("failed"),
            logged: Mutex::default(),
        });
        let sending = Arc::clone(&exporter);
        let task = tokio::spawn(async move {
            loop {
                tokio::time::sleep(every).await;
                sending.export().await;
            }
        });
        Ok(Self { task, exporter })
    }

    /// Sends them a last time.
    pub(super) async fn stop(self, timeout: Duration) {
        self.task.abort();
        let _ = tokio::time::timeout(timeout, self.exporter.export()).await;
    }
}

impl Exporter {
    async fn export(&self) {
        let times = Times {
            start: nanos(self.began),
            now: nanos(SystemTime::now()),
        };
        let metrics = convert::metrics(&metrics_text(), times);
        let number = metrics.len() as u64;
        let request = ExportMetricsServiceRequest {
            resource_metrics: vec![ResourceMetrics {
                resource: Some(self.resource.clone()),
                scope_metrics: vec![ScopeMetrics {
                    scope: Some(InstrumentationScope {
                        name: "tollgate".to_owned(),
                        version: env!("CARGO_PKG_VERSION").to_owned(),
                        ..InstrumentationScope::default()
                    }),
                    metrics,
                    ..ScopeMetrics::default()
                }],
                ..ResourceMetrics::default()
            }],
        };
        match self.send(request).await {
            Ok(()) => self.sent.increment(number),
            Err(error) => {
                self.failed.increment(number);
                queue::failed("metrics", &format!("{error:#}"), &self.logged);
            }
        }
    }

    async fn send(&self, body: ExportMetricsServiceRequest) -> anyhow::Result<()> {
        match &self.transport {
            Transport::Http(sender) => {
                let mut request = Request::post(self.target.url.as_str())
                    .header("content-type", "application/x-protobuf");
                for (name, value) in transport::headers(&self.target) {
                    request = request.header(name, value);
                }
                let request = request
                    .body(body.encode_to_vec().into())
                    .context("otlp_headers")?;
                let answer = sender
                    .send_bytes(request)
                    .await
                    .map_err(|error| anyhow::anyhow!(error))?;
                anyhow::ensure!(answer.status().is_success(), "HTTP {}", answer.status());
            }
            Transport::Grpc(client) => {
                let (client, metadata) = &**client;
                let mut request = tonic::Request::new(body);
                *request.metadata_mut() = metadata.clone();
                client.clone().export(request).await?;
            }
        }
        Ok(())
    }
}

fn nanos(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

fn proto(resource: &Resource) -> ProtoResource {
    let attributes = resource.iter().map(|(key, value)| KeyValue {
        key: key.to_string(),
        value: Some(AnyValue {
            value: Some(any_value::Value::StringValue(value.to_string())),
        }),
        ..KeyValue::default()
    });
    ProtoResource {
        attributes: attributes.collect(),
        ..ProtoResource::default()
    }
}
