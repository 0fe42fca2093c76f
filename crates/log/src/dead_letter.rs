//! Dead letters: a record that cannot be processed goes to the stage's dead-letter topic, with its original key and
//! bytes and the reason. Later records are not blocked.

use std::borrow::Cow;
use std::sync::Arc;

use tollgate_types::{CardPolicy, Stage, Tenant, TraceContext, headers};

use crate::{Acks, Log, Producer, ProducerRecord, Record, SendError};
use tollgate_service::telemetry::{trace, user_attribute};

/// Largest letter that still fits into a request of 1 MB beside its framing: payload, key and headers, in bytes.
const MAX_LETTER: usize = 990_000;
/// The largest record that any log takes by default, in bytes.
const MAX_RECORD: usize = 1_000_000;
/// The most bytes of headers, and of a key, that a letter takes over from its record. What foreign producers write may
/// be as large as a record, and a letter that does not fit would stop its stage.
const MAX_INHERITED: usize = 64 * 1024;
/// The most that framing adds to each header, in bytes.
const HEADER_FRAMING: usize = 10;

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
    /// Takes card numbers out of what the record's producer wrote beside the payload, where producers are foreign.
    pub cards: Option<&'a CardPolicy>,
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

/// What a rejected row claims. A redriven letter is a transaction with the same claims.
#[derive(Debug, Clone, Copy, Default)]
pub struct Claims<'a> {
    /// Whose it is.
    pub tenant: Tenant<'a>,
    /// The fingerprint of the key that sent it, if there is one.
    pub sender: Option<&'a str>,
    /// It is of the past: it causes no alert.
    pub is_backfill: bool,
}

impl<'a> Claims<'a> {
    fn headers(&self) -> Vec<(&'a str, Option<&'a [u8]>)> {
        let all = [
            (headers::TENANT, self.tenant.given()),
            (headers::SENDER, self.sender),
            (headers::BACKFILL, self.is_backfill.then_some("1")),
        ];
        let given = all.into_iter().filter(|(_, value)| value.is_some());
        given
            .map(|(name, value)| (name, value.map(str::as_bytes)))
            .collect()
    }
}

/// A row that ingest could not turn into a transaction, and for which no caller is waiting.
#[derive(Debug)]
pub struct RejectedRow<'a> {
    /// Class of the failure.
    pub kind: &'static str,
    /// What was wrong, for a person. It names no amount and no card data.
    pub reason: &'a str,
    /// The user, as far as the row says.
    pub key: Option<&'a [u8]>,
    /// As it was sent.
    pub payload: &'a [u8],
    /// What is needed to read it again: [`headers::PAYLOAD_FORMAT`].
    pub format: &'a str,
    /// Card data was taken out of it, so that it would not be read as what was sent.
    pub is_masked: bool,
    /// How many bytes were sent, if the payload is only the beginning of it.
    pub cut_from: Option<u64>,
    /// What it claims.
    pub claims: Claims<'a>,
    /// Where it came from.
    pub origin: Origin<'a>,
    /// The span of what found it.
    pub under: Option<TraceContext>,
}

impl RejectedRow<'_> {
    /// Writes it to the dead-letter topic of transactions. Waits on this thread while there is no room. Logs nothing: the
    /// caller, which may have thousands of them, logs their number and the first reasons.
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
        let mut source = source;
        source.push((headers::PAYLOAD_FORMAT, self.format));
        if self.is_masked {
            source.push((headers::PAYLOAD_MASKED, "1"));
        }
        let letter = Letter {
            topic: &log.topics().transactions_dlq,
            stage: INGEST,
            kind: self.kind,
            reason: self.reason,
            attempts: 1,
            inherited: self.claims.headers(),
            source: &source,
            key: self.key,
            timestamp_ms: None,
            payload: self.payload,
            cut_from: self.cut_from,
            under: self.under,
            signed: true,
            max_bytes: max_bytes(log),
        };
        letter.send(producer, acks, stop)?;
        metrics::counter!("tollgate_dead_letters_total", "stage" => INGEST, "kind" => self.kind)
            .increment(1);
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
    /// How long the payload was before it was cut, if it was.
    cut_from: Option<u64>,
    under: Option<TraceContext>,
    /// Whether the writer of the letter vouches for the record in it.
    signed: bool,
    /// Of payload, key and headers together; the payload is cut to fit.
    max_bytes: usize,
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
        let mut all = inherited(&self.inherited);
        let key = self.key.filter(|key| key.len() <= MAX_INHERITED);
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
        let beside = all.iter().map(size_of).sum::<usize>() + key.map_or(0, <[u8]>::len);
        let (size, room) = (self.payload.len(), self.max_bytes.saturating_sub(beside));
        let whole = self
            .cut_from
            .or_else(|| (size > room).then_some(size as u64));
        let truncated = whole.map(|bytes| bytes.to_string());
        if let Some(truncated) = &truncated {
            all.push((headers::TRUNCATED_FROM, Some(truncated.as_bytes())));
        }
        let record = ProducerRecord {
            key,
            timestamp_ms: self.timestamp_ms,
            headers: &all,
            under: self.under,
            signed: self.signed,
            ..ProducerRecord::new(self.topic, &[], &self.payload[..size.min(room)])
        };
        producer.send_waiting(&record, acks, stop)
    }
}

/// The headers that a letter takes over: all of them; or, where they are too large together, the small ones, the last
/// ones first, since these are the most recent.
fn inherited<'a>(all: &[(&'a str, Option<&'a [u8]>)]) -> Vec<(&'a str, Option<&'a [u8]>)> {
    if all.iter().map(size_of).sum::<usize>() <= MAX_INHERITED {
        return all.to_vec();
    }
    let mut left = MAX_INHERITED;
    let mut kept: Vec<_> = all
        .iter()
        .rev()
        .filter(|header| {
            let fits = size_of(header) <= left.min(MAX_INHERITED / 16);
            left -= if fits { size_of(header) } else { 0 };
            fits
        })
        .copied()
        .collect();
    kept.reverse();
    kept
}

/// Bytes of a header in a record, at most.
fn size_of((name, value): &(&str, Option<&[u8]>)) -> usize {
    name.len() + value.map_or(0, <[u8]>::len) + HEADER_FRAMING
}

/// The largest letter that the log takes, in bytes.
fn max_bytes(log: &Log) -> usize {
    let framing = MAX_RECORD - MAX_LETTER;
    MAX_LETTER.min(log.config().max_record_bytes().saturating_sub(framing))
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
        let key = self.record.key.map(|key| match self.cards {
            Some(cards) => cards.mask_id(key),
            None => Cow::Borrowed(key),
        });
        let beside = self.beside();
        let letter = Letter {
            topic: topics.dead_letters_of(self.stage),
            stage: self.stage.name(),
            kind: self.kind,
            reason: self.reason,
            attempts: self.attempts,
            inherited: beside
                .iter()
                .map(|(name, value)| (*name, value.as_deref()))
                .collect(),
            source: &source,
            key: key.as_deref(),
            timestamp_ms: self.record.timestamp_ms,
            payload: self.record.payload,
            cut_from: None,
            // Behind the record's own headers, which stay as they are.
            under,
            // Nor does the stage vouch for what it could not process: the record keeps the hash that it had.
            signed: false,
            max_bytes: max_bytes(log),
        };
        letter.send(producer, acks, stop)
    }

    /// The record's own headers. Those with hashes stay what they are.
    fn beside(&self) -> Vec<(&str, Option<Cow<'_, [u8]>>)> {
        let foreign = |name: &str| !headers::is_checked(name);
        let headers = self.record.headers.iter();
        headers
            .map(|(name, value)| match (self.cards, value) {
                (Some(cards), Some(value)) if foreign(name) => {
                    (name, Some(cards.mask_bytes(value)))
                }
                (_, value) => (name, value.map(Cow::Borrowed)),
            })
            .collect()
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
