//! `POST /v1/events`: CloudEvents 1.0 in all three modes and the envelope of OCI Events, sent directly or through a
//! subscription of Oracle's Notifications.
//!
//! An event about an object requests an import; the data of any other event is a transaction, or an array of them.

mod confirmation;
mod content;
mod envelope;
mod object_event;
mod report;

use std::sync::Arc;
use std::time::Instant;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use tollgate_log::Origin;
use tollgate_service::http::Problem;
use tollgate_types::Protected;

use crate::api::App;
use crate::items::UnreadableBody;
use crate::letters::{self, Formats, Rejected};
use crate::openapi;
use crate::provenance::Provenance;
use crate::publish::PublishRequest;
use crate::report::{ItemResult, ValidatedItems};
use crate::request::{self, Arriving};
pub(crate) use confirmation::Confirmations;
use content::{EventContent, ImportOwner, ParsedEvent};
use report::{EventReport, EventResult};

/// For the fuzz targets: the texts of the transactions of the events of a request in structured mode.
#[cfg(feature = "fuzzing")]
pub(crate) fn texts(body: &[u8], limit: usize) -> Result<Vec<Vec<u8>>, String> {
    let (parts, ()) = Request::new(()).into_parts();
    let events = content::split(&parts, body, limit).map_err(|error| error.to_string())?;
    let mut texts = Vec::new();
    for event in events.iter().flatten() {
        let _ = event.trace();
        if let Ok(None) = object_event::import_request(event) {
            let items = crate::items::split(crate::items::Format::Json, &event.data, limit);
            texts.extend(items.unwrap_or_default().into_iter().map(<[u8]>::to_vec));
        }
    }
    Ok(texts)
}

/// How many of a request's rejected events its log line names.
const MAX_LOGGED_REJECTIONS: usize = 3;
/// How many characters of a sender's text are copied into logs and headers.
const MAX_COPIED_CHARS: usize = 256;

/// Send events
///
/// Accepts CloudEvents 1.0 (structured, batch and binary mode) and the envelope of OCI Events, also as delivered by
/// Oracle's Notifications; a subscription is confirmed automatically. An event about an object starts an import of its
/// rows, once for each version of the object. The data of any other event is a transaction, or an array of them.
///
/// 202 means that everything that was accepted is durably on the log.
#[utoipa::path(
    post,
    path = "/v1/events",
    tag = "events",
    operation_id = "sendEvents",
    request_body(
        description = "An event, or an array of them; in binary mode the data, with the attributes in headers `ce-…`.",
        content(
            (Object = "application/cloudevents+json", example = json!({"specversion": "1.0", "id": "1", "type": "com.example.payment", "source": "/shop", "data": {"transaction_id": "tx-1", "user_id": "user-1", "amount": 19.99, "timestamp": "2026-03-01T12:31:00Z"}})),
            (Vec<Object> = "application/cloudevents-batch+json"),
            (Object = "application/json", example = json!({"cloudEventsVersion": "0.1", "eventID": "1", "eventType": "com.oraclecloud.objectstorage.createobject", "source": "ObjectStorage", "data": {"resourceName": "2026/03/01.csv.gz", "additionalDetails": {"bucketName": "transactions", "eTag": "199f8dbf"}}})),
        ),
    ),
    responses(
        openapi::CommonProblems,
        (status = 200, description = "The subscription is confirmed."),
        (status = 202, description = "Every accepted event is on the log; `results` has the result of each event.", body = EventReport),
        (status = 400, description = "The body could not be read, or the confirmation URL is not allowed.", body = openapi::Problem, content_type = "application/problem+json"),
        (status = 422, description = "Every event was rejected; `results` has the reasons.", body = openapi::Problem, content_type = "application/problem+json"),
        (status = 502, description = "The confirmation URL did not answer with success.", body = openapi::Problem, content_type = "application/problem+json"),
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
    let caller = request::authenticate(app, parts)?;
    let provenance = Provenance::of(app, parts, &caller)?;
    request::require_json(parts)?;
    let body = request::admit(app, &caller, parts, arriving).await?;
    let body = body.as_slice();
    if let Some(url) = confirmation::confirmation_url(&parts.headers, body) {
        app.admission.charge(&caller, 1)?;
        app.confirmations.confirm(&url).await?;
        return Ok(StatusCode::OK.into_response());
    }
    let limit = app.config.max_items;
    let events = content::split(parts, body, limit)?;
    let events: Vec<ParsedEvent<'_>> = events
        .iter()
        .map(|event| {
            let owner = ImportOwner {
                tenant: caller.tenant(),
                backfill: provenance.backfill,
            };
            ParsedEvent::of(event, &app.imports, &app.cards, owner, limit)
        })
        .collect();
    let items = events.iter().map(ParsedEvent::items).sum();
    app.admission.charge(&caller, items)?;
    if items > limit {
        return Err(UnreadableBody::TooMany(limit).into());
    }
    let mut texts = Vec::with_capacity(events.len());
    for event in &events {
        texts.push(match &event.content {
            EventContent::Transactions(texts) => request::protect(app, texts.iter().copied()).await,
            EventContent::Import(_) | EventContent::Invalid(_) => Vec::new(),
        });
    }
    let mut validated: Vec<ValidatedItems<'_>> = Vec::with_capacity(events.len());
    for texts in &texts {
        validated.push(request::validate(app, &provenance, texts).await);
    }
    let mut results: Vec<EventResult<'_>> = events
        .iter()
        .zip(&validated)
        .enumerate()
        .map(|(index, (event, validated))| EventResult::of(index, event, validated))
        .collect();
    let accepted = results.iter().filter(|result| result.is_accepted()).count();
    let rejected = results.len() - accepted;
    log_rejections(&results);
    EventResult::shorten(&mut results);
    // Notifications ignores the answer, and would deliver the rejected events again.
    let from_notifications = parts.headers.contains_key("x-oci-ns-messageid");
    if accepted == 0 && !from_notifications {
        let detail = "every event was rejected; `results` has the reasons";
        return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, detail)
            .with("accepted", 0)
            .with("rejected", rejected)
            .with("results", &results));
    }
    let records = PublishRequest::new(&caller, request::trace(parts), provenance);
    let late = publish_events(app, &events, &texts, &validated, records).await?;
    let report = EventReport {
        accepted,
        rejected,
        late,
        results,
    };
    Ok((StatusCode::ACCEPTED, Json(report)).into_response())
}

fn log_rejections(results: &[EventResult<'_>]) {
    let rejected = results.iter().filter(|result| !result.is_accepted());
    let number = rejected.clone().count();
    if number == 0 {
        return;
    }
    let first: Vec<String> = rejected
        .take(MAX_LOGGED_REJECTIONS)
        .map(|result| {
            let id = result.id.as_deref().map(truncated).unwrap_or_default();
            let field = result.field.flatten().unwrap_or_default();
            format!(
                "{id:?} {field}: {}",
                result.reason.as_deref().unwrap_or_default()
            )
        })
        .collect();
    tracing::warn!(
        rejected = number,
        first = first.join("; "),
        "events are rejected"
    );
}

fn truncated(text: &str) -> &str {
    let end = text
        .char_indices()
        .nth(MAX_COPIED_CHARS)
        .map_or(text.len(), |(at, _)| at);
    &text[..end]
}

/// Writes what the events contain; how many transactions are late. The answer may not be read, so invalid transactions are dead-lettered.
async fn publish_events(
    app: &App,
    events: &[ParsedEvent<'_>],
    texts: &[Vec<Protected<'_>>],
    validated: &[ValidatedItems<'_>],
    empty: PublishRequest<'_>,
) -> Result<usize, Problem> {
    let reasons: Vec<Vec<String>> = validated
        .iter()
        .map(|items| items.rejected.iter().map(ItemResult::message).collect())
        .collect();
    let largest = events.iter().map(ParsedEvent::items).max();
    let indices: Vec<String> = (0..largest.unwrap_or_default())
        .map(|index| index.to_string())
        .collect();
    let trace = Arc::clone(&empty.trace);
    let mut records = empty;
    let mut rejected = Vec::new();
    let mut origins = Vec::new();
    let items = texts.iter().zip(validated);
    for ((event, (texts, items)), reasons) in events.iter().zip(items).zip(&reasons) {
        match &event.content {
            EventContent::Import(entry) => records.imports.push(entry.clone()),
            EventContent::Transactions(_) => {
                records.transactions.extend(items.with_trace(event.trace));
                for (result, reason) in items.rejected.iter().zip(reasons) {
                    rejected.push(Rejected::of(&texts[result.index()], reason));
                    origins.push(Origin::Message {
                        stream: truncated(&event.source),
                        partition: truncated(event.id.as_deref().unwrap_or_default()),
                        offset: &indices[result.index()],
                    });
                }
            }
            EventContent::Invalid(_) => {}
        }
    }
    letters::log("transactions of events", &rejected);
    let combined = letters::combine(&rejected);
    let formats = Formats::new(app.config.user_id_case);
    let claims = records.provenance.clone();
    records.rejected = letters::rows(
        &rejected,
        &combined,
        &formats,
        claims.claims(records.tenant),
        |at| origins[at],
        || trace.failed(),
    );
    request::publish_and_wait(app, records, None, Instant::now())
        .await
        .map(|published| published.late)
}
