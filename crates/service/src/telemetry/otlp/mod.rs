//! Exports to an OTLP endpoint: <https://opentelemetry.io/docs/specs/otlp/>.
//!
//! Invariant: no caller waits for an export. Spans and log lines wait in queues of a fixed length; further ones are dropped
//! and counted, and a warning is logged once a minute.

mod convert;
mod metrics;
mod queue;
mod transport;

use std::time::Duration;

use anyhow::Context as _;
use opentelemetry::InstrumentationScope;
use opentelemetry::logs::LogRecord as _;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::{
    LogExporter, Protocol, SpanExporter, WithExportConfig as _, WithHttpConfig as _,
    WithTonicConfig as _,
};
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::logs::{BatchLogProcessor, LogProcessor, SdkLogRecord, SdkLoggerProvider};
use opentelemetry_sdk::trace::{Sampler, SdkTracer, SdkTracerProvider, SpanProcessor as _};

use super::config::{OtlpProtocol, Target, Targets};
use super::resource::resource;
use super::trace;
use metrics::MetricsSender;
use queue::Counted;
pub(super) use queue::SpanQueue;
use transport::{Cause, Clients};

/// Sets the time of a log record to the time at which it was observed, and removes its event name, which is a file and a
/// line.
#[derive(Debug)]
struct ObservedTime;

impl LogProcessor for ObservedTime {
    fn emit(&self, record: &mut SdkLogRecord, _: &InstrumentationScope) {
        if let Some(seen) = record.observed_timestamp() {
            record.set_timestamp(seen);
        }
        record.set_event_name("");
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }
}

/// The exporters.
#[derive(Debug)]
pub(super) struct Otlp {
    spans: Option<(SpanQueue, SdkTracer)>,
    logs: Option<SdkLoggerProvider>,
    metrics: Option<MetricsSender>,
}

impl Otlp {
    /// Starts the exporters. Must be called within a runtime that outlives them.
    pub(super) fn start(service: &str, targets: Targets) -> anyhow::Result<Self> {
        let resource = resource(service);
        let mut clients = Clients::default();
        let spans = match &targets.traces {
            None => None,
            Some(target) => {
                let cause = Cause::default();
                let exporter = span_exporter(&mut clients, target, &cause)
                    .context("telemetry.otlp: traces")?;
                let queue = SpanQueue::new(exporter, cause, &resource);
                let ratio = targets.trace_ratio;
                let provider = SdkTracerProvider::builder()
                    .with_span_processor(queue.clone())
                    .with_sampler(Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(
                        ratio,
                    ))))
                    .with_resource(resource.clone())
                    .build();
                trace::start(queue.clone(), ratio);
                Some((queue, provider.tracer("tollgate")))
            }
        };
        let logs = match &targets.logs {
            None => None,
            Some(target) => {
                let cause = Cause::default();
                let exporter =
                    log_exporter(&mut clients, target, &cause).context("telemetry.otlp: logs")?;
                let exporter = Counted::new("logs", exporter, cause);
                let processor = BatchLogProcessor::builder(exporter).build();
                let provider = SdkLoggerProvider::builder()
                    .with_log_processor(ObservedTime)
                    .with_log_processor(processor)
                    .with_resource(resource.clone());
                Some(provider.build())
            }
        };
        let metrics = match &targets.metrics {
            None => None,
            Some(target) => Some(
                MetricsSender::start(&mut clients, target, &resource, targets.metrics_interval)
                    .context("telemetry.otlp: metrics")?,
            ),
        };
        Ok(Self {
            spans,
            logs,
            metrics,
        })
    }

    /// The tracer for `tracing` spans.
    pub(super) fn tracer(&self) -> Option<SdkTracer> {
        self.spans.as_ref().map(|(_, tracer)| tracer.clone())
    }

    pub(super) const fn logs(&self) -> Option<&SdkLoggerProvider> {
        self.logs.as_ref()
    }

    /// Exports what is queued, for at most `timeout`.
    pub(super) async fn stop(self, timeout: Duration) {
        let Self {
            spans,
            logs,
            metrics,
        } = self;
        // Their threads wait for I/O of this runtime, so that they must not block it.
        let queues = tokio::task::spawn_blocking(move || {
            if let Some((queue, _)) = spans {
                let _ = queue.shutdown_with_timeout(timeout);
            }
            if let Some(logs) = logs {
                let _ = logs.shutdown_with_timeout(timeout);
            }
        });
        let metrics = async {
            if let Some(metrics) = metrics {
                metrics.stop(timeout).await;
            }
        };
        // Items that could not be exported have been counted and logged.
        let _ = tokio::join!(queues, metrics);
    }
}

fn span_exporter(
    clients: &mut Clients,
    target: &Target,
    cause: &Cause,
) -> anyhow::Result<SpanExporter> {
    Ok(match target.protocol {
        OtlpProtocol::HttpProtobuf => SpanExporter::builder()
            .with_http()
            .with_http_client(clients.sender(target, cause)?)
            .with_headers(transport::headers(target))
            .with_protocol(Protocol::HttpBinary)
            .with_endpoint(target.url.as_str())
            .with_timeout(target.timeout)
            .build()?,
        OtlpProtocol::Grpc => SpanExporter::builder()
            .with_tonic()
            .with_channel(transport::channel(target)?)
            .with_metadata(transport::metadata(target)?)
            .with_timeout(target.timeout)
            .build()?,
    })
}

fn log_exporter(
    clients: &mut Clients,
    target: &Target,
    cause: &Cause,
) -> anyhow::Result<LogExporter> {
    Ok(match target.protocol {
        OtlpProtocol::HttpProtobuf => LogExporter::builder()
            .with_http()
            .with_http_client(clients.sender(target, cause)?)
            .with_headers(transport::headers(target))
            .with_protocol(Protocol::HttpBinary)
            .with_endpoint(target.url.as_str())
            .with_timeout(target.timeout)
            .build()?,
        OtlpProtocol::Grpc => LogExporter::builder()
            .with_tonic()
            .with_channel(transport::channel(target)?)
            .with_metadata(transport::metadata(target)?)
            .with_timeout(target.timeout)
            .build()?,
    })
}
