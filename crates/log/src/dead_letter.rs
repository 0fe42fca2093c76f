//! Dead letters: a record that cannot be processed goes to the stage's dead-letter topic, with its original key and
//! bytes and the reason. Later records are not blocked.

use std::sync::Arc;

use tollgate_types::{Stage, Tenant, TraceContext, headers};

use crate::{Acks, Log, Producer, ProducerRecord, Record, SendError};
use tollgate_service::telemetry::{trace, user_attribute};

/// Largest payload that still fits into a request of 1 MB beside key and headers.
const MAX_PAYLOAD: usize = 990_000;

/// A record that a stage dead-letters.
#[derive(Debug)]
pub struct DeadLetter<'a> {
    /// The stage that dead-letters it.
    pub stage: Stage,
    /// Class of the failure, a short stable word such as `malformed`.
    pub kind: &'static str,
    /// What was wrong, for a person. It names no amount and no card data.
    pub reason: &'a str,
    /// How often the stage tried.
    pub attempts: u32,
    /// The record as it was read.
    pub record: &'a Record<'a>,
    /// The span of its processing; where there is none yet, the letter begins one.
    pub under: Option<TraceContext>,
}

/// The origin of a row that came from no topic of Tollgate.
#[derive(Debug, Clone, Copy)]
pub enum Origin<'a> {
    /// A line of an object.
    Object {
        /// The object's URL.
        url: &'a str,
        /// Where the row begins, counted from 1.
        line: u64,
    },
    /// A message of somebody's batch: stream, partition and offset, as the sender gave them.
    Message {
        /// Name or OCID of the stream.
        stream: &'a str,
        /// As text, for it may be no number.
        partition: &'a str,
        /// As text.
        offset: &'a str,
    },
}

/// A row that ingest could not turn into a transaction, and for which no caller is waiting.
#[derive(Debug)]
pub struct RejectedRow<'a> {
    /// Class of the failure.
    pub kind: &'static str,
    /// What was wrong, for a person. It names no amount and no card data.
    pub reason: &'a str,
    /// As it was read.
    pub payload: &'a [u8],
    /// Whose it is. A redriven letter is a transaction of this tenant.
    pub tenant: Tenant<'a>,
    /// Where it came from.
    pub origin: Origin<'a>,
    /// The span of what found it.
    pub under: Option<TraceContext>,
}

impl RejectedRow<'_> {
    /// Writes it to the dead-letter topic of transactions. Waits on this thread while there is no room.
    ///
    /// # Errors
    /// Where the record was not taken.
    pub fn send(
        &self,
        log: &Log,
        producer: &Producer,
        acks: &Arc<Acks>,
        stop: impl Fn() -> bool,
    ) -> Result<(), SendError> {
        let line;
        let source = match self.origin {
            Origin::Object { url, line: at } => {
                line = at.to_string();
                vec![
                    (headers::SOURCE_OBJECT, url),
                    (headers::SOURCE_LINE, &*line),
                ]
            }
            Origin::Message {
                stream,
                partition,
                offset,
            } => vec![
                (headers::SOURCE_TOPIC, stream),
                (headers::SOURCE_PARTITION, partition),
                (headers::SOURCE_OFFSET, offset),
            ],
        };
        let letter = Letter {
            topic: &log.topics().transactions_dlq,
            stage: INGEST,
            kind: self.kind,
            reason: self.reason,
            attempts: 1,
            inherited: self
                .tenant
                .given()
                .map(|name| (headers::TENANT, Some(name.as_bytes())))
                .into_iter()
                .collect(),
            source: &source,
            key: None,
            timestamp_ms: None,
            payload: self.payload,
            under: self.under,
            signed: true,
        };
        letter.send(producer, acks, stop)?;
        metrics::counter!("tollgate_dead_letters_total", "stage" => INGEST, "kind" => self.kind)
            .increment(1);
        tracing::warn!(
            stage = INGEST,
            kind = self.kind,
            reason = self.reason,
            origin = ?self.origin,
            "dead-lettered"
        );
        Ok(())
    }
}

/// Ingest reads no topic, so it is no [`Stage`].
const INGEST: &str = "ingest";

/// A dead letter as it is written.
struct Letter<'a> {
    topic: &'a str,
    stage: &'a str,
    kind: &'a str,
    reason: &'a str,
    attempts: u32,
    inherited: Vec<(&'a str, Option<&'a [u8]>)>,
    source: &'a [(&'a str, &'a str)],
    key: Option<&'a [u8]>,
    timestamp_ms: Option<i64>,
    payload: &'a [u8],
    under: Option<TraceContext>,
    /// Whether the writer of the letter vouches for the record in it.
    signed: bool,
}

impl Letter<'_> {
    fn send(
        &self,
        producer: &Producer,
        acks: &Arc<Acks>,
        stop: impl Fn() -> bool,
    ) -> Result<(), SendError> {
        let attempts = self.attempts.to_string();
        let now = tollgate_service::now().to_string();
        let size = self.payload.len();
        let truncated = (size > MAX_PAYLOAD).then(|| size.to_string());
        let mut all = self.inherited.clone();
        let failure = [
            (headers::ERROR_STAGE, self.stage),
            (headers::ERROR_KIND, self.kind),
            (headers::ERROR_REASON, self.reason),
        ];
        let end = [
            (headers::ATTEMPTS, attempts.as_str()),
            (headers::FAILED_AT, now.as_str()),
        ];
        let failed = failure.iter().chain(self.source).chain(&end);
        all.extend(failed.map(|(name, value)| (*name, Some(value.as_bytes()))));
        if let Some(truncated) = &truncated {
            all.push((headers::TRUNCATED_FROM, Some(truncated.as_bytes())));
        }
        let record = ProducerRecord {
            key: self.key,
            timestamp_ms: self.timestamp_ms,
            headers: &all,
            under: self.under,
            signed: self.signed,
            ..ProducerRecord::new(self.topic, &[], &self.payload[..size.min(MAX_PAYLOAD)])
        };
        producer.send_waiting(&record, acks, stop)
    }
}

impl DeadLetter<'_> {
    /// Writes it to the stage's dead-letter topic. The record's own headers stay, the failure's come after them, so
    /// that a record redriven and dead-lettered again shows its whole history. Waits on this thread while there is no room.
    ///
    /// # Errors
    /// Where the record was not taken.
    pub fn send(
        &self,
        log: &Log,
        producer: &Producer,
        acks: &Arc<Acks>,
        stop: impl Fn() -> bool,
    ) -> Result<(), SendError> {
        metrics::counter!("tollgate_dead_letters_total", "stage" => self.stage.name(), "kind" => self.kind).increment(1);
        let under = self.under.or_else(|| self.span(log));
        let _logged_within = under.map(|context| trace::within(context).attach());
        tracing::warn!(
            stage = self.stage.name(),
            kind = self.kind,
            reason = self.reason,
            partition = self.record.partition,
            offset = self.record.offset,
            user = self.record.key.map(|key| user_attribute(key).1),
            "dead-lettered"
        );
        let (partition, offset) = (
            self.record.partition.to_string(),
            self.record.offset.to_string(),
        );
        let topics = log.topics();
        let source = [
            (headers::SOURCE_TOPIC, topics.input_of(self.stage)),
            (headers::SOURCE_PARTITION, &partition),
            (headers::SOURCE_OFFSET, &offset),
        ];
        let letter = Letter {
            topic: topics.dead_letters_of(self.stage),
            stage: self.stage.name(),
            kind: self.kind,
            reason: self.reason,
            attempts: self.attempts,
            inherited: self.record.headers.iter().collect(),
            source: &source,
            key: self.record.key,
            timestamp_ms: self.record.timestamp_ms,
            payload: self.record.payload,
            // Behind the record's own headers, which stay as they are.
            under,
            // Nor does the stage vouch for what it could not process: the record keeps the hash that it had.
            signed: false,
        };
        letter.send(producer, acks, stop)
    }

    /// A span for a record that has no other.
    fn span(&self, log: &Log) -> Option<TraceContext> {
        let parent = self.record.trace();
        let context = trace::begin_always(parent)?;
        let mut span = log.reads(self.stage).process(self.record, context, parent);
        span.fail(self.kind, self.reason.to_owned());
        span.end();
        Some(context)
    }
}
