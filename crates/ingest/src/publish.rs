//! Writes the records of a request to the log and waits for their acknowledgements.
//!
//! Invariant: [`publish`] returns `Ok` only after the log has acknowledged every record.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::http::StatusCode;
use tokio::sync::oneshot;
use tollgate_log::spans::sending;
use tollgate_log::{Acks, ProducerRecord, RejectedRow, SendError};
use tollgate_service::http::{Caller, Problem, RequestTrace};
use tollgate_service::resilience::{CallError, CallFailure, CallPolicy, DependencyConfig};
use tollgate_service::telemetry::trace::begin;
use tollgate_types::headers::{BACKFILL, REPLY_TO, SENDER, TENANT, TRACESTATE};
use tollgate_types::{ReplyAddress, Tenant, TraceContext, Transaction};

use crate::IngestConfig;
use crate::api::App;
use crate::imports::Entry;
use crate::provenance::Provenance;

/// `Retry-After` of a request that was not acknowledged.
const RETRY: Duration = Duration::from_secs(2);

/// The records that one request writes.
#[derive(Debug)]
pub(crate) struct PublishRequest<'a> {
    /// The tenant of all transactions, which follows from the caller's key.
    pub(crate) tenant: Tenant<'a>,
    /// The trace of the request.
    pub(crate) trace: Arc<RequestTrace>,
    /// Who sent it.
    pub(crate) provenance: Provenance,
    /// In the order of the request, each with its own trace context if it has one. They are written in the order of their
    /// timestamps.
    pub(crate) transactions: Vec<(Option<TraceContext>, &'a Transaction<'a>)>,
    /// Where the request waits for decisions, if it waits.
    pub(crate) reply_to: Option<ReplyAddress>,
    /// Indices of transactions whose decision is not waited for although the request waits, in their order.
    pub(crate) unawaited: Vec<usize>,
    /// Invalid items to dead-letter, where the answer that reports them may not be read.
    pub(crate) rejected: Vec<RejectedRow<'a>>,
    /// Objects to import.
    pub(crate) imports: Vec<Entry>,
}

impl<'a> PublishRequest<'a> {
    pub(crate) fn new(
        caller: &'a Caller,
        trace: Arc<RequestTrace>,
        provenance: Provenance,
    ) -> Self {
        Self {
            tenant: caller.tenant(),
            trace,
            provenance,
            transactions: Vec::new(),
            reply_to: None,
            unawaited: Vec::new(),
            rejected: Vec::new(),
            imports: Vec::new(),
        }
    }

    /// Whether there is nothing to write.
    pub(crate) fn is_empty(&self) -> bool {
        self.transactions.is_empty() && self.rejected.is_empty() && self.imports.is_empty()
    }
}

/// Why the records of a request are not on the log.
#[derive(Debug, thiserror::Error)]
enum PublishError {
    #[error("{0}")]
    Unacknowledged(String),
    /// The settings are validated against this at start. Sending again cannot succeed.
    #[error("{0}")]
    TooLarge(SendError),
}

impl CallError for PublishError {
    fn timed_out(limit: Duration) -> Self {
        Self::Unacknowledged(format!("no acknowledgement within {limit:?}"))
    }

    fn is_outage(&self) -> bool {
        matches!(self, Self::Unacknowledged(_))
    }
}

impl From<SendError> for PublishError {
    fn from(error: SendError) -> Self {
        match error {
            SendError::Full | SendError::Failed(_) => Self::Unacknowledged(error.to_string()),
            SendError::TooLarge => Self::TooLarge(error),
        }
    }
}

/// The log as a dependency: the client itself retries what is not acknowledged, until the deadline. After several failed
/// requests in a row the circuit opens, and requests are rejected until a probe succeeds.
pub(crate) fn limits(config: &IngestConfig) -> DependencyConfig {
    DependencyConfig::new(config.acknowledge_timeout(), config.max_in_flight)
}

/// Writes all records, transactions in the order of their timestamps, and waits until the log has acknowledged them.
///
/// # Errors
/// 503 if a record may be missing: the caller sends all of them again, and their ids keep them from counting twice. 413
/// if a record is too large for the log.
pub(crate) async fn publish(app: &App, records: &PublishRequest<'_>) -> Result<(), Problem> {
    let deadline = Instant::now() + app.config.acknowledge_timeout();
    let call = app
        .log
        .call(CallPolicy::no_retry(), || write(app, records, deadline));
    let (_, result) = call.await;
    result.map_err(|error| match error {
        CallFailure::Rejected(error @ PublishError::TooLarge(_)) => {
            Problem::new(StatusCode::PAYLOAD_TOO_LARGE, error.to_string())
        }
        CallFailure::Rejected(error) | CallFailure::Unavailable(Some(error)) => {
            tracing::warn!(%error, "the log did not acknowledge a request");
            let detail = "the log has not acknowledged the transactions, but some of them may be on it; send them again with the same transaction_id, which keeps them from counting twice";
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail).retry_after(RETRY)
        }
        CallFailure::Unavailable(None) => {
            metrics::counter!("tollgate_ingest_shed_total", "reason" => "log").increment(1);
            let detail = "the log is not acknowledging records; nothing of this request was accepted";
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail).retry_after(RETRY)
        }
    })
}

/// [`write_all`] within a span of the request's trace.
async fn write(
    app: &App,
    records: &PublishRequest<'_>,
    deadline: Instant,
) -> Result<(), PublishError> {
    let parent = records.trace.context();
    let own = parent.filter(|_| records.trace.has_own() && !records.transactions.is_empty());
    let Some(context) = begin(own).filter(|_| own.is_some()) else {
        return write_all(app, records, parent, deadline).await;
    };
    let mut span = sending("ingest", &app.topic, context, parent)
        .linked_to(records.transactions.iter().filter_map(|(own, _)| *own));
    if records.transactions.len() > 1 {
        let number = i64::try_from(records.transactions.len()).unwrap_or(i64::MAX);
        span.set("messaging.batch.message_count", number);
    }
    let written = write_all(app, records, Some(context), deadline).await;
    if let Err(error) = &written {
        span.fail("unacknowledged", error.to_string());
        records.trace.keep();
    }
    records.trace.end(span);
    written
}

/// Writes the records and waits for their acknowledgements. `context` is the trace context of records without their own.
async fn write_all(
    app: &App,
    records: &PublishRequest<'_>,
    context: Option<TraceContext>,
    deadline: Instant,
) -> Result<(), PublishError> {
    // A context that is not sampled, that no caller supplied and for which no caller is waiting would not lead to a span
    // in any other service, and the header costs its readers more than scoring does.
    let is_propagated = |context: &TraceContext| {
        context.is_sampled() || records.trace.has_parent() || records.reply_to.is_some()
    };
    let context = context.filter(is_propagated);
    let reply_to = records.reply_to.map(|address| address.to_string());
    // Vendors put what they like into it.
    let state = records.trace.state().map(|state| app.cards.mask(state));
    let (done, acknowledged) = oneshot::channel();
    let acks = Acks::new(move |result| {
        // The receiver is gone if the request ended at its deadline or its caller disconnected.
        let _ = done.send(result);
    });
    for index in arrival_order(&records.transactions) {
        let (own, transaction) = &records.transactions[index];
        let state = state.as_deref().filter(|_| own.is_none());
        let reply_to = reply_to
            .as_deref()
            .filter(|_| records.unawaited.binary_search(&index).is_err());
        let headers: Vec<(&str, Option<&[u8]>)> = [
            (TRACESTATE, state),
            (REPLY_TO, reply_to),
            (TENANT, records.tenant.given()),
            (SENDER, records.provenance.sender.as_deref()),
            (BACKFILL, records.provenance.backfill.then_some("1")),
        ]
        .into_iter()
        .filter_map(|(name, value)| Some((name, Some(value?.as_bytes()))))
        .collect();
        let context = own.or(context);
        let line = transaction.one_line_within(context, app.config.max_transaction_bytes);
        let record = ProducerRecord {
            headers: &headers,
            context,
            ..ProducerRecord::signed(&app.topic, transaction.user_id.as_bytes(), line.as_bytes())
        };
        send(app, &record, &acks, deadline).await?;
        // Lets other requests run on this thread: thousands of sends may complete without waiting.
        tokio::task::consume_budget().await;
    }
    for row in &records.rejected {
        loop {
            match row.send(&app.kafka, &app.producer, &acks, || true) {
                Err(SendError::Full) if Instant::now() < deadline => {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                sent => break sent?,
            }
        }
        tokio::task::consume_budget().await;
    }
    for entry in &records.imports {
        let payload = entry.to_json();
        let topic = &app.kafka.topics().imports;
        let key = entry.key();
        let record = ProducerRecord::signed(topic, key.as_bytes(), &payload);
        send(app, &record, &acks, deadline).await?;
    }
    acks.seal();
    match tokio::time::timeout_at(deadline.into(), acknowledged).await {
        Ok(Ok(Ok(()))) => Ok(()),
        Ok(Ok(Err(failure))) => Err(unacknowledged(failure)),
        Ok(Err(_)) => Err(unacknowledged("the producer has stopped")),
        Err(_) => Err(unacknowledged("no acknowledgement in time")),
    }
}

/// The indices of the transactions in the order in which they are written, that of their timestamps: exports are often
/// newest first. Those with the same timestamp stay in the order of the request.
pub(crate) fn arrival_order<T>(transactions: &[(T, &Transaction<'_>)]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..transactions.len()).collect();
    order.sort_by_key(|index| transactions[*index].1.timestamp);
    order
}

async fn send(
    app: &App,
    record: &ProducerRecord<'_>,
    acks: &Arc<Acks>,
    deadline: Instant,
) -> Result<(), PublishError> {
    Ok(app.producer.send_until(record, acks, deadline).await?)
}

fn unacknowledged(reason: impl ToString) -> PublishError {
    PublishError::Unacknowledged(reason.to_string())
}
