//! The steps that all endpoints have in common: authenticate, admit, read the body, validate the items, publish them and
//! wait for their decisions.
//!
//! Invariant: waiters are registered before anything is produced, so that no decision can be missed.

use std::sync::Arc;
use std::time::Instant;

use axum::body::Body;
use axum::extract::Request;
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::value::RawValue;
use tollgate_service::card_data::count_card_data;
use tollgate_service::http::{self, Caller, Problem, RequestTrace, Scope};
use tollgate_types::{JsonError, Protected, ReplyAddress, Status, without_mark};

use crate::api::App;
use crate::availability::require_log;
use crate::body::{self, RequestBody};
use crate::coding::Coding;
use crate::items::{self, ItemLimits, UnreadableBody};
use crate::pending_replies::AwaitedDecisions;
use crate::prefer::Wait;
use crate::provenance::Provenance;
use crate::publish::{PublishRequest, arrival_order, publish};
use crate::report::{ItemResult, ValidatedItems};
use crate::shares::SharePermit;

/// A request as it arrives: its body, and the permits that it is given when it is admitted.
pub(crate) struct Arriving {
    body: Body,
    permits: Vec<SharePermit>,
}

/// Answers a request by `handler`, which gets its head and what arrives after it. The request keeps its permits until the
/// answer is written: a caller that does not read its answers uses up its share.
pub(crate) async fn respond(
    request: Request,
    handler: impl AsyncFnOnce(&Parts, &mut Arriving) -> Result<Response, Problem>,
) -> Response {
    let (parts, body) = request.into_parts();
    let mut arriving = Arriving {
        body,
        permits: Vec::new(),
    };
    let mut response = match handler(&parts, &mut arriving).await {
        Ok(response) => response,
        Err(problem) => {
            // With `Expect: 100-continue` the caller has not begun to send its body.
            if !parts.headers.contains_key(header::EXPECT) {
                body::discard(&mut arriving.body).await;
            }
            problem.into_response()
        }
    };
    if !arriving.permits.is_empty() {
        http::hold_until_written(&mut response, arriving.permits, None);
    }
    response
}

/// The trace of a request.
pub(crate) fn trace(parts: &Parts) -> Arc<RequestTrace> {
    parts.extensions.get().cloned().unwrap_or_default()
}

/// The caller, by its API key.
///
/// # Errors
/// 401 without a known key, 403 if the key lacks the scope.
pub(crate) fn authenticate(app: &App, parts: &Parts) -> Result<Caller, Problem> {
    app.keys.authorize(
        &parts.headers,
        parts.extensions.get(),
        &Scope::TRANSACTIONS_WRITE,
    )
}

/// Rejects a body that is not JSON by its type. What Oracle's Notifications sends is recognised by its headers, which a web
/// page of another site may not send.
///
/// # Errors
/// 415 for any other type.
pub(crate) fn require_json(parts: &Parts) -> Result<(), Problem> {
    let is_notification = ["x-oci-ns-messageid", "x-oci-ns-messagetype"]
        .iter()
        .any(|name| parts.headers.contains_key(*name));
    if is_notification {
        return Ok(());
    }
    http::require_json(&parts.headers)
}

/// Admits a request if the log can be written to, there is capacity, and its caller has no more than its share of it. Then
/// its body is read. The request keeps its permits, whatever becomes of the body.
///
/// # Errors
/// 415 for a content coding that is not read; 503 if the log is unavailable or too much is in flight, 429 beyond the share of
/// the caller; the errors of [`body::receive`].
pub(crate) async fn admit(
    app: &App,
    caller: &Caller,
    parts: &Parts,
    arriving: &mut Arriving,
) -> Result<Vec<u8>, Problem> {
    let coding = Coding::of(parts)?;
    require_log(&app.health)?;
    let permit = app.admission.acquire_request(caller)?;
    arriving.permits.push(permit);
    let (max, pace) = (app.config.max_body_bytes, app.config.body_pace());
    let acquire = |bytes| app.admission.acquire_bytes(caller, bytes);
    let RequestBody { bytes, permit } =
        body::receive(&mut arriving.body, coding, max, pace, acquire).await?;
    arriving.permits.extend(permit);
    Ok(bytes)
}

impl From<UnreadableBody> for Problem {
    fn from(error: UnreadableBody) -> Self {
        let detail = error.to_string();
        match error {
            UnreadableBody::TooMany(_) => Self::new(StatusCode::PAYLOAD_TOO_LARGE, detail),
            UnreadableBody::NotJson(JsonError { line, column, .. }) => {
                Self::new(StatusCode::BAD_REQUEST, detail)
                    .with("line", line)
                    .with("column", column)
            }
            UnreadableBody::Empty
            | UnreadableBody::NotUtf8(_)
            | UnreadableBody::NoTransactions
            | UnreadableBody::NoBatch
            | UnreadableBody::NoEvents => Self::new(StatusCode::BAD_REQUEST, detail),
        }
    }
}

/// Takes card data out of every item. Nothing of an item is written, answered or logged before that.
pub(crate) async fn protect<'a>(
    app: &App,
    items: impl Iterator<Item = &'a [u8]>,
) -> Vec<Protected<'a>> {
    let mut protected = Vec::with_capacity(items.size_hint().0);
    for item in items {
        let item = app.cards.protect(without_mark(item));
        count_card_data("ingest", item.found);
        protected.push(item);
        tokio::task::consume_budget().await;
    }
    protected
}

/// Parses and validates every item.
pub(crate) async fn validate<'a>(
    app: &App,
    provenance: &Provenance,
    items: &'a [Protected<'_>],
) -> ValidatedItems<'a> {
    let limits = ItemLimits {
        max_bytes: app.config.max_transaction_bytes,
        now_micros: items::now_micros(),
        oldest_micros: provenance.oldest_micros,
        earliest: app.config.earliest_timestamp,
        user_id_case: app.config.user_id_case,
    };
    let mut validated = ValidatedItems::default();
    for (index, item) in items.iter().enumerate() {
        let checked = match &item.refusal {
            Some(refusal) => Err(refusal.clone()),
            None => items::validate(&item.text, limits),
        };
        match checked {
            Ok(transaction) => {
                items::count_mixed_scripts(&transaction);
                validated.accepted.push((index, transaction));
            }
            Err(rejection) => {
                let field = if rejection.field.is_empty() {
                    "item"
                } else {
                    rejection.field
                };
                metrics::counter!("tollgate_ingest_rejections_total", "field" => field)
                    .increment(1);
                let result = ItemResult::rejected(index, &item.text, rejection);
                validated.rejected.push(result);
            }
        }
        // Lets other requests run on this thread while a body of megabytes is parsed.
        tokio::task::consume_budget().await;
    }
    metrics::counter!("tollgate_ingest_transactions_total", "outcome" => "rejected")
        .increment(validated.rejected.len() as u64);
    validated
}

/// What became of the transactions of a request.
#[derive(Default)]
pub(crate) struct Published {
    /// How many are late: by their decisions, and for those without one by what this instance has written before.
    pub(crate) late: usize,
    /// The replies, if the request waited for them.
    pub(crate) outcome: Option<WaitOutcome>,
}

/// The replies that arrived while a request waited.
pub(crate) struct WaitOutcome {
    /// Each at the index of its transaction: its decision, or an error in its place.
    pub(crate) decisions: Vec<Option<Box<RawValue>>>,
    /// How many of them are errors.
    pub(crate) errors: usize,
    /// Whether every transaction has its reply.
    pub(crate) complete: bool,
}

impl WaitOutcome {
    /// How many transactions have no decision: those with an error, and those without a reply.
    pub(crate) fn undecided(&self) -> usize {
        self.errors + self.decisions.iter().filter(|slot| slot.is_none()).count()
    }
}

/// Publishes the records of a request, and waits for the decisions if `wait` is given. While no partition of replies is
/// read, and for backfill, which gets no replies, nothing is waited for: RFC 7240 permits ignoring a preference.
///
/// # Errors
/// The errors of [`publish`].
pub(crate) async fn publish_and_wait(
    app: &App,
    mut records: PublishRequest<'_>,
    wait: Option<Wait>,
    started: Instant,
) -> Result<Published, Problem> {
    if records.is_empty() {
        return Ok(Published::default());
    }
    let wait = wait
        .filter(|_| !records.provenance.backfill)
        .zip(app.replies.partition());
    // Registered before anything is produced: a decision may arrive before the acknowledgement.
    let awaited = wait.map(|_| {
        let accepted = records.transactions.iter();
        let ids = accepted.map(|(_, item)| (item.user_id.as_ref(), item.transaction_id.as_ref()));
        app.replies.pending.register(records.tenant, ids)
    });
    let address = wait.zip(awaited.as_ref());
    records.reply_to = address.map(|((_, partition), awaited)| ReplyAddress {
        partition,
        nonce: awaited.nonce(),
    });
    records.unawaited = awaited
        .as_ref()
        .map(|awaited| awaited.refused().to_vec())
        .unwrap_or_default();
    publish(app, &records).await?;
    metrics::counter!("tollgate_ingest_transactions_total", "outcome" => "accepted")
        .increment(records.transactions.len() as u64);
    let mut late = vec![false; records.transactions.len()];
    for index in arrival_order(&records.transactions) {
        let (_, transaction) = &records.transactions[index];
        let at = transaction.timestamp;
        late[index] = app.newest.is_late(records.tenant, &transaction.user_id, at);
    }
    let outcome = match wait.zip(awaited) {
        None => None,
        Some(((wait, _), awaited)) => {
            let outcome = wait_for_decisions(app, wait, awaited, started).await;
            let mut decisions = outcome.decisions.iter().flatten();
            if records.trace.has_own()
                && (outcome.errors > 0 || decisions.any(|decision| is_alert(decision)))
            {
                records.trace.keep();
            }
            metrics::counter!("tollgate_ingest_undecided_total").increment(outcome.errors as u64);
            for (late, decision) in late.iter_mut().zip(&outcome.decisions) {
                *late = decision.as_deref().and_then(is_late).unwrap_or(*late);
            }
            Some(outcome)
        }
    };
    let late = late.iter().filter(|late| **late).count();
    metrics::counter!("tollgate_ingest_late_total").increment(late as u64);
    Ok(Published { late, outcome })
}

/// Whether a decision says that its transaction is late; `None` for an error in its place.
fn is_late(decision: &RawValue) -> Option<bool> {
    #[derive(serde::Deserialize)]
    struct Decided {
        late: bool,
    }
    let decided: Decided = serde_json::from_str(decision.get()).ok()?;
    Some(decided.late)
}

fn is_alert(decision: &RawValue) -> bool {
    #[derive(serde::Deserialize)]
    struct Decided {
        status: Status,
    }
    serde_json::from_str(decision.get()).is_ok_and(|decided: Decided| decided.status.is_alert())
}

async fn wait_for_decisions(
    app: &App,
    wait: Wait,
    mut awaited: AwaitedDecisions,
    started: Instant,
) -> WaitOutcome {
    let deadline = started + wait.duration();
    let complete = tokio::select! {
        complete = awaited.all_by(deadline) => complete,
        // The answer must be sent before the grace period ends.
        () = app.shutdown.begun() => {
            awaited.all_by(deadline.min(Instant::now() + app.shutdown.grace() / 2)).await
        }
    };
    WaitOutcome {
        decisions: awaited.take(),
        errors: awaited.errors(),
        complete,
    }
}
