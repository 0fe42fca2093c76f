//! Writing to the log: in order for each partition, acknowledged by every in-sync replica, never silently lost.
//!
//! Sends are collected under one [`Acks`], which calls back once when the last of them is acknowledged or has failed.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tollgate_types::{Topics, TraceContext};

use crate::acks::Acks;
use crate::authentication::{self, Authenticator};
use crate::backend::{RecordWriter, WriterOptions};
use crate::error::LogError;
use crate::{Log, spans};

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
    /// Where in a trace it is sent. If the trace is kept, the send gets a span of its own, and the record carries that
    /// one's context; else it carries this.
    pub under: Option<TraceContext>,
    /// The context that it carries instead, where the caller records the span of the send itself.
    pub context: Option<TraceContext>,
    /// Written even where the log is full, for what must not wait for its own reader.
    pub urgent: bool,
    /// Vouched for: it gets the header `tollgate-mac`, by which its reader knows that a service wrote it. Whoever writes what
    /// somebody else has written, such as a dead letter that is redriven, leaves this false. A transaction gets the header
    /// only if it has one of the others that only services write.
    pub signed: bool,
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
            signed: false,
        }
    }

    /// A record of key and payload that this service vouches for.
    #[must_use]
    pub const fn signed(topic: &'a str, key: &'a [u8], payload: &'a [u8]) -> Self {
        let mut record = Self::new(topic, key, payload);
        record.signed = true;
        record
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

/// Writes records. Clones share one client.
#[derive(Debug, Clone)]
pub struct Producer {
    writer: Arc<dyn RecordWriter>,
    /// The part of Tollgate that writes, for spans and metrics.
    scope: &'static str,
    /// Signs records; none where nothing is signed.
    authenticator: Option<Arc<Authenticator>>,
    topics: Arc<Topics>,
}

impl Log {
    /// A producer for a caller who waits, of the part of Tollgate that `scope` names: what is not acknowledged within
    /// `kafka.delivery_timeout_ms` has failed.
    ///
    /// # Errors
    /// Where the client cannot be made of the settings.
    pub fn producer(&self, scope: &'static str) -> Result<Producer, LogError> {
        let timeout = Duration::from_millis(u64::from(self.config().delivery_timeout_ms));
        self.producer_with(scope, Some(timeout))
    }

    /// A producer without a delivery timeout, for stages: while the broker is unavailable, records wait for it.
    ///
    /// # Errors
    /// Where the client cannot be made of the settings.
    pub fn patient_producer(&self, scope: &'static str) -> Result<Producer, LogError> {
        self.producer_with(scope, None)
    }

    fn producer_with(
        &self,
        scope: &'static str,
        delivery_timeout: Option<Duration>,
    ) -> Result<Producer, LogError> {
        let options = WriterOptions {
            name: scope,
            delivery_timeout,
        };
        Ok(Producer {
            writer: self.backend().writer(options)?,
            scope,
            authenticator: self.authenticator().cloned(),
            topics: Arc::clone(&self.topics),
        })
    }
}

impl Producer {
    /// Hands a record to the client; `acks` is called back when it is acknowledged. Nothing is awaited.
    ///
    /// # Errors
    /// Where the record was not taken; `acks` then does not wait for it.
    pub fn send(&self, record: &ProducerRecord<'_>, acks: &Arc<Acks>) -> Result<(), SendError> {
        self.with_mac(record, |record| self.write(record, acks))
    }

    /// Calls `send` with the record, signed if it is to be.
    fn with_mac<T>(
        &self,
        record: &ProducerRecord<'_>,
        send: impl FnOnce(&ProducerRecord<'_>) -> T,
    ) -> T {
        let authenticator = self.authenticator.as_ref().filter(|_| record.signed);
        let mac = authenticator
            .zip(self.topics.kind_of(record.topic))
            .and_then(|(authenticator, kind)| authenticator.sign(kind, record));
        let Some(mac) = mac else { return send(record) };
        let headers = authentication::with_mac(record.headers, &mac);
        send(&ProducerRecord {
            headers: &headers,
            ..*record
        })
    }

    fn write(&self, record: &ProducerRecord<'_>, acks: &Arc<Acks>) -> Result<(), SendError> {
        let parent = record.under.filter(|_| record.context.is_none());
        let span = parent.and_then(|parent| spans::send(self.scope, record.topic, parent));
        let Some(span) = span else {
            return self
                .writer
                .write(record, record.context.or(record.under), acks);
        };
        let context = span.context();
        acks.begin();
        let own = acks.traced(span);
        let taken = self.writer.write(record, Some(context), &own);
        if taken.is_ok() {
            own.seal();
        } else {
            // Its span is dropped with `own`; whoever sends the record again gets another.
            acks.undo();
        }
        taken
    }

    /// As [`Producer::send`], but waits on this thread while there is no room, until `stop` returns true.
    ///
    /// # Errors
    /// Where the record was not taken.
    pub fn send_waiting(
        &self,
        record: &ProducerRecord<'_>,
        acks: &Arc<Acks>,
        stop: impl Fn() -> bool,
    ) -> Result<(), SendError> {
        self.with_mac(record, |record| {
            loop {
                match self.write(record, acks) {
                    Err(SendError::Full) if !stop() => std::thread::sleep(Duration::from_millis(1)),
                    other => return other,
                }
            }
        })
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

    /// Waits until everything handed over is acknowledged or has failed, at most `timeout`.
    ///
    /// # Errors
    /// Where something is neither acknowledged nor failed by then.
    pub fn flush(&self, timeout: Duration) -> Result<(), LogError> {
        self.writer.flush(timeout)
    }
}
