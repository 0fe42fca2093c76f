//! What every way in has in common: who calls, whether there is room, the body, and what becomes of its items.

use std::sync::Arc;
use std::time::Instant;

use axum::body::Body;
use axum::extract::Request;
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::value::RawValue;
use tokio::sync::OwnedSemaphorePermit;
use tollgate_service::http::{Caller, Problem, RequestTrace, Scope};
use tollgate_types::Status;

use crate::api::App;
use crate::availability::require_log;
use crate::body::{self, Received};
use crate::items::{self, Rules};
use crate::prefer::Wait;
use crate::publish::{Batch, publish};
use crate::report::{ItemResult, Sorted};
use crate::waiters::AwaitedDecisions;

/// Answers a request by `answer`, which gets its head and its body.
pub(crate) async fn answered(
    request: Request,
    answer: impl AsyncFnOnce(&Parts, &mut Body) -> Result<Response, Problem>,
) -> Response {
    let (parts, mut body) = request.into_parts();
    match answer(&parts, &mut body).await {
        Ok(response) => response,
        Err(problem) => {
            // A caller that asked whether to send its body at all has not begun to.
            if !parts.headers.contains_key(header::EXPECT) {
                body::discard(&mut body).await;
            }
            problem.into_response()
        }
    }
}

/// The request's trace.
pub(crate) fn trace(parts: &Parts) -> Arc<RequestTrace> {
    parts.extensions.get().cloned().unwrap_or_default()
}

pub(crate) fn identify(app: &App, parts: &Parts) -> Result<Caller, Problem> {
    app.keys
        .authorize(&parts.headers, &Scope::TRANSACTIONS_WRITE)
}

/// A body that is compressed would read as damaged.
pub(crate) fn refuse_coding(parts: &Parts) -> Result<(), Problem> {
    let coding = parts.headers.get(header::CONTENT_ENCODING);
    let plain = coding.is_none_or(|coding| coding.as_bytes().eq_ignore_ascii_case(b"identity"));
    if plain {
        return Ok(());
    }
    let detail = "content codings such as gzip are not taken; send the body as it is";
    Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail))
}

/// A request that was let in: its body, and its place among those under way.
pub(crate) struct Admitted {
    pub(crate) body: Received,
    _place: OwnedSemaphorePermit,
}

/// Lets a request in, where the log can be written to and there is room, and reads its body.
pub(crate) async fn admit(app: &App, body: &mut Body) -> Result<Admitted, Problem> {
    require_log(&app.health)?;
    let place = app.limits.enter()?;
    let (max, time) = (app.config.max_body_bytes, app.config.request_timeout());
    Ok(Admitted {
        body: body::receive(body, max, time, &app.limits).await?,
        _place: place,
    })
}

/// Tells the items that are transactions from those that are not.
pub(crate) async fn sort<'a>(app: &App, items: impl Iterator<Item = &'a [u8]>) -> Sorted<'a> {
    let rules = Rules {
        max_bytes: app.config.max_transaction_bytes,
        now_micros: items::now_micros(),
    };
    let mut sorted = Sorted::default();
    for (index, item) in items.enumerate() {
        match items::check(item, rules) {
            Ok(transaction) => sorted.accepted.push((index, transaction)),
            Err(rejection) => {
                let field = if rejection.field.is_empty() {
                    "item"
                } else {
                    rejection.field
                };
                metrics::counter!("tollgate_ingest_rejections_total", "field" => field)
                    .increment(1);
                let result = ItemResult::rejected(index, item, rejection);
                sorted.rejected.push(result);
            }
        }
        // A body of megabytes would keep other requests from this thread.
        tokio::task::consume_budget().await;
    }
    metrics::counter!("tollgate_ingest_transactions_total", "outcome" => "rejected")
        .increment(sorted.rejected.len() as u64);
    sorted
}

/// The decisions that a request waits for.
pub(crate) struct Waited {
    /// Those that are there, each at the place of its transaction.
    pub(crate) decisions: Vec<Option<Box<RawValue>>>,
    /// All of them.
    pub(crate) complete: bool,
}

/// Writes a batch to the log, and waits for its decisions if that is wished and possible: without replies to read
/// nobody can wait, and RFC 7240 lets a preference be ignored.
pub(crate) async fn settle(
    app: &App,
    mut batch: Batch<'_>,
    wait: Option<Wait>,
    started: Instant,
) -> Result<Option<Waited>, Problem> {
    if batch.is_empty() {
        return Ok(None);
    }
    let wait = wait.zip(app.replies.partition());
    // Registered before anything is produced: a decision may be faster than the acknowledgement.
    let awaited = wait.map(|_| {
        let accepted = batch.transactions.iter();
        let ids = accepted.map(|(_, item)| (item.user_id.as_ref(), item.transaction_id.as_ref()));
        app.replies.waiters.register(ids)
    });
    batch.reply_to = wait.map(|(_, partition)| partition);
    publish(app, &batch).await?;
    metrics::counter!("tollgate_ingest_transactions_total", "outcome" => "accepted")
        .increment(batch.transactions.len() as u64);
    match wait.zip(awaited) {
        None => Ok(None),
        Some(((wait, _), awaited)) => {
            let waited = decided(app, wait, awaited, started).await;
            if batch.trace.has_own()
                && waited
                    .decisions
                    .iter()
                    .flatten()
                    .any(|decision| is_alert(decision))
            {
                batch.trace.keep();
            }
            Ok(Some(waited))
        }
    }
}

fn is_alert(decision: &RawValue) -> bool {
    #[derive(serde::Deserialize)]
    struct Decided {
        status: Status,
    }
    serde_json::from_str(decision.get()).is_ok_and(|decided: Decided| decided.status.is_alert())
}

async fn decided(app: &App, wait: Wait, mut awaited: AwaitedDecisions, started: Instant) -> Waited {
    let deadline = started + wait.duration();
    let complete = tokio::select! {
        complete = awaited.all_by(deadline) => complete,
        // The answer must be out before the grace period is over.
        () = app.shutdown.begun() => {
            awaited.all_by(deadline.min(Instant::now() + app.shutdown.grace() / 2)).await
        }
    };
    Waited {
        decisions: awaited.take(),
        complete,
    }
}
