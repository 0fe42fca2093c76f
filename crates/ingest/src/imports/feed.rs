//! Writes the rows of one object to the log.
//!
//! An attempt reads and sorts the object first, and then writes its rows in the order of their timestamps.
//! Invariant: progress is written only after the rows before it are acknowledged, as transactions or as dead letters. A
//! crash repeats at most the rows in flight, and the ids of transactions make that harmless.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use metrics::counter;
use tollgate_log::{
    Acks, Claims, DeliveryFailure, Log, Origin, Producer, ProducerRecord, RejectedRow, SendError,
};
use tollgate_types::{CardPolicy, Timestamp, TraceContext, headers};

use super::journal::{Entry, Failure, Progress, Request, Segment};
use super::letters::RowLetters;
use super::object::{ImportContext, ObjectReader};
use super::prepared::PreparedRow;
use super::reading::{Before, CutOff, ReadError, ReadLimits, SortedRows, read_sorted};
use super::rows::{InflationLimits, Rows, RowsError};
use super::source::Located;
use crate::IngestConfig;
use crate::items;
use crate::lateness::NewestTimes;
use crate::sent::PayloadFormat;

/// The most rows in flight.
const WINDOW_ROWS: u64 = 1_000;
/// The most bytes in flight.
const WINDOW_BYTES: usize = 1024 * 1024;
/// The rows at the beginning of an object by which it is ordered among others.
const PEEKED_ROWS: usize = 1_000;
/// The rejected rows of an import that are logged; the line about its end has their number.
const LOGGED_REJECTIONS: u64 = 3;
/// The kind of a letter about rows that have none of their own.
const CUT_OFF: &str = "cut_off";
/// How many bytes are read between two entries of the progress while an object is read.
const REPORTED_BYTES: u64 = 64 * 1024 * 1024;
/// How often a waiting import checks for its cancellation.
const CANCELLATION_CHECK: Duration = Duration::from_millis(50);
/// The pause before another attempt to import an object.
const RETRY: Duration = Duration::from_secs(1);

/// How an import ended on this instance.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ImportOutcome {
    Done(Progress),
    Failed(Failure),
    /// A panic. The next owner of the partition retries the import.
    Panicked,
    /// The partition was revoked, or the service stops. Another instance continues the import.
    Cancelled,
}

/// Writes rows, dead letters and progress to the log. All imports of an instance share it.
#[derive(Clone)]
pub(super) struct ImportWriter {
    kafka: Log,
    producer: Producer,
    limits: ReadLimits,
    inflation: InflationLimits,
    newest: Arc<NewestTimes>,
    rate_limit: Option<Arc<DefaultDirectRateLimiter>>,
    cards: CardPolicy,
}

impl ImportWriter {
    pub(super) fn new(
        kafka: Log,
        producer: Producer,
        config: &IngestConfig,
        cards: CardPolicy,
        newest: Arc<NewestTimes>,
    ) -> Self {
        let rate_limit = NonZeroU32::new(config.import_rows_per_second)
            .map(|rows| Arc::new(RateLimiter::direct(Quota::per_second(rows))));
        Self {
            kafka,
            producer,
            limits: ReadLimits::of(config),
            newest,
            inflation: InflationLimits {
                ratio: config.import_max_inflation,
                max_bytes: config.import_max_inflated_bytes,
            },
            rate_limit,
            cards,
        }
    }

    /// Writes an entry after the previous ones and waits for its acknowledgement. False if it failed or was cancelled.
    fn write_and_wait(&self, entry: &Entry, context: &ImportContext) -> bool {
        let (acks, acknowledged) = Acks::to_wait_for();
        let sent = self.write(entry, &acks, context);
        acks.seal();
        sent.is_ok() && wait(&acknowledged, context).is_ok()
    }

    fn write(
        &self,
        entry: &Entry,
        acks: &Arc<Acks>,
        context: &ImportContext,
    ) -> Result<(), SendError> {
        let payload = entry.to_json();
        let topic = &self.kafka.topics().imports;
        let record = ProducerRecord {
            // The partition of the request, whatever the partitioner is now.
            partition: Some(context.partition),
            ..ProducerRecord::signed(topic, entry.id().as_bytes(), &payload)
        };
        self.producer
            .send_waiting(&record, acks, || context.cancel.is_cancelled())
    }
}

/// Why an attempt to import an object stopped.
enum AttemptError {
    Object(RowsError),
    Log(String),
    Cancelled,
}

impl From<ReadError> for AttemptError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Rows(error) => Self::Object(error),
            ReadError::Cancelled => Self::Cancelled,
        }
    }
}

impl From<RowsError> for AttemptError {
    fn from(error: RowsError) -> Self {
        Self::Object(error)
    }
}

/// Imports an object from the first row that is not acknowledged yet, and retries until it is done, failed or cancelled.
pub(super) fn import_object(
    writer: &ImportWriter,
    object: &Located,
    request: &Request,
    mut progress: Progress,
    context: &ImportContext,
) -> ImportOutcome {
    let outcome = loop {
        match attempt(writer, object, request, &mut progress, context) {
            Ok(()) => break ImportOutcome::Done(progress),
            _ if context.cancel.is_cancelled() => return ImportOutcome::Cancelled,
            Err(AttemptError::Cancelled) => return ImportOutcome::Cancelled,
            Err(AttemptError::Object(RowsError::Unusable(reason))) => {
                // The header of a file without one is its first row.
                let reason = writer.cards.mask(&reason).into_owned();
                break ImportOutcome::Failed(Failure { reason, progress });
            }
            Err(AttemptError::Object(RowsError::Broken(error))) => {
                tracing::warn!(%error, id = request.id, "reading an object failed; it is retried");
            }
            Err(AttemptError::Log(reason)) => {
                tracing::warn!(
                    reason,
                    id = request.id,
                    "rows were not acknowledged; they are retried"
                );
            }
        }
        std::thread::sleep(RETRY);
    };
    let entry = match &outcome {
        ImportOutcome::Done(progress) => Entry::Done(progress.clone()),
        ImportOutcome::Failed(failure) => Entry::Failed(failure.clone()),
        ImportOutcome::Cancelled | ImportOutcome::Panicked => return outcome,
    };
    if writer.write_and_wait(&entry, context) {
        outcome
    } else {
        ImportOutcome::Cancelled
    }
}

/// The earliest timestamp in the beginning of an object, in microseconds; none if no transaction can be read from it.
pub(super) fn first_timestamp(
    writer: &ImportWriter,
    object: &Located,
    context: &ImportContext,
) -> Option<i64> {
    let reader = ObjectReader::open(object, None, context).ok()?;
    let max_bytes = writer.limits.max_bytes;
    let mut rows = Rows::open(&object.format, reader, max_bytes, writer.inflation).ok()?;
    let mut first = None;
    for _ in 0..PEEKED_ROWS {
        let Ok(Some(row)) = rows.next() else {
            break;
        };
        if row.wrong.is_none()
            && let Ok(transaction) = items::validate(&row.text, writer.limits.items())
        {
            let micros = transaction.timestamp.micros();
            first = Some(first.map_or(micros, |first: i64| first.min(micros)));
        }
    }
    first
}

fn attempt(
    writer: &ImportWriter,
    object: &Located,
    request: &Request,
    progress: &mut Progress,
    context: &ImportContext,
) -> Result<(), AttemptError> {
    let reader = ObjectReader::open(object, progress.version.as_deref(), context)?;
    progress.version = reader.version().map(str::to_owned);
    progress.size = reader.size();
    let position = reader.position();
    let mut rows = Rows::open(
        &object.format,
        reader,
        writer.limits.max_bytes,
        writer.inflation,
    )?;
    let letters = RowLetters::new(&rows, writer.limits.user_id_case, &writer.cards);
    let begin = progress.segment.clone().unwrap_or_else(|| progress.begin());
    let trace = request
        .traceparent
        .as_deref()
        .and_then(|parent| TraceContext::parse(parent.as_bytes()))
        // A trace of millions of rows would be useless: it is not sampled, and only alerts keep theirs.
        .map(|trace| trace.with_sampled(false));
    let mut reported = 0;
    let on_row = || {
        let read = position.load(Ordering::Relaxed);
        if read >= reported + REPORTED_BYTES {
            reported = read;
            let reading = Progress {
                bytes: read,
                ..progress.clone()
            };
            // It is for whoever asks. The rows are not affected if it is not written.
            let acks = Acks::new(|_| ());
            let _ = writer.write(&Entry::Progress(reading), &acks, context);
            acks.seal();
        }
        !context.cancel.is_cancelled()
    };
    let before = Before {
        rows: begin.rows,
        rejected: begin.rejected,
    };
    let mut read = read_sorted(
        &mut rows,
        &writer.limits,
        &writer.cards,
        &letters,
        trace,
        before,
        on_row,
    )?;
    progress.bytes = position.load(Ordering::Relaxed);
    // Without a fingerprint this is the first attempt, or the previous one had not written a batch.
    if begin
        .order
        .as_ref()
        .is_some_and(|order| *order != read.order)
    {
        tracing::warn!(
            id = request.id,
            "the rows of an object are in another order than before, as after a change of settings; they are written again"
        );
        progress.return_to(&begin);
    }
    let written = progress.rows - begin.rows;
    progress.segment = Some(Segment {
        order: Some(read.order.clone()),
        ..begin
    });
    let target = Target {
        writer,
        object,
        request,
        context,
        trace,
        letters: &letters,
    };
    write_rows(&target, &mut read, written, progress)?;
    progress.segment = None;
    match read.failure {
        Some(reason) => Err(RowsError::Unusable(reason).into()),
        None => Ok(()),
    }
}

/// Writes the sorted rows after the first `written`, and then a letter for the rows that have none.
fn write_rows(
    target: &Target<'_>,
    read: &mut SortedRows,
    written: u64,
    progress: &mut Progress,
) -> Result<(), AttemptError> {
    let mut window = Window::open(progress);
    let mut at = 0;
    while let Some(record) = read.sorted.next_record().map_err(ReadError::from)? {
        at += 1;
        if at <= written {
            continue;
        }
        let row = PreparedRow::decode(&record.payload)
            .ok_or_else(|| AttemptError::Log("a sorted run is damaged".to_owned()))?;
        window.send(target, record.key, &row)?;
        if window.is_full() {
            *progress = window.close(target.context)?;
            // Its acknowledgement is not awaited: later entries of the partition are acknowledged after it.
            let acks = Acks::new(|_| ());
            let entry = Entry::Progress(progress.clone());
            let written = target.writer.write(&entry, &acks, target.context);
            acks.seal();
            written.map_err(|error| AttemptError::Log(error.to_string()))?;
            window = Window::open(progress);
        }
    }
    for cut_off in &read.cut_off {
        window.send_cut_off(target, cut_off)?;
    }
    *progress = window.close(target.context)?;
    Ok(())
}

/// Where the rows of an import are written.
struct Target<'a> {
    writer: &'a ImportWriter,
    object: &'a Located,
    request: &'a Request,
    context: &'a ImportContext,
    /// The trace of the request.
    trace: Option<TraceContext>,
    letters: &'a RowLetters,
}

impl<'a> Target<'a> {
    /// What a dead letter claims.
    fn claims(&self) -> Claims<'a> {
        Claims {
            tenant: self.object.source.tenant(),
            sender: None,
            is_backfill: self.object.source.backfill || self.request.backfill,
        }
    }
}

/// The rows in flight.
struct Window {
    after: Progress,
    accepted: u64,
    rejected: u64,
    late: u64,
    bytes: usize,
    acks: Arc<Acks>,
    acknowledged: Receiver<Result<(), DeliveryFailure>>,
}

impl Window {
    fn open(before: &Progress) -> Self {
        let (acks, acknowledged) = Acks::to_wait_for();
        Self {
            after: before.clone(),
            accepted: 0,
            rejected: 0,
            late: 0,
            bytes: 0,
            acks,
            acknowledged,
        }
    }

    fn is_full(&self) -> bool {
        self.accepted + self.rejected >= WINDOW_ROWS || self.bytes >= WINDOW_BYTES
    }

    /// Writes a row; `key` is the timestamp of one that is a transaction.
    fn send(
        &mut self,
        target: &Target<'_>,
        key: i64,
        row: &PreparedRow,
    ) -> Result<(), AttemptError> {
        let Target {
            writer,
            object,
            request,
            context,
            trace,
            letters,
        } = target;
        if let Some(rate_limit) = &writer.rate_limit {
            while rate_limit.check().is_err() {
                if context.cancel.is_cancelled() {
                    return Err(AttemptError::Cancelled);
                }
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        let cancelled = || context.cancel.is_cancelled();
        let tenant = object.source.tenant();
        let sent = match row {
            PreparedRow::Accepted {
                user_id,
                trace: own,
                json,
            } => {
                self.accepted += 1;
                self.bytes += json.len();
                if let Some(at) = Timestamp::from_micros(key) {
                    self.late += u64::from(writer.newest.is_late(tenant, user_id, at));
                }
                let own = own
                    .as_deref()
                    .and_then(|own| TraceContext::parse(own.as_bytes()));
                let backfill = (object.source.backfill || request.backfill).then_some("1");
                let marks = [
                    (headers::TENANT, tenant.given()),
                    (headers::BACKFILL, backfill),
                ];
                let marks: Vec<(&str, Option<&[u8]>)> = marks
                    .into_iter()
                    .filter_map(|(name, value)| Some((name, Some(value?.as_bytes()))))
                    .collect();
                let topic = &writer.kafka.topics().transactions;
                let record = ProducerRecord {
                    context: own.or(*trace),
                    headers: &marks,
                    ..ProducerRecord::signed(topic, user_id.as_bytes(), json.as_bytes())
                };
                writer.producer.send_waiting(&record, &self.acks, cancelled)
            }
            PreparedRow::Rejected {
                kind,
                reason,
                line,
                key,
                payload,
                is_masked,
                cut_from,
            } => {
                let kind = kind.name();
                if self.after.rejected + self.rejected < LOGGED_REJECTIONS {
                    let id = &*request.id;
                    tracing::warn!(id, line, kind, reason, "a row is dead-lettered");
                }
                self.rejected += 1;
                self.bytes += payload.len();
                let rejected = RejectedRow {
                    kind,
                    reason,
                    key: key.as_deref(),
                    payload,
                    format: letters.format(),
                    is_masked: *is_masked,
                    cut_from: *cut_from,
                    claims: target.claims(),
                    origin: Origin::Object {
                        url: &object.url,
                        line: *line,
                    },
                    under: *trace,
                };
                rejected.send(&writer.kafka, &writer.producer, &self.acks, cancelled)
            }
        };
        sent.map_err(|error| AttemptError::Log(error.to_string()))
    }

    /// Writes one letter for rows that have none of their own.
    fn send_cut_off(&mut self, target: &Target<'_>, cut_off: &CutOff) -> Result<(), AttemptError> {
        let CutOff {
            kind,
            reason,
            rows,
            first_line,
            last_line,
        } = cut_off;
        self.rejected += rows;
        let kind = kind.name();
        tracing::warn!(
            id = target.request.id,
            rows,
            kind,
            reason,
            "rows have no dead letters of their own"
        );
        let text = format!(
            "{rows} more rows, from line {first_line} to line {last_line}, are rejected for the same reason and have no dead letters of their own: {reason}"
        );
        let summary = serde_json::json!({
            "rows": rows, "first_line": first_line, "last_line": last_line, "kind": kind, "reason": reason,
        })
        .to_string();
        let rejected = RejectedRow {
            kind: CUT_OFF,
            reason: &text,
            key: None,
            payload: summary.as_bytes(),
            format: &PayloadFormat::summary().to_string(),
            is_masked: false,
            cut_from: None,
            claims: target.claims(),
            origin: Origin::Object {
                url: &target.object.url,
                line: *first_line,
            },
            under: target.trace,
        };
        let cancelled = || target.context.cancel.is_cancelled();
        rejected
            .send(
                &target.writer.kafka,
                &target.writer.producer,
                &self.acks,
                cancelled,
            )
            .map_err(|error| AttemptError::Log(error.to_string()))
    }

    /// Waits until the log has acknowledged all rows.
    fn close(self, context: &ImportContext) -> Result<Progress, AttemptError> {
        self.acks.seal();
        wait(&self.acknowledged, context)?;
        for (outcome, rows) in [("accepted", self.accepted), ("rejected", self.rejected)] {
            counter!("tollgate_import_rows_total", "outcome" => outcome).increment(rows);
        }
        let mut after = self.after;
        after.rows += self.accepted + self.rejected;
        after.accepted += self.accepted;
        after.rejected += self.rejected;
        after.late += self.late;
        counter!("tollgate_import_late_rows_total").increment(self.late);
        Ok(after)
    }
}

fn wait(
    acknowledged: &Receiver<Result<(), DeliveryFailure>>,
    context: &ImportContext,
) -> Result<(), AttemptError> {
    loop {
        match acknowledged.recv_timeout(CANCELLATION_CHECK) {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(failure)) => return Err(AttemptError::Log(failure.to_string())),
            Err(RecvTimeoutError::Disconnected) => {
                return Err(AttemptError::Log("the producer has stopped".to_owned()));
            }
            Err(RecvTimeoutError::Timeout) if context.cancel.is_cancelled() => {
                return Err(AttemptError::Cancelled);
            }
            Err(RecvTimeoutError::Timeout) => {}
        }
    }
}
