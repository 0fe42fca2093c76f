//! `POST /v1/events`: CloudEvents 1.0 in all three modes, the envelope of OCI Events, and both through a subscription of
//! Oracle's Notifications.
//!
//! An event that tells of an object has it imported; the data of any other is a transaction, or an array of them.

mod confirmation;
mod envelope;
mod meaning;

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Instant;

use axum::Json;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::value::RawValue;
use tollgate_log::{Origin, RejectedRow};
use tollgate_service::http::{Problem, RequestTrace};
use tollgate_types::{Rejection, TraceContext};
use utoipa::ToSchema;

use crate::api::App;
use crate::imports::Entry;
use crate::intake;
use crate::items::{self, Format, Unreadable};
use crate::openapi;
use crate::publish::Batch;
use crate::report::{ItemResult, Sorted};
use crate::transactions::unreadable;
pub(crate) use confirmation::Confirmations;
use envelope::Event;

/// Every event has its fate.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = EventReport)]
pub(crate) struct EventReport<'a> {
    /// Events that are taken.
    accepted: usize,
    /// Events that break a rule.
    rejected: usize,
    /// One for each event, in their order.
    results: Vec<EventResult<'a>>,
}

/// What became of one event.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = EventResult)]
pub(crate) struct EventResult<'a> {
    /// Which event of the request, counted from 0.
    index: usize,
    /// The event's id; null where it could not be made out.
    #[schema(value_type = Option<String>)]
    id: Option<&'a str>,
    /// `accepted` or `rejected`.
    status: &'static str,
    /// Only for an object: the import that reads it, the same for the same version of the same object.
    #[serde(skip_serializing_if = "Option::is_none")]
    import: Option<String>,
    /// Only for transactions: how many were taken.
    #[serde(skip_serializing_if = "Option::is_none")]
    transactions: Option<usize>,
    /// Only for transactions: those that break a rule. Where the event is taken they are among the dead letters too.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<ItemResult>, required = false)]
    results: Vec<ItemResult<'static>>,
    /// Only where rejected: the member at fault; null where it is the whole event.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    field: Option<Option<&'static str>>,
    /// Only where rejected: what is wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    reason: Option<Cow<'static, str>>,
}

/// Send events
///
/// Takes CloudEvents 1.0 (structured, batch and binary mode) and the envelope of OCI Events, also as Oracle's
/// Notifications delivers them; a subscription is confirmed by itself. An event that tells of an object has it read, row
/// by row, once for each version of the object. The data of any other event is a transaction, or an array of them.
///
/// 202 means that everything that was taken is on the log for good.
#[utoipa::path(
    post,
    path = "/v1/events",
    tag = "events",
    operation_id = "sendEvents",
    request_body(
        description = "An event, or an array of them; in binary mode its data, and the rest in headers `ce-…`.",
        content(
            (Object = "application/cloudevents+json", example = json!({"specversion": "1.0", "id": "1", "type": "com.example.payment", "source": "/shop", "data": {"transaction_id": "tx-1", "user_id": "user-1", "amount": 19.99, "timestamp": "2026-03-01T12:31:00Z"}})),
            (Vec<Object> = "application/cloudevents-batch+json"),
            (Object = "application/json", example = json!({"cloudEventsVersion": "0.1", "eventID": "1", "eventType": "com.oraclecloud.objectstorage.createobject", "source": "ObjectStorage", "data": {"resourceName": "2026/03/01.csv.gz", "additionalDetails": {"bucketName": "transactions", "eTag": "199f8dbf"}}})),
        ),
    ),
    responses(
        (status = 200, description = "A subscription is confirmed."),
        (status = 202, description = "Every accepted event is on the log; `results` says what became of each.", body = EventReport),
        (status = 400, description = "Nothing could be read, or a confirmation URL that is not allowed.", body = openapi::Problem, content_type = "application/problem+json"),
        (status = 401, description = "No API key, or an unknown one.", body = openapi::Problem, content_type = "application/problem+json"),
        (status = 403, description = "The key lacks the scope `transactions:write`.", body = openapi::Problem, content_type = "application/problem+json"),
        (status = 408, description = "The body did not arrive in time.", body = openapi::Problem, content_type = "application/problem+json"),
        (status = 415, description = "A content coding such as gzip.", body = openapi::Problem, content_type = "application/problem+json"),
        (status = 413, description = "The body is too large, or holds too many events or transactions.", body = openapi::Problem, content_type = "application/problem+json"),
        (status = 422, description = "Every event was rejected; `results` says why.", body = openapi::Problem, content_type = "application/problem+json"),
        (status = 429, description = "The key's rate limit. Nothing was taken; come again after `Retry-After`.", body = openapi::Problem, content_type = "application/problem+json", headers(("Retry-After" = u64, description = "Seconds."))),
        (status = 500, description = "A defect of this service.", body = openapi::Problem, content_type = "application/problem+json"),
        (status = 502, description = "The confirmation URL did not answer.", body = openapi::Problem, content_type = "application/problem+json"),
        (status = 503, description = "Too much is under way, or the log has not acknowledged. Send again after `Retry-After`.", body = openapi::Problem, content_type = "application/problem+json", headers(("Retry-After" = u64, description = "Seconds."))),
    ),
    security((), ("bearer" = []), ("api_key" = []), ("basic" = [])),
)]
pub(crate) async fn submit(State(app): State<Arc<App>>, request: Request) -> Response {
    intake::answered(request, async |parts, body| answer(&app, parts, body).await).await
}

async fn answer(app: &App, parts: &Parts, body: &mut Body) -> Result<Response, Problem> {
    let caller = intake::identify(app, parts)?;
    intake::refuse_coding(parts)?;
    let admitted = intake::admit(app, body).await?;
    let body = admitted.body.bytes();
    if let Some(url) = confirmation::asked(&parts.headers, body) {
        app.limits.charge(&caller, 1)?;
        app.confirmations.confirm(&url).await?;
        return Ok(StatusCode::OK.into_response());
    }
    let limit = app.config.max_items;
    let events = split(parts, body, limit).map_err(unreadable)?;
    let opened: Vec<Opened<'_>> = events.iter().map(|event| open(app, event)).collect();
    let items = opened.iter().map(Opened::items).sum();
    app.limits.charge(&caller, items)?;
    if items > limit {
        return Err(unreadable(Unreadable::TooMany(limit)));
    }
    let mut sorted = Vec::with_capacity(opened.len());
    for event in &opened {
        sorted.push(match &event.asks {
            Asks::Transactions(texts) => intake::sort(app, texts.iter().copied()).await,
            Asks::Import(_) | Asks::Nothing(_) => Sorted::default(),
        });
    }
    let results: Vec<EventResult<'_>> = opened
        .iter()
        .zip(&sorted)
        .enumerate()
        .map(|(index, (event, sorted))| result(index, event, sorted))
        .collect();
    let taken = results.iter().filter(|result| result.status == ACCEPTED);
    let accepted = taken.count();
    let rejected = results.len() - accepted;
    for result in results
        .iter()
        .filter(|result| result.status != ACCEPTED)
        .take(LOGGED)
    {
        let (id, reason) = (result.id.map(cut), result.reason.as_deref());
        tracing::warn!(
            id,
            field = result.field.flatten(),
            reason,
            "an event is rejected"
        );
    }
    // Whoever sends through Notifications reads no answer, and would only be sent again what is wrong.
    let unread = parts.headers.contains_key("x-oci-ns-messageid");
    if accepted == 0 && !unread {
        let detail = "every event was rejected; `results` says why";
        return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, detail)
            .with("accepted", 0)
            .with("rejected", rejected)
            .with("results", &results));
    }
    settle(app, &opened, &sorted, intake::trace(parts)).await?;
    let report = EventReport {
        accepted,
        rejected,
        results,
    };
    Ok((StatusCode::ACCEPTED, Json(report)).into_response())
}

const ACCEPTED: &str = "accepted";
/// Rejected events of a request that are logged, each by itself.
const LOGGED: usize = 10;

/// A text of a sender's, as far as it is passed on to logs and headers.
fn cut(text: &str) -> &str {
    let end = text
        .char_indices()
        .nth(256)
        .map_or(text.len(), |(at, _)| at);
    &text[..end]
}

/// The events of a request. Whichever way they came, JSON says what they are.
fn split<'a>(
    parts: &'a Parts,
    body: &'a [u8],
    limit: usize,
) -> Result<Vec<Result<Event<'a>, Rejection>>, Unreadable> {
    if envelope::is_binary(&parts.headers) {
        return Ok(vec![envelope::binary(&parts.headers, body)]);
    }
    let text =
        std::str::from_utf8(body).map_err(|error| Unreadable::NotUtf8(error.valid_up_to()))?;
    let not_json = |error: serde_json::Error| Unreadable::not_json(&error);
    let whole: &RawValue = serde_json::from_str(text).map_err(not_json)?;
    let events: Vec<&RawValue> = match whole.get().as_bytes().first() {
        Some(b'[') => serde_json::from_str(whole.get()).map_err(not_json)?,
        Some(b'{') => vec![whole],
        _ => return Err(Unreadable::NoEvents),
    };
    match events.len() {
        0 => Err(Unreadable::NoEvents),
        number if number > limit => Err(Unreadable::TooMany(limit)),
        _ => Ok(events.into_iter().map(envelope::structured).collect()),
    }
}

/// What an event asks for.
struct Opened<'a> {
    id: Option<&'a str>,
    source: &'a str,
    trace: Option<TraceContext>,
    asks: Asks<'a>,
}

enum Asks<'a> {
    Transactions(Vec<&'a [u8]>),
    Import(Entry),
    Nothing(Rejection),
}

impl Opened<'_> {
    fn items(&self) -> usize {
        match &self.asks {
            Asks::Transactions(texts) => texts.len(),
            Asks::Import(_) | Asks::Nothing(_) => 1,
        }
    }
}

fn open<'a>(app: &App, event: &'a Result<Event<'a>, Rejection>) -> Opened<'a> {
    let event = match event {
        Ok(event) => event,
        Err(rejection) => {
            return Opened {
                id: None,
                source: "",
                trace: None,
                asks: Asks::Nothing(rejection.clone()),
            };
        }
    };
    let asks = match meaning::object(event) {
        Ok(Some(request)) => match app.imports.check(&request.bucket, &request.object) {
            Ok(()) => Asks::Import(Entry::Requested(request)),
            Err(reason) => Asks::Nothing(Rejection::new("data", reason.to_string())),
        },
        Ok(None) => match items::split(Format::Json, &event.data, app.config.max_items) {
            Ok(texts) => Asks::Transactions(texts),
            Err(reason) => Asks::Nothing(Rejection::new("data", reason.to_string())),
        },
        Err(rejection) => Asks::Nothing(rejection),
    };
    Opened {
        id: Some(&event.id),
        source: &event.source,
        trace: event.trace(),
        asks,
    }
}

fn result<'a>(index: usize, event: &'a Opened<'_>, sorted: &Sorted<'_>) -> EventResult<'a> {
    let mut result = EventResult {
        index,
        id: event.id,
        status: ACCEPTED,
        import: None,
        transactions: None,
        results: sorted.rejected.clone(),
        field: None,
        reason: None,
    };
    let rejection = match &event.asks {
        Asks::Import(entry) => {
            result.import = Some(entry.id().to_owned());
            None
        }
        Asks::Transactions(_) if sorted.accepted.is_empty() => Some(Rejection::new(
            "data",
            "holds no transaction that keeps to the rules",
        )),
        Asks::Transactions(_) => {
            result.transactions = Some(sorted.accepted.len());
            None
        }
        Asks::Nothing(rejection) => Some(rejection.clone()),
    };
    if let Some(rejection) = rejection {
        result.status = "rejected";
        result.field = Some(Some(rejection.field).filter(|field| !field.is_empty()));
        result.reason = Some(rejection.reason);
    }
    result
}

/// Writes what the events ask for. Nobody may read the answer, so transactions that break a rule go to the dead letters.
async fn settle(
    app: &App,
    opened: &[Opened<'_>],
    sorted: &[Sorted<'_>],
    trace: Arc<RequestTrace>,
) -> Result<(), Problem> {
    let reasons: Vec<Vec<String>> = sorted
        .iter()
        .map(|sorted| sorted.rejected.iter().map(ItemResult::why).collect())
        .collect();
    let largest = opened.iter().map(Opened::items).max().unwrap_or_default();
    let indices: Vec<String> = (0..largest).map(|index| index.to_string()).collect();
    let mut batch = Batch::new(Arc::clone(&trace));
    for ((event, sorted), reasons) in opened.iter().zip(sorted).zip(&reasons) {
        match &event.asks {
            Asks::Import(entry) => batch.imports.push(entry.clone()),
            Asks::Transactions(texts) => {
                batch.transactions.extend(sorted.within(event.trace));
                for (rejected, reason) in sorted.rejected.iter().zip(reasons) {
                    batch.rejected.push(RejectedRow {
                        kind: "invalid",
                        reason,
                        payload: texts[rejected.index()],
                        origin: Origin::Message {
                            stream: cut(event.source),
                            partition: cut(event.id.unwrap_or_default()),
                            offset: &indices[rejected.index()],
                        },
                        under: trace.failed(),
                    });
                }
            }
            Asks::Nothing(_) => {}
        }
    }
    intake::settle(app, batch, None, Instant::now())
        .await
        .map(drop)
}
