//! Writes the rows of one object to the log.
//!
//! Invariant: progress is written only when the rows before it are acknowledged, as transactions or as dead letters. A
//! crash repeats at most the rows in flight, and the ids of transactions make that harmless.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use metrics::counter;
use tollgate_log::{
    Acks, DeliveryFailure, Kafka, Origin, Producer, ProducerRecord, RejectedRow, SendError,
};
use tollgate_types::TraceContext;

use super::journal::{Entry, Failure, Progress, Request};
use super::object::{Means, ObjectReader};
use super::rows::{Row, Rows, RowsError};
use super::source::Located;
use crate::items::{self, Rules};

/// Most rows in flight.
const WINDOW_ROWS: u64 = 1_000;
/// Most bytes in flight.
const WINDOW_BYTES: usize = 1024 * 1024;
/// How often a wait checks whether the import was cancelled.
const LOOK: Duration = Duration::from_millis(50);
/// Before an object is read again whose rows the log has not taken.
const AGAIN: Duration = Duration::from_secs(1);

/// How an import ended on this instance.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum End {
    Done(Progress),
    Failed(Failure),
    /// A defect of this program; the next owner tries again.
    Panicked,
    /// The partition was taken away, or the service stops: another instance goes on.
    Cancelled,
}

/// What all imports of an instance share.
#[derive(Clone)]
pub(super) struct Line {
    kafka: Kafka,
    producer: Producer,
    max_bytes: usize,
    pace: Option<Arc<DefaultDirectRateLimiter>>,
}

impl Line {
    pub(super) fn new(
        kafka: Kafka,
        producer: Producer,
        max_bytes: usize,
        rows_per_second: u32,
    ) -> Self {
        let pace = NonZeroU32::new(rows_per_second)
            .map(|rows| Arc::new(RateLimiter::direct(Quota::per_second(rows))));
        Self {
            kafka,
            producer,
            max_bytes,
            pace,
        }
    }

    /// Appends an entry behind those before it, and waits until it is acknowledged.
    fn append(&self, entry: &Entry, means: &Means) -> bool {
        let (acks, acknowledged) = Acks::to_wait_for();
        let sent = self.write(entry, &acks, means);
        acks.seal();
        sent.is_ok() && wait(&acknowledged, means).is_ok()
    }

    fn write(&self, entry: &Entry, acks: &Arc<Acks>, means: &Means) -> Result<(), SendError> {
        let payload = entry.to_json();
        let topic = &self.kafka.topics().imports;
        let record = ProducerRecord {
            // Where the request stands, however keys are spread now.
            partition: Some(means.partition),
            ..ProducerRecord::new(topic, entry.id().as_bytes(), &payload)
        };
        self.producer
            .send_waiting(&record, acks, || means.cancel.is_cancelled())
    }
}

/// Why a window is not on the log.
enum Stopped {
    Object(RowsError),
    Log(String),
    Cancelled,
}

impl From<RowsError> for Stopped {
    fn from(error: RowsError) -> Self {
        Self::Object(error)
    }
}

/// Writes an object to the log, from its first row that is not acknowledged, and returns how that ended.
pub(super) fn feed(
    line: &Line,
    object: &Located,
    request: &Request,
    mut progress: Progress,
    means: &Means,
) -> End {
    let end = loop {
        match attempt(line, object, request, &mut progress, means) {
            Ok(()) => break End::Done(progress),
            _ if means.cancel.is_cancelled() => return End::Cancelled,
            Err(Stopped::Cancelled) => return End::Cancelled,
            Err(Stopped::Object(RowsError::Unusable(reason))) => {
                break End::Failed(Failure { reason, progress });
            }
            Err(Stopped::Object(RowsError::Broken(error))) => {
                tracing::warn!(%error, id = request.id, "an object ended early; it is read again");
            }
            Err(Stopped::Log(reason)) => {
                tracing::warn!(
                    reason,
                    id = request.id,
                    "rows were not acknowledged; they are sent again"
                );
            }
        }
        std::thread::sleep(AGAIN);
    };
    let entry = match &end {
        End::Done(progress) => Entry::Done(progress.clone()),
        End::Failed(failure) => Entry::Failed(failure.clone()),
        End::Cancelled | End::Panicked => return end,
    };
    if line.append(&entry, means) {
        end
    } else {
        End::Cancelled
    }
}

fn attempt(
    line: &Line,
    object: &Located,
    request: &Request,
    progress: &mut Progress,
    means: &Means,
) -> Result<(), Stopped> {
    let reader = ObjectReader::open(object, progress.version.as_deref(), means)?;
    progress.version = reader.version().map(str::to_owned);
    let mut rows = Rows::of(&object.format, reader, line.max_bytes)?;
    let mut at = 0;
    let mut window = Window::open(progress);
    loop {
        let row = match rows.next() {
            Ok(Some(row)) => row,
            Ok(None) => break,
            Err(error) => {
                // What came before it counts all the same.
                *progress = window.close(means)?;
                return Err(error.into());
            }
        };
        at += 1;
        if at <= progress.rows {
            continue;
        }
        window.send(line, object, request, &row, means)?;
        if window.is_full() {
            *progress = window.close(means)?;
            // Not awaited: the next wait covers it.
            let told = Acks::new(|_| ());
            let entry = Entry::Progress(progress.clone());
            let written = line.write(&entry, &told, means);
            told.seal();
            written.map_err(|error| Stopped::Log(error.to_string()))?;
            window = Window::open(progress);
        }
    }
    *progress = window.close(means)?;
    Ok(())
}

/// Rows in flight.
struct Window {
    after: Progress,
    accepted: u64,
    rejected: u64,
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
            bytes: 0,
            acks,
            acknowledged,
        }
    }

    fn is_full(&self) -> bool {
        self.accepted + self.rejected >= WINDOW_ROWS || self.bytes >= WINDOW_BYTES
    }

    fn send(
        &mut self,
        line: &Line,
        object: &Located,
        request: &Request,
        row: &Row,
        means: &Means,
    ) -> Result<(), Stopped> {
        if let Some(pace) = &line.pace {
            while pace.check().is_err() {
                if means.cancel.is_cancelled() {
                    return Err(Stopped::Cancelled);
                }
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        let rules = Rules {
            max_bytes: line.max_bytes,
            now_micros: items::now_micros(),
        };
        let checked = match &row.wrong {
            Some(reason) => Err(("malformed", reason.clone())),
            None => items::check(&row.text, rules).map_err(|rejection| {
                let kind = if rejection.malformed {
                    "malformed"
                } else {
                    "invalid"
                };
                (kind, rejection.to_string())
            }),
        };
        let cancelled = || means.cancel.is_cancelled();
        // A trace of millions of rows is of no use: only what follows from a row is kept.
        let trace = request
            .traceparent
            .as_deref()
            .and_then(|parent| TraceContext::parse(parent.as_bytes()))
            .map(|trace| trace.with_sampled(false));
        self.bytes += row.text.len();
        let sent = match checked {
            Ok(transaction) => {
                self.accepted += 1;
                let context = transaction.trace().or(trace);
                let text = transaction.one_line_in(context);
                let record = ProducerRecord {
                    context,
                    ..ProducerRecord::new(
                        &line.kafka.topics().transactions,
                        transaction.user_id.as_bytes(),
                        text.as_bytes(),
                    )
                };
                line.producer.send_waiting(&record, &self.acks, cancelled)
            }
            Err((kind, reason)) => {
                self.rejected += 1;
                let rejected = RejectedRow {
                    kind,
                    reason: &reason,
                    payload: &row.text,
                    origin: Origin::Object {
                        url: &object.url,
                        line: row.line,
                    },
                    under: trace,
                };
                rejected.send(&line.kafka, &line.producer, &self.acks, cancelled)
            }
        };
        sent.map_err(|error| Stopped::Log(error.to_string()))
    }

    /// Waits until all of them are acknowledged.
    fn close(self, means: &Means) -> Result<Progress, Stopped> {
        self.acks.seal();
        wait(&self.acknowledged, means)?;
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
    means: &Means,
) -> Result<(), Stopped> {
    loop {
        match acknowledged.recv_timeout(LOOK) {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(failure)) => return Err(Stopped::Log(failure.to_string())),
            Err(RecvTimeoutError::Disconnected) => {
                return Err(Stopped::Log("the producer is gone".to_owned()));
            }
            Err(RecvTimeoutError::Timeout) if means.cancel.is_cancelled() => {
                return Err(Stopped::Cancelled);
            }
            Err(RecvTimeoutError::Timeout) => {}
        }
    }
}
