//! Writing to Kafka.
//!
//! There is one request in flight for each broker, so that a request which is retried cannot be written after a later one.
//! Idempotent producers are not needed.

use std::sync::Arc;
use std::time::Duration;

use rdkafka::client::ClientContext;
use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer as _, ProducerContext, ThreadedProducer};
use rdkafka::statistics::Statistics;
use tollgate_types::headers::TRACEPARENT;
use tollgate_types::{Partitioner, TraceContext};

use super::{reports, settings, statistics};
use crate::acks::{Acks, DeliveryFailure};
use crate::backend::{RecordWriter, WriterOptions};
use crate::config::KafkaConfig;
use crate::error::LogError;
use crate::producer::{ProducerRecord, SendError};

/// Callbacks of the client.
#[derive(Debug)]
struct Context {
    name: &'static str,
}

impl ClientContext for Context {
    fn stats(&self, statistics: Statistics) {
        statistics::record(self.name, "producer", &statistics);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        // What cannot be delivered is reported by its delivery.
        reports::client_error(&error, reason);
    }

    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        reports::log(level, facility, line);
    }
}

impl ProducerContext for Context {
    type DeliveryOpaque = Arc<Acks>;

    fn delivery(&self, result: &DeliveryResult<'_>, acks: Arc<Acks>) {
        use rdkafka::Message as _;
        let failure = result.as_ref().err().map(|(error, message)| {
            metrics::counter!("tollgate_log_delivery_failures_total").increment(1);
            DeliveryFailure {
                topic: message.topic().to_owned(),
                reason: error.to_string(),
            }
        });
        acks.end(failure);
    }
}

/// A client that writes.
pub(super) struct KafkaWriter(ThreadedProducer<Context>);

impl std::fmt::Debug for KafkaWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KafkaWriter").finish_non_exhaustive()
    }
}

impl KafkaWriter {
    pub(super) fn new(
        config: &KafkaConfig,
        brokers: &str,
        options: WriterOptions,
    ) -> Result<Self, LogError> {
        let mut client = settings::client_config(config, brokers);
        let partitioner = match config.partitioner {
            Partitioner::Murmur2 => "murmur2",
            Partitioner::Crc32 => "consistent",
        };
        // 0 is without end.
        let timeout = options
            .delivery_timeout
            .map_or(0, |timeout| timeout.as_millis());
        client
            .set("acks", "all")
            .set("statistics.interval.ms", statistics::INTERVAL_MS)
            .set("partitioner", partitioner)
            .set("max.in.flight.requests.per.connection", "1")
            .set("linger.ms", config.linger_ms.to_string())
            .set("message.timeout.ms", timeout.to_string())
            .set("compression.type", &config.compression);
        for (name, value) in [
            ("queue.buffering.max.messages", "200000"),
            ("queue.buffering.max.kbytes", "131072"),
        ] {
            if !config.properties.contains_key(name) {
                client.set(name, value);
            }
        }
        let context = Context { name: options.name };
        ThreadedProducer::from_config_and_context(&client, context)
            .map(Self)
            .map_err(LogError::client("cannot make a producer"))
    }
}

impl RecordWriter for KafkaWriter {
    fn write(
        &self,
        record: &ProducerRecord<'_>,
        trace: Option<TraceContext>,
        acks: &Arc<Acks>,
    ) -> Result<(), SendError> {
        acks.begin();
        let mut out =
            BaseRecord::with_opaque_to(record.topic, Arc::clone(acks)).payload(record.payload);
        if let Some(key) = record.key {
            out = out.key(key);
        }
        if let Some(partition) = record.partition {
            out = out.partition(partition);
        }
        if let Some(timestamp) = record.timestamp_ms {
            out = out.timestamp(timestamp);
        }
        if trace.is_some() || !record.headers.is_empty() {
            let traceparent = trace.map(TraceContext::to_traceparent);
            let traceparent = traceparent.as_ref().map(<[u8; _]>::as_slice);
            let headers = OwnedHeaders::new_with_capacity(record.headers.len() + 1);
            let traceparent = traceparent.map(|value| (TRACEPARENT, Some(value)));
            // Last, for of several the last counts.
            let headers = record
                .headers
                .iter()
                .chain(&traceparent)
                .fold(headers, |all, (key, value)| {
                    all.insert(Header { key, value: *value })
                });
            out = out.headers(headers);
        }
        self.0.send(out).map_err(|(error, _)| {
            acks.undo();
            match error {
                KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull) => SendError::Full,
                KafkaError::MessageProduction(RDKafkaErrorCode::MessageSizeTooLarge) => {
                    SendError::TooLarge
                }
                other => SendError::Failed(other.to_string()),
            }
        })
    }

    fn flush(&self, timeout: Duration) -> Result<(), LogError> {
        self.0
            .flush(timeout)
            .map_err(LogError::client("not everything was acknowledged"))
    }
}
