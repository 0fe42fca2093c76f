//! Writing the accepted transactions of a request to the log, and waiting until it has them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::http::StatusCode;
use tokio::sync::oneshot;
use tollgate_runtime::http::Problem;
use tollgate_runtime::kafka::{Acks, Outgoing, Producer, SendError};
use tollgate_types::Transaction;
use tollgate_types::headers::{REPLY_TO, TRACEPARENT, TRACESTATE};

use crate::trace::TraceContext;

/// When to send again what was not acknowledged.
const RETRY: Duration = Duration::from_secs(2);

/// What all records of one request have in common.
#[derive(Debug)]
pub(crate) struct Envelope<'a> {
    pub(crate) topic: &'a str,
    pub(crate) trace: &'a TraceContext,
    /// The partition of `replies` on which the request waits, if it does.
    pub(crate) reply_to: Option<i32>,
}

/// Writes the transactions in their order. When this returns, the log has them all.
///
/// # Errors
/// 503 where it may not have one of them: the caller sends all again, and their ids keep them from counting twice.
pub(crate) async fn publish(
    producer: &Producer,
    envelope: &Envelope<'_>,
    transactions: &[(usize, Transaction<'_>)],
    deadline: Instant,
) -> Result<(), Problem> {
    let reply_to = envelope.reply_to.map(|partition| partition.to_string());
    let headers: Vec<(&str, Option<&[u8]>)> = [
        (TRACEPARENT, envelope.trace.parent.as_deref()),
        (TRACESTATE, envelope.trace.state.as_deref()),
        (REPLY_TO, reply_to.as_deref()),
    ]
    .into_iter()
    .filter_map(|(name, value)| Some((name, Some(value?.as_bytes()))))
    .collect();

    let (done, acknowledged) = oneshot::channel();
    let acks = Acks::new(move |result| {
        // The request may have ended at its deadline, or its caller have gone.
        let _ = done.send(result);
    });
    for (_, transaction) in transactions {
        let line = transaction.one_line();
        let record = Outgoing {
            headers: &headers,
            ..Outgoing::new(
                envelope.topic,
                transaction.user_id.as_bytes(),
                line.as_bytes(),
            )
        };
        send(producer, &record, &acks, deadline).await?;
        // Thousands of sends that never wait would keep other requests from this thread.
        tokio::task::consume_budget().await;
    }
    acks.seal();
    match tokio::time::timeout_at(deadline.into(), acknowledged).await {
        Ok(Ok(Ok(()))) => Ok(()),
        Ok(Ok(Err(failure))) => Err(unacknowledged(&failure.to_string())),
        Ok(Err(_)) => Err(unacknowledged("the producer is gone")),
        Err(_) => Err(unacknowledged("no acknowledgement in time")),
    }
}

async fn send(
    producer: &Producer,
    record: &Outgoing<'_>,
    acks: &Arc<Acks>,
    deadline: Instant,
) -> Result<(), Problem> {
    match producer.send_until(record, acks, deadline).await {
        Ok(()) => Ok(()),
        Err(error @ (SendError::Full | SendError::Failed(_))) => {
            Err(unacknowledged(&error.to_string()))
        }
        // The settings are checked against this at start; to send again would not help.
        Err(error @ SendError::TooLarge) => Err(Problem::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            error.to_string(),
        )),
    }
}

fn unacknowledged(reason: &str) -> Problem {
    tracing::warn!(reason, "a request was not acknowledged by the log");
    let problem = Problem::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "the log has not acknowledged the transactions, some of them may be on it; send them again with the same transaction_id, which keeps them from counting twice",
    );
    problem.retry_after(RETRY)
}
