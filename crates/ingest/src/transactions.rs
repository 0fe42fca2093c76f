//! `POST /v1/transactions`: from a request to its answer.

use std::sync::Arc;
use std::time::Instant;

use axum::Json;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::value::RawValue;
use tollgate_service::http::Problem;
use tollgate_types::JsonError;

use crate::api::App;
use crate::intake::{self, Waited};
use crate::items::{self, Format, Unreadable};
use crate::openapi;
use crate::prefer::Wait;
use crate::publish::Batch;
use crate::report::{Decided, Report, Sorted};

const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");

/// Send transactions
///
/// Takes one transaction, a JSON array of them, or NDJSON (one a line), and writes the valid ones to the log, in their
/// order. Each item has its own result: one that is wrong does not keep its neighbours back.
///
/// An answer of 200 or 202 means that every accepted transaction is on the log for good. After any other answer, or
/// none, send the request again with the same ids; a transaction that comes twice is decided on once.
///
/// With `Prefer: wait=N` the answer waits up to N seconds (decimals allowed, at most 30) for the decisions: 200 when
/// every accepted transaction has one, 202 with those that are there when time is over.
#[utoipa::path(
    post,
    path = "/v1/transactions",
    tag = "transactions",
    operation_id = "sendTransactions",
    params(
        ("Prefer" = Option<String>, Header, description = "`wait=N`: wait up to N seconds for the decisions (RFC 7240; decimals allowed, at most 30). Anything else is ignored.", example = json!("wait=2.5")),
        ("traceparent" = Option<String>, Header, description = "W3C trace context, passed on to every record that the request causes.", example = json!("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")),
        ("tracestate" = Option<String>, Header, description = "W3C trace state, passed on unread."),
    ),
    request_body(
        description = "One transaction, an array of them, or one a line. UTF-8.",
        content(
            (openapi::Transactions = "application/json", examples(
                ("one" = (summary = "One transaction", value = json!({"transaction_id": "tx-1", "user_id": "user-1", "amount": "1250.50", "timestamp": "2026-03-01T12:30:00Z", "location": {"latitude": 52.52, "longitude": 13.405}, "currency": "EUR", "merchant_id": "m-17"}))),
                ("several" = (summary = "Several", value = json!([{"transaction_id": "tx-2", "user_id": "user-1", "amount": 19.99, "timestamp": "2026-03-01T12:31:00Z"}, {"transaction_id": "tx-3", "user_id": "user-2", "amount": "500", "timestamp": "2026-03-01T12:31:02.25+01:00"}]))),
            )),
            (String = "application/x-ndjson", example = json!("{\"transaction_id\":\"tx-2\",\"user_id\":\"user-1\",\"amount\":19.99,\"timestamp\":\"2026-03-01T12:31:00Z\"}\n{\"transaction_id\":\"tx-3\",\"user_id\":\"user-2\",\"amount\":\"500\",\"timestamp\":\"2026-03-01T12:31:02Z\"}\n")),
        ),
    ),
    responses(
        (status = 200, description = "Only with `Prefer: wait`: every accepted transaction has its decision. Rejected items, if any, stand beside them in `results`.", body = Decided, headers(("Preference-Applied" = String, description = "The wait that was granted, such as `wait=2.5`."))),
        (status = 202, description = "Every accepted transaction is on the log. With `Prefer: wait`, time was over before every decision was there; those that were stand in `decisions`.", body = Report, headers(("Preference-Applied" = Option<String>, description = "The wait that was granted, such as `wait=2.5`.")), example = json!({"accepted": 1, "rejected": 1, "results": [{"index": 0, "transaction_id": "tx-1", "status": "accepted"}, {"index": 1, "transaction_id": "tx-2", "status": "rejected", "field": "amount", "reason": "must not be negative"}]})),
        (status = 400, description = "Nothing could be read: an empty body, no JSON, not UTF-8, no transactions in it. The detail says where.", body = openapi::Problem, content_type = "application/problem+json"),
        (status = 401, description = "No API key, or an unknown one.", body = openapi::Problem, content_type = "application/problem+json"),
        (status = 403, description = "The key lacks the scope `transactions:write`.", body = openapi::Problem, content_type = "application/problem+json"),
        (status = 408, description = "The body did not arrive in time.", body = openapi::Problem, content_type = "application/problem+json"),
        (status = 413, description = "The body is too large, or holds too many transactions.", body = openapi::Problem, content_type = "application/problem+json"),
        (status = 415, description = "Neither `application/json` nor `application/x-ndjson`, another charset than UTF-8, or a content coding.", body = openapi::Problem, content_type = "application/problem+json"),
        (status = 422, description = "Every item was rejected; `results` says why.", body = openapi::AllRejected, content_type = "application/problem+json"),
        (status = 429, description = "The key's rate limit. Nothing was taken; come again after `Retry-After`.", body = openapi::Problem, content_type = "application/problem+json", headers(("Retry-After" = u64, description = "Seconds."))),
        (status = 500, description = "A defect of this service.", body = openapi::Problem, content_type = "application/problem+json"),
        (status = 503, description = "Too much is under way, or the log has not acknowledged. Send again with the same ids after `Retry-After`.", body = openapi::Problem, content_type = "application/problem+json", headers(("Retry-After" = u64, description = "Seconds."))),
    ),
    security((), ("bearer" = []), ("api_key" = []), ("basic" = [])),
)]
pub(crate) async fn submit(State(app): State<Arc<App>>, request: Request) -> Response {
    intake::answered(request, async |parts, body| answer(&app, parts, body).await).await
}

async fn answer(app: &App, parts: &Parts, body: &mut Body) -> Result<Response, Problem> {
    let started = Instant::now();
    let caller = intake::identify(app, parts)?;
    let format = format_of(parts)?;
    let admitted = intake::admit(app, body).await?;
    let items = items::split(format, admitted.body.bytes(), app.config.max_items);
    app.limits
        .charge(&caller, items.as_ref().map_or(1, Vec::len))?;
    let items = items.map_err(unreadable)?;
    let sorted = intake::sort(app, items.iter().copied()).await;
    if sorted.accepted.is_empty() {
        return Err(all_rejected(&sorted));
    }
    let batch = Batch {
        transactions: sorted.within(None).collect(),
        ..Batch::new(intake::trace(parts))
    };
    let wait = Wait::of(&parts.headers);
    let waited = intake::settle(app, batch, wait, started).await?;
    Ok(match waited.zip(wait) {
        None => accepted(&sorted, None),
        Some((waited, wait)) => decided(&sorted, wait, waited),
    })
}

fn format_of(parts: &Parts) -> Result<Format, Problem> {
    let text = |name| {
        parts
            .headers
            .get(name)
            .map(|value| value.to_str().unwrap_or_default())
    };
    intake::refuse_coding(parts)?;
    text(header::CONTENT_TYPE)
        .and_then(Format::of)
        .ok_or_else(|| {
            let detail =
                "the Content-Type must be application/json or application/x-ndjson, in UTF-8";
            Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail)
        })
}

pub(crate) fn unreadable(why: Unreadable) -> Problem {
    let detail = why.to_string();
    match why {
        Unreadable::TooMany(_) => Problem::new(StatusCode::PAYLOAD_TOO_LARGE, detail),
        Unreadable::NotJson(JsonError { line, column, .. }) => {
            Problem::new(StatusCode::BAD_REQUEST, detail)
                .with("line", line)
                .with("column", column)
        }
        Unreadable::Empty
        | Unreadable::NotUtf8(_)
        | Unreadable::NoTransactions
        | Unreadable::NoBatch
        | Unreadable::NoEvents => Problem::new(StatusCode::BAD_REQUEST, detail),
    }
}

fn all_rejected(sorted: &Sorted<'_>) -> Problem {
    let detail = "every transaction was rejected; `results` says why";
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY, detail)
        .with("accepted", 0)
        .with("rejected", sorted.rejected.len())
        .with("results", &sorted.rejected)
}

fn accepted(sorted: &Sorted<'_>, decisions: Option<Vec<Box<RawValue>>>) -> Response {
    let report = Report {
        accepted: sorted.accepted.len(),
        rejected: sorted.rejected.len(),
        results: sorted.results(),
        decisions,
    };
    (StatusCode::ACCEPTED, Json(report)).into_response()
}

fn decided(sorted: &Sorted<'_>, wait: Wait, waited: Waited) -> Response {
    let decisions: Vec<Box<RawValue>> = waited.decisions.into_iter().flatten().collect();
    let mut response = if waited.complete {
        let results = sorted.rejected.clone();
        Json(Decided { decisions, results }).into_response()
    } else {
        accepted(sorted, Some(decisions))
    };
    if let Some(applied) = wait.applied() {
        response.headers_mut().insert(PREFERENCE_APPLIED, applied);
    }
    response
}
