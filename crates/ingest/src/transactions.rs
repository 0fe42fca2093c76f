//! `POST /v1/transactions`: one transaction, an array of them, or NDJSON.

use std::sync::Arc;
use std::time::Instant;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::value::RawValue;
use tollgate_service::http::{self, Problem};

use crate::api::App;
use crate::items::{self, Format};
use crate::openapi;
use crate::prefer::Wait;
use crate::provenance::Provenance;
use crate::publish::PublishRequest;
use crate::report::{Decided, Report, ValidatedItems};
use crate::request::{self, Arriving, WaitOutcome};

/// Results in the answer to a request of which too much is rejected.
const MAX_RESULTS_OF_ENDED: usize = 100;
const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");

/// Send transactions
///
/// Accepts one transaction, a JSON array of them, or NDJSON (one per line), and writes the valid ones to the log, in the
/// order of their timestamps. Each item has its own result: an invalid item does not affect the others.
///
/// An answer of 200 or 202 means that every accepted transaction is durably on the log. After any other answer, or none,
/// send the request again with the same ids; a transaction that is sent twice is decided once.
///
/// With `Prefer: wait=N` the answer waits up to N seconds (decimals allowed, at most 30) for the decisions: 200 when
/// every accepted transaction has one, or 202 with those that arrived in time. An accepted transaction that could not be
/// decided has an object with the status `error` in its decision's place. Only the status `approved` is an approval:
/// send what has an error, or no decision yet, again with the same id, or hold the payment.
#[utoipa::path(
    post,
    path = "/v1/transactions",
    tag = "transactions",
    operation_id = "sendTransactions",
    params(
        ("Prefer" = Option<String>, Header, description = "`wait=N`: wait up to N seconds for the decisions (RFC 7240; decimals allowed, at most 30). Other preferences are ignored; a `wait` that is no number is answered with 400.", example = json!("wait=2.5")),
        ("Tollgate-Backfill" = Option<String>, Header, description = "`1`: the transactions are backfill. They build histories and get decisions, and cause no alert and no reply; `Prefer: wait` is ignored. Where API keys are configured, the key needs the scope `transactions:backfill`.", example = json!("1")),
        ("traceparent" = Option<String>, Header, description = "W3C trace context, propagated to every record that the request causes.", example = json!("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")),
        ("tracestate" = Option<String>, Header, description = "W3C trace state, propagated unchanged."),
    ),
    request_body(
        description = "One transaction, an array of them, or one per line. UTF-8. `Content-Encoding: gzip` is read.",
        content(
            (openapi::Transactions = "application/json", examples(
                ("one" = (summary = "One transaction", value = json!({"transaction_id": "tx-1", "user_id": "user-1", "amount": "1250.50", "timestamp": "2026-03-01T12:30:00Z", "location": {"latitude": 52.52, "longitude": 13.405}, "currency": "EUR", "merchant_id": "m-17"}))),
                ("several" = (summary = "Several", value = json!([{"transaction_id": "tx-2", "user_id": "user-1", "amount": 19.99, "timestamp": "2026-03-01T12:31:00Z"}, {"transaction_id": "tx-3", "user_id": "user-2", "amount": "500", "timestamp": "2026-03-01T12:31:02.25+01:00"}]))),
            )),
            (String = "application/x-ndjson", example = json!("{\"transaction_id\":\"tx-2\",\"user_id\":\"user-1\",\"amount\":19.99,\"timestamp\":\"2026-03-01T12:31:00Z\"}\n{\"transaction_id\":\"tx-3\",\"user_id\":\"user-2\",\"amount\":\"500\",\"timestamp\":\"2026-03-01T12:31:02Z\"}\n")),
        ),
    ),
    responses(
        openapi::CommonProblems,
        (status = 200, description = "Only with `Prefer: wait`: every accepted transaction has its decision, or an error in its place, which `undecided` counts. Rejected items, if any, are listed in `results`.", body = Decided, headers(("Preference-Applied" = String, description = "The wait that was granted, such as `wait=2.5`."))),
        (status = 202, description = "Every accepted transaction is on the log. With `Prefer: wait`, not every decision arrived in time; those that did are in `decisions`.", body = Report, headers(("Preference-Applied" = Option<String>, description = "The wait that was granted, such as `wait=2.5`.")), example = json!({"accepted": 1, "rejected": 1, "late": 0, "results": [{"index": 0, "transaction_id": "tx-1", "status": "accepted"}, {"index": 1, "transaction_id": "tx-2", "status": "rejected", "field": "amount", "reason": "must not be negative"}]})),
        (status = 400, description = "The body could not be read: it is empty, not JSON, not UTF-8, or has no transactions. The detail has the position. Or the `wait` of `Prefer` is no number.", body = openapi::Problem, content_type = "application/problem+json"),
        (status = 422, description = "Every item was rejected; `results` has the reasons.", body = openapi::AllRejected, content_type = "application/problem+json"),
    ),
    security((), ("bearer" = []), ("api_key" = []), ("basic" = [])),
)]
pub(crate) async fn submit(State(app): State<Arc<App>>, request: Request) -> Response {
    request::respond(request, async |parts, arriving| {
        answer(&app, parts, arriving).await
    })
    .await
}

async fn answer(app: &App, parts: &Parts, arriving: &mut Arriving) -> Result<Response, Problem> {
    let started = Instant::now();
    let caller = request::authenticate(app, parts)?;
    let provenance = Provenance::of(app, parts, &caller)?;
    let format = format_of(parts)?;
    let wait = Wait::of(&parts.headers)?;
    let body = request::admit(app, &caller, parts, arriving).await?;
    let items = items::split(format, &body, app.config.max_items);
    app.admission
        .charge(&caller, items.as_ref().map_or(1, Vec::len))?;
    let items = items?;
    let items = request::protect(app, items.into_iter()).await;
    let validated = request::validate(app, &provenance, &items).await;
    if let Some(reason) = too_many_rejected(app, &validated, items.len()) {
        return Err(ended(&validated, &reason));
    }
    if validated.accepted.is_empty() {
        return Err(all_rejected(&validated));
    }
    let records = PublishRequest {
        transactions: validated.with_trace(None).collect(),
        ..PublishRequest::new(&caller, request::trace(parts), provenance)
    };
    let published = request::publish_and_wait(app, records, wait, started).await?;
    let late = published.late;
    Ok(match published.outcome.zip(wait) {
        None => accepted(&validated, late, None, None),
        Some((outcome, wait)) => decided(&validated, late, wait, outcome),
    })
}

fn format_of(parts: &Parts) -> Result<Format, Problem> {
    let text = |name| {
        parts
            .headers
            .get(name)
            .map(|value| value.to_str().unwrap_or_default())
    };
    text(header::CONTENT_TYPE)
        .and_then(Format::of)
        .ok_or_else(|| {
            let allowed = "application/json, or application/x-ndjson (also called application/ndjson, application/jsonl or application/x-jsonlines) with one transaction a line, in UTF-8";
            http::unsupported_type(&parts.headers, allowed)
        })
}

/// Why nothing of the request is accepted, although some of it may be valid.
fn too_many_rejected(app: &App, validated: &ValidatedItems<'_>, items: usize) -> Option<String> {
    let rejected = validated.rejected.len() as u64;
    let limits = &app.config.request_rejects;
    limits.exceeded("request_rejects", items as u64, rejected)
}

/// The answer has the first results only: all of them could be a hundred times as long as the request.
fn ended(validated: &ValidatedItems<'_>, reason: &str) -> Problem {
    metrics::counter!("tollgate_ingest_ended_total").increment(1);
    let shown = validated.rejected.len().min(MAX_RESULTS_OF_ENDED);
    let detail = format!("nothing was accepted: {reason}; `results` has the first reasons");
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY, detail)
        .with("accepted", 0)
        .with("rejected", validated.rejected.len())
        .with("results", &validated.rejected[..shown])
}

fn all_rejected(validated: &ValidatedItems<'_>) -> Problem {
    let detail = "every transaction was rejected; `results` has the reasons";
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY, detail)
        .with("accepted", 0)
        .with("rejected", validated.rejected.len())
        .with("results", &validated.rejected)
}

fn accepted(
    validated: &ValidatedItems<'_>,
    late: usize,
    decisions: Option<Vec<Box<RawValue>>>,
    undecided: Option<usize>,
) -> Response {
    let report = Report {
        accepted: validated.accepted.len(),
        rejected: validated.rejected.len(),
        late,
        results: validated.results(),
        decisions,
        undecided,
    };
    (StatusCode::ACCEPTED, Json(report)).into_response()
}

fn decided(
    validated: &ValidatedItems<'_>,
    late: usize,
    wait: Wait,
    outcome: WaitOutcome,
) -> Response {
    let undecided = outcome.undecided();
    let decisions: Vec<Box<RawValue>> = outcome.decisions.into_iter().flatten().collect();
    let mut response = if outcome.complete {
        let results = validated.rejected.clone();
        let decided = Decided {
            decisions,
            late,
            undecided,
            results,
        };
        Json(decided).into_response()
    } else {
        accepted(validated, late, Some(decisions), Some(undecided))
    };
    if let Some(applied) = wait.applied() {
        response.headers_mut().insert(PREFERENCE_APPLIED, applied);
    }
    response
}
