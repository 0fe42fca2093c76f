//! Writes the rows of one object to the log.
//!
//! Invariant: progress is written only after the rows before it are acknowledged, as transactions or as dead letters. A
//! crash repeats at most the rows in flight, and the ids of transactions make that harmless.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use metrics::counter;
use tollgate_log::{
    Acks, DeliveryFailure, Log, Origin, Producer, ProducerRecord, RejectedRow, SendError,
};
use tollgate_service::card_data::count_card_data;
use tollgate_types::{CardPolicy, Timestamp, TraceContext, UserIdCase, headers};

use super::journal::{Entry, Failure, Progress, Request};
use super::object::{ImportContext, ObjectReader};
use super::rows::{InflationLimits, Row, Rows, RowsError};
use super::source::Located;
use crate::IngestConfig;
use crate::items::{self, ItemLimits};
use crate::reject_limits::RejectLimits;

/// The most rows in flight.
const WINDOW_ROWS: u64 = 1_000;
/// The most bytes in flight.
const WINDOW_BYTES: usize = 1024 * 1024;
/// The rejected rows of an import that are logged; the line about its end has their number.
const LOGGED_REJECTIONS: u64 = 3;
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
    max_bytes: usize,
    user_id_case: UserIdCase,
    earliest: Timestamp,
    rejects: RejectLimits,
    max_rejected_bytes: u64,
    inflation: InflationLimits,
    rate_limit: Option<Arc<DefaultDirectRateLimiter>>,
    cards: CardPolicy,
}

impl ImportWriter {
    pub(super) fn new(
        kafka: Log,
        producer: Producer,
        config: &IngestConfig,
        cards: CardPolicy,
    ) -> Self {
        let rate_limit = NonZeroU32::new(config.import_rows_per_second)
            .map(|rows| Arc::new(RateLimiter::direct(Quota::per_second(rows))));
        Self {
            kafka,
            producer,
            max_bytes: config.max_transaction_bytes,
            user_id_case: config.user_id_case,
            earliest: config.earliest_timestamp,
            rejects: config.import_rejects,
            max_rejected_bytes: config.import_max_rejected_bytes,
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

fn attempt(
    writer: &ImportWriter,
    object: &Located,
    request: &Request,
    progress: &mut Progress,
    context: &ImportContext,
) -> Result<(), AttemptError> {
    let reader = ObjectReader::open(object, progress.version.as_deref(), context)?;
    progress.version = reader.version().map(str::to_owned);
    let mut rows = Rows::open(&object.format, reader, writer.max_bytes, writer.inflation)?;
    let mut at = 0;
    let mut rejected_bytes = 0;
    let mut window = Window::open(progress);
    loop {
        let row = match rows.next() {
            Ok(Some(row)) => row,
            Ok(None) => break,
            Err(error) => {
                // The rows before the error are imported.
                *progress = window.close(context)?;
                return Err(error.into());
            }
        };
        at += 1;
        if at <= progress.rows {
            continue;
        }
        window.send(writer, object, request, &row, context)?;
        rejected_bytes += std::mem::take(&mut window.rejected_bytes);
        if let Some(reason) = window.exceeds(writer, rejected_bytes) {
            *progress = window.close(context)?;
            return Err(RowsError::Unusable(reason).into());
        }
        if window.is_full() {
            *progress = window.close(context)?;
            // Its acknowledgement is not awaited: later entries of the partition are acknowledged after it.
            let acks = Acks::new(|_| ());
            let entry = Entry::Progress(progress.clone());
            let written = writer.write(&entry, &acks, context);
            acks.seal();
            written.map_err(|error| AttemptError::Log(error.to_string()))?;
            window = Window::open(progress);
        }
    }
    *progress = window.close(context)?;
    Ok(())
}

/// The rows in flight.
struct Window {
    after: Progress,
    accepted: u64,
    rejected: u64,
    bytes: usize,
    /// Of rows that were rejected.
    rejected_bytes: u64,
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
            bytes: 0,
            rejected_bytes: 0,
            acks,
            acknowledged,
        }
    }

    fn is_full(&self) -> bool {
        self.accepted + self.rejected >= WINDOW_ROWS || self.bytes >= WINDOW_BYTES
    }

    /// Why the import ends with what it has rejected so far, if it does.
    fn exceeds(&self, writer: &ImportWriter, bytes: u64) -> Option<String> {
        let rejected = self.after.rejected + self.rejected;
        let rows = self.after.rows + self.accepted + self.rejected;
        let max_bytes = writer.max_rejected_bytes;
        let too_large = || {
            (bytes > max_bytes).then(|| {
                format!("the rejected rows are longer than ingest.import_max_rejected_bytes, {max_bytes}, together")
            })
        };
        let limits = &writer.rejects;
        let exceeded = limits.exceeded("import_rejects", rows, rejected);
        exceeded.or_else(too_large)
    }

    fn send(
        &mut self,
        writer: &ImportWriter,
        object: &Located,
        request: &Request,
        row: &Row,
        context: &ImportContext,
    ) -> Result<(), AttemptError> {
        if let Some(rate_limit) = &writer.rate_limit {
            while rate_limit.check().is_err() {
                if context.cancel.is_cancelled() {
                    return Err(AttemptError::Cancelled);
                }
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        let limits = ItemLimits {
            max_bytes: writer.max_bytes,
            now_micros: items::now_micros(),
            // The operator chooses what is imported.
            oldest_micros: None,
            earliest: writer.earliest,
            user_id_case: writer.user_id_case,
        };
        let protected = writer.cards.protect(&row.text);
        count_card_data("ingest", protected.found);
        let text = &*protected.text;
        let checked = match (&row.wrong, protected.refusal) {
            // A header that is none is data, and stands in the reason.
            (Some(reason), _) => Err(("malformed", writer.cards.mask(reason).into_owned())),
            (None, Some(refusal)) => Err(("invalid", refusal.to_string())),
            (None, None) => items::validate(text, limits).map_err(|rejection| {
                let kind = if rejection.malformed {
                    "malformed"
                } else {
                    "invalid"
                };
                (kind, rejection.to_string())
            }),
        };
        let cancelled = || context.cancel.is_cancelled();
        // A trace of millions of rows would be useless: it is not sampled, and only alerts keep theirs.
        let trace = request
            .traceparent
            .as_deref()
            .and_then(|parent| TraceContext::parse(parent.as_bytes()))
            .map(|trace| trace.with_sampled(false));
        let tenant = object.source.tenant();
        self.bytes += text.len();
        let sent = match checked {
            Ok(transaction) => {
                self.accepted += 1;
                items::count_mixed_scripts(&transaction);
                let trace = transaction.trace().or(trace);
                let line = transaction.one_line_within(trace, writer.max_bytes);
                let backfill = object.source.backfill.then_some("1");
                let marks = [
                    (headers::TENANT, tenant.given()),
                    (headers::BACKFILL, backfill),
                ];
                let marks: Vec<(&str, Option<&[u8]>)> = marks
                    .into_iter()
                    .filter_map(|(name, value)| Some((name, Some(value?.as_bytes()))))
                    .collect();
                let record = ProducerRecord {
                    context: trace,
                    headers: &marks,
                    ..ProducerRecord::signed(
                        &writer.kafka.topics().transactions,
                        transaction.user_id.as_bytes(),
                        line.as_bytes(),
                    )
                };
                writer.producer.send_waiting(&record, &self.acks, cancelled)
            }
            Err((kind, reason)) => {
                if self.after.rejected + self.rejected < LOGGED_REJECTIONS {
                    let (id, line) = (&*request.id, row.line);
                    tracing::warn!(id, line, kind, reason, "a row is dead-lettered");
                }
                self.rejected += 1;
                self.rejected_bytes += row.text.len() as u64;
                let rejected = RejectedRow {
                    kind,
                    reason: &reason,
                    payload: text,
                    tenant,
                    origin: Origin::Object {
                        url: &object.url,
                        line: row.line,
                    },
                    under: trace,
                };
                rejected.send(&writer.kafka, &writer.producer, &self.acks, cancelled)
            }
        };
        sent.map_err(|error| AttemptError::Log(error.to_string()))
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
