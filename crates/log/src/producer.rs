//! Writing to the log: in order, acknowledged by every in-sync replica, never silently lost.
//!
//! Sends are collected under one [`Acks`], which calls back once when the last of them is acknowledged or has failed.
//! There is one request in flight a broker, so a retry never overtakes; idempotent producers are not relied on.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::error::{KafkaError as ClientError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer as _, ProducerContext, ThreadedProducer};
use rdkafka::statistics::Statistics;

use tollgate_types::headers::TRACEPARENT;
use tollgate_types::{TRACEPARENT_BYTES, TraceContext};

use super::{EmbeddedLog, Kafka, KafkaError, reports, spans, statistics};
use tollgate_service::telemetry::trace::Span;

/// A record to write.
#[derive(Debug, Clone, Copy)]
pub struct ProducerRecord<'a> {
    /// Topic to write to.
    pub topic: &'a str,
    /// Partition to write to; none leaves it to the configured partitioner and the key.
    pub partition: Option<i32>,
    /// The key.
    pub key: Option<&'a [u8]>,
    /// The payload.
    pub payload: &'a [u8],
    /// The record's time, milliseconds since 1970; none is now.
    pub timestamp_ms: Option<i64>,
    /// Headers, in order. `traceparent` is not among them: see [`ProducerRecord::under`].
    pub headers: &'a [(&'a str, Option<&'a [u8]>)],
    /// Where in a trace it is sent. If the trace is kept, it gets a span of its own, and carries that one's context;
    /// else it carries this.
    pub under: Option<TraceContext>,
    /// The context that it carries instead, where its span is its sender's to tell.
    pub context: Option<TraceContext>,
    /// Written whatever room there is, for what must not wait for its own reader.
    pub urgent: bool,
}

impl<'a> ProducerRecord<'a> {
    /// A record of key and payload.
    #[must_use]
    pub const fn new(topic: &'a str, key: &'a [u8], payload: &'a [u8]) -> Self {
        Self {
            topic,
            partition: None,
            key: Some(key),
            payload,
            timestamp_ms: None,
            headers: &[],
            under: None,
            context: None,
            urgent: false,
        }
    }

    fn size(&self) -> usize {
        let headers: usize = self
            .headers
            .iter()
            .map(|(name, value)| name.len() + value.map_or(0, <[u8]>::len))
            .sum();
        let trace = self
            .under
            .or(self.context)
            .map_or(0, |_| TRACEPARENT.len() + TRACEPARENT_BYTES);
        self.key.map_or(0, <[u8]>::len) + self.payload.len() + headers + trace
    }
}

/// Why a record was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// No room now: try again soon.
    #[error("the queue to the log is full")]
    Full,
    /// The record is larger than the log takes: it never will be.
    #[error("the record is larger than the log takes")]
    TooLarge,
    /// The log cannot be written to.
    #[error("the log cannot be written to: {0}")]
    Failed(String),
}

/// Why an acknowledgement did not come.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a record for topic {topic} was not acknowledged: {reason}")]
pub struct DeliveryFailure {
    /// The topic.
    pub topic: String,
    /// The client's word for it.
    pub reason: String,
}

type Then = Box<dyn FnOnce(Result<(), DeliveryFailure>) + Send>;

/// Waits for the acknowledgements of any number of sends, then calls back once.
pub struct Acks {
    /// Sends not yet acknowledged, and one more until [`Acks::seal`].
    outstanding: AtomicUsize,
    end: Mutex<(Option<DeliveryFailure>, Option<Then>)>,
}

impl std::fmt::Debug for Acks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Acks")
            .field("outstanding", &self.outstanding)
            .finish_non_exhaustive()
    }
}

impl Acks {
    /// Calls `then` when every send under it is acknowledged, or with the first failure when all have ended.
    #[must_use]
    pub fn new(then: impl FnOnce(Result<(), DeliveryFailure>) + Send + 'static) -> Arc<Self> {
        Arc::new(Self {
            outstanding: AtomicUsize::new(1),
            end: Mutex::new((None, Some(Box::new(then)))),
        })
    }

    /// As [`Acks::new`], where what is to be called is known only at the end: see [`Acks::seal_with`].
    #[must_use]
    pub fn open() -> Arc<Self> {
        Arc::new(Self {
            outstanding: AtomicUsize::new(1),
            end: Mutex::new((None, None)),
        })
    }

    /// As [`Acks::new`], for a thread that waits for the end.
    #[must_use]
    pub fn to_wait_for() -> (Arc<Self>, mpsc::Receiver<Result<(), DeliveryFailure>>) {
        let (done, acknowledged) = mpsc::sync_channel(1);
        // Whoever waits is there until the answer has come, or gives up.
        let acks = Self::new(move |result| drop(done.send(result)));
        (acks, acknowledged)
    }

    /// No more sends will come under it.
    pub fn seal(&self) {
        self.one_less(None);
    }

    /// No more sends will come under it; calls `then` when every one has ended, which may be at once.
    pub fn seal_with(&self, then: impl FnOnce(Result<(), DeliveryFailure>) + Send + 'static) {
        self.end.lock().unwrap_or_else(PoisonError::into_inner).1 = Some(Box::new(then));
        self.seal();
    }

    /// One send under these that has a span of its own, which ends when it is acknowledged.
    fn traced(self: &Arc<Self>, mut span: Span) -> Arc<Self> {
        let all = Arc::clone(self);
        Self::new(move |result| {
            let failure = result.err();
            if let Some(failure) = &failure {
                span.keep();
                span.fail("unacknowledged", failure.reason.clone());
            }
            span.end();
            all.one_less(failure);
        })
    }

    fn one_less(&self, failure: Option<DeliveryFailure>) {
        if let Some(failure) = failure {
            self.end
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .0
                .get_or_insert(failure);
        }
        if self.outstanding.fetch_sub(1, Ordering::AcqRel) > 1 {
            return;
        }
        let (failure, then) =
            std::mem::take(&mut *self.end.lock().unwrap_or_else(PoisonError::into_inner));
        if let Some(then) = then {
            then(failure.map_or(Ok(()), Err));
        }
    }
}

/// What the client calls back into.
#[derive(Debug)]
struct Context {
    scope: &'static str,
}

impl ClientContext for Context {
    fn stats(&self, statistics: Statistics) {
        statistics::tell(self.scope, "producer", &statistics);
    }

    fn error(&self, error: ClientError, reason: &str) {
        // What cannot be delivered is told by its delivery.
        reports::tell(&error, reason);
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
        acks.one_less(failure);
    }
}

/// Writes records. Clones share one client.
#[derive(Clone)]
pub struct Producer {
    client: Arc<ThreadedProducer<Context>>,
    /// Whose it is, for its spans and metrics.
    scope: &'static str,
    embedded: Option<Arc<EmbeddedLog>>,
}

impl std::fmt::Debug for Producer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Producer")
            .field("embedded", &self.embedded.is_some())
            .finish_non_exhaustive()
    }
}

impl Kafka {
    /// A producer for a caller who waits, of the part of Tollgate that `scope` names: what is not acknowledged within `kafka.delivery_timeout_ms` has failed.
    ///
    /// # Errors
    /// Where the client cannot be made of the settings.
    pub fn producer(&self, scope: &'static str) -> Result<Producer, KafkaError> {
        self.producer_with(scope, self.config().delivery_timeout_ms)
    }

    /// A producer for a stage, which has nothing better to do than to wait: a broker that is away is waited for.
    ///
    /// # Errors
    /// Where the client cannot be made of the settings.
    pub fn patient_producer(&self, scope: &'static str) -> Result<Producer, KafkaError> {
        self.producer_with(scope, 0)
    }

    fn producer_with(
        &self,
        scope: &'static str,
        delivery_timeout_ms: u32,
    ) -> Result<Producer, KafkaError> {
        let config = self.config();
        let mut client = self.client_config();
        let partitioner = match config.partitioner {
            tollgate_types::Partitioner::Murmur2 => "murmur2",
            tollgate_types::Partitioner::Crc32 => "consistent",
        };
        client
            .set("acks", "all")
            .set("statistics.interval.ms", statistics::INTERVAL_MS)
            .set("partitioner", partitioner)
            .set("max.in.flight.requests.per.connection", "1")
            .set("linger.ms", config.linger_ms.to_string())
            .set("message.timeout.ms", delivery_timeout_ms.to_string())
            .set("compression.type", &config.compression);
        for (name, value) in [
            ("queue.buffering.max.messages", "200000"),
            ("queue.buffering.max.kbytes", "131072"),
        ] {
            if !config.properties.contains_key(name) {
                client.set(name, value);
            }
        }
        let client = ThreadedProducer::from_config_and_context(&client, Context { scope })
            .map_err(KafkaError::client("cannot make a producer"))?;
        Ok(Producer {
            client: Arc::new(client),
            scope,
            embedded: self.embedded().cloned(),
        })
    }
}

impl Producer {
    /// Hands a record to the client; `acks` is told when it is acknowledged. Nothing is awaited.
    ///
    /// # Errors
    /// Where the record was not taken; `acks` is then not told of it.
    pub fn send(&self, record: &ProducerRecord<'_>, acks: &Arc<Acks>) -> Result<(), SendError> {
        let parent = record.under.filter(|_| record.context.is_none());
        let span = parent.and_then(|parent| spans::send(self.scope, record.topic, parent));
        let Some(span) = span else {
            return self.hand_over(record, record.context.or(record.under), acks);
        };
        let context = span.context();
        acks.outstanding.fetch_add(1, Ordering::AcqRel);
        let own = acks.traced(span);
        let taken = self.hand_over(record, Some(context), &own);
        if taken.is_ok() {
            own.seal();
        } else {
            // Its span goes with it; whoever sends the record again gets another.
            acks.outstanding.fetch_sub(1, Ordering::AcqRel);
        }
        taken
    }

    fn hand_over(
        &self,
        record: &ProducerRecord<'_>,
        trace: Option<TraceContext>,
        acks: &Arc<Acks>,
    ) -> Result<(), SendError> {
        let mut partition = record.partition;
        if let Some(log) = &self.embedded {
            partition = Some(log.reserve(
                record.topic,
                partition,
                record.key,
                record.size(),
                record.urgent,
            )?);
        }
        acks.outstanding.fetch_add(1, Ordering::AcqRel);
        let mut out =
            BaseRecord::with_opaque_to(record.topic, Arc::clone(acks)).payload(record.payload);
        if let Some(key) = record.key {
            out = out.key(key);
        }
        if let Some(partition) = partition {
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
        self.client.send(out).map_err(|(error, _)| {
            acks.outstanding.fetch_sub(1, Ordering::AcqRel);
            if let (Some(log), Some(partition)) = (&self.embedded, partition) {
                log.release(record.topic, partition, record.size());
            }
            match error {
                ClientError::MessageProduction(RDKafkaErrorCode::QueueFull) => SendError::Full,
                ClientError::MessageProduction(RDKafkaErrorCode::MessageSizeTooLarge) => {
                    SendError::TooLarge
                }
                other => SendError::Failed(other.to_string()),
            }
        })
    }

    /// As [`Producer::send`], but waits on this thread while there is no room, until `give_up` says to stop.
    ///
    /// # Errors
    /// Where the record was not taken.
    pub fn send_waiting(
        &self,
        record: &ProducerRecord<'_>,
        acks: &Arc<Acks>,
        give_up: impl Fn() -> bool,
    ) -> Result<(), SendError> {
        loop {
            match self.send(record, acks) {
                Err(SendError::Full) if !give_up() => std::thread::sleep(Duration::from_millis(1)),
                other => return other,
            }
        }
    }

    /// As [`Producer::send`], but waits while there is no room, until `deadline`.
    ///
    /// # Errors
    /// Where the record was not taken.
    pub async fn send_until(
        &self,
        record: &ProducerRecord<'_>,
        acks: &Arc<Acks>,
        deadline: Instant,
    ) -> Result<(), SendError> {
        loop {
            match self.send(record, acks) {
                Err(SendError::Full) if Instant::now() < deadline => {
                    tokio::time::sleep(Duration::from_millis(1)).await
                }
                other => return other,
            }
        }
    }

    /// Waits until everything handed over is acknowledged or has failed, so long at most.
    ///
    /// # Errors
    /// Where something is still on its way.
    pub fn flush(&self, timeout: Duration) -> Result<(), KafkaError> {
        self.client
            .flush(timeout)
            .map_err(KafkaError::client("not everything was acknowledged"))
    }
}
