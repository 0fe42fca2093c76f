//! Writing what a request brought to the log, and waiting until it has it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::http::StatusCode;
use tokio::sync::oneshot;
use tollgate_log::spans::sending;
use tollgate_log::{Acks, ProducerRecord, RejectedRow, SendError};
use tollgate_service::http::{Problem, RequestTrace};
use tollgate_service::resilience::{CallError, CallFailure, CallPolicy, DependencyConfig};
use tollgate_service::telemetry::trace::begin;
use tollgate_types::headers::{REPLY_TO, TRACESTATE};
use tollgate_types::{TraceContext, Transaction};

use crate::IngestConfig;
use crate::api::App;
use crate::imports::Entry;

/// When to send again what was not acknowledged.
const RETRY: Duration = Duration::from_secs(2);

/// What one request writes.
#[derive(Debug)]
pub(crate) struct Batch<'a> {
    /// The request's.
    pub(crate) trace: Arc<RequestTrace>,
    /// In their order, each with the trace it is part of where that is not the request's.
    pub(crate) transactions: Vec<(Option<TraceContext>, &'a Transaction<'a>)>,
    /// The partition of `replies` on which the request waits, if it does.
    pub(crate) reply_to: Option<i32>,
    /// What no transaction could be made of, where nobody reads the answer that says so.
    pub(crate) rejected: Vec<RejectedRow<'a>>,
    /// Objects to import.
    pub(crate) imports: Vec<Entry>,
}

impl Batch<'_> {
    pub(crate) const fn new(trace: Arc<RequestTrace>) -> Self {
        Self {
            trace,
            transactions: Vec::new(),
            reply_to: None,
            rejected: Vec::new(),
            imports: Vec::new(),
        }
    }

    /// Whether there is nothing to write, and so nothing to learn of the log.
    pub(crate) fn is_empty(&self) -> bool {
        self.transactions.is_empty() && self.rejected.is_empty() && self.imports.is_empty()
    }
}

/// Why a request is not on the log.
#[derive(Debug, thiserror::Error)]
enum PublishError {
    #[error("{0}")]
    Unacknowledged(String),
    /// The settings are checked against this at start; to send again would not help.
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

/// How the log is called: the client itself sends again what was not acknowledged, until the deadline. A log that has
/// let several requests in a row down gets no more of them until one of the next has come through.
pub(crate) fn limits(config: &IngestConfig) -> DependencyConfig {
    DependencyConfig::new(config.acknowledge_timeout(), config.max_in_flight)
}

/// Writes everything in its order. When this returns, the log has it all.
///
/// # Errors
/// 503 where it may not have one of them: the caller sends all again, and their ids keep them from counting twice.
pub(crate) async fn publish(app: &App, batch: &Batch<'_>) -> Result<(), Problem> {
    let deadline = Instant::now() + app.config.acknowledge_timeout();
    let call = app
        .log
        .call(CallPolicy::no_retry(), || write(app, batch, deadline));
    let (_, result) = call.await;
    result.map_err(|error| match error {
        CallFailure::Rejected(error @ PublishError::TooLarge(_)) => {
            Problem::new(StatusCode::PAYLOAD_TOO_LARGE, error.to_string())
        }
        CallFailure::Rejected(error) | CallFailure::Unavailable(Some(error)) => {
            tracing::warn!(%error, "a request was not acknowledged by the log");
            let detail = "the log has not acknowledged the transactions, some of them may be on it; send them again with the same transaction_id, which keeps them from counting twice";
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail).retry_after(RETRY)
        }
        CallFailure::Unavailable(None) => {
            metrics::counter!("tollgate_ingest_shed_total", "reason" => "log").increment(1);
            let detail = "the log does not acknowledge what it is sent; nothing of this request was taken";
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail).retry_after(RETRY)
        }
    })
}

/// As [`write_all`], told in the request's trace.
async fn write(app: &App, batch: &Batch<'_>, deadline: Instant) -> Result<(), PublishError> {
    let parent = batch.trace.context();
    let own = parent.filter(|_| batch.trace.has_own() && !batch.transactions.is_empty());
    let Some(context) = begin(own).filter(|_| own.is_some()) else {
        return write_all(app, batch, parent, deadline).await;
    };
    let mut span = sending("ingest", &app.topic, context, parent)
        .linked_to(batch.transactions.iter().filter_map(|(own, _)| *own));
    if batch.transactions.len() > 1 {
        let number = i64::try_from(batch.transactions.len()).unwrap_or(i64::MAX);
        span.set("messaging.batch.message_count", number);
    }
    let written = write_all(app, batch, Some(context), deadline).await;
    if let Err(error) = &written {
        span.fail("unacknowledged", error.to_string());
        batch.trace.keep();
    }
    batch.trace.end(span);
    written
}

/// `context` is what the records carry that have none of their own.
async fn write_all(
    app: &App,
    batch: &Batch<'_>,
    context: Option<TraceContext>,
    deadline: Instant,
) -> Result<(), PublishError> {
    // There would be no span at the other end of a context that is not kept, that no caller gave, and for whose verdict
    // nobody waits; and to carry it costs its readers more than a score does.
    let travels = |context: &TraceContext| {
        context.is_sampled() || batch.trace.has_parent() || batch.reply_to.is_some()
    };
    let context = context.filter(travels);
    let reply_to = batch.reply_to.map(|partition| partition.to_string());
    let (done, acknowledged) = oneshot::channel();
    let acks = Acks::new(move |result| {
        // The request may have ended at its deadline, or its caller have gone.
        let _ = done.send(result);
    });
    for (own, transaction) in &batch.transactions {
        let state = batch.trace.state().filter(|_| own.is_none());
        let headers: Vec<(&str, Option<&[u8]>)> =
            [(TRACESTATE, state), (REPLY_TO, reply_to.as_deref())]
                .into_iter()
                .filter_map(|(name, value)| Some((name, Some(value?.as_bytes()))))
                .collect();
        let context = own.or(context);
        let line = transaction.one_line_in(context);
        let record = ProducerRecord {
            headers: &headers,
            context,
            ..ProducerRecord::new(&app.topic, transaction.user_id.as_bytes(), line.as_bytes())
        };
        send(app, &record, &acks, deadline).await?;
        // Thousands of sends that never wait would keep other requests from this thread.
        tokio::task::consume_budget().await;
    }
    for row in &batch.rejected {
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
    for entry in &batch.imports {
        let payload = entry.to_json();
        let topic = &app.kafka.topics().imports;
        let record = ProducerRecord::new(topic, entry.id().as_bytes(), &payload);
        send(app, &record, &acks, deadline).await?;
    }
    acks.seal();
    match tokio::time::timeout_at(deadline.into(), acknowledged).await {
        Ok(Ok(Ok(()))) => Ok(()),
        Ok(Ok(Err(failure))) => Err(unacknowledged(failure)),
        Ok(Err(_)) => Err(unacknowledged("the producer is gone")),
        Err(_) => Err(unacknowledged("no acknowledgement in time")),
    }
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
