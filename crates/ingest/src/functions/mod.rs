//! `POST /v1/functions/streaming`: a batch of stream messages, each answered with its decision.
//!
//! Connector Hub discards the answer, and delivers a refused batch again without end. So an invalid message is
//! dead-lettered, in addition to being reported.

mod messages;

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Instant;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};
use tollgate_log::Origin;
use tollgate_service::http::Problem;
use tollgate_types::ErrorReply;
use utoipa::ToSchema;

use crate::api::App;
use crate::letters::{self, Formats, Rejected};
use crate::openapi;
use crate::prefer::Wait;
use crate::provenance::Provenance;
use crate::publish::PublishRequest;
use crate::report::ValidatedItems;
use crate::request::{self, Arriving};
use messages::Position;

/// For the fuzz targets: the texts of the transactions in a batch of messages.
#[cfg(feature = "fuzzing")]
pub(crate) fn texts(body: &[u8], limit: usize) -> Result<Vec<Vec<u8>>, String> {
    let messages = messages::split(body, limit).map_err(|error| error.to_string())?;
    Ok(messages
        .into_iter()
        .map(|message| {
            let _ = Position::of(message, &tollgate_types::CardPolicy::default());
            messages::item(message).into_owned()
        })
        .collect())
}

/// Messages that are no transactions and have a reason in the answer. It could be a hundred times as long as the message,
/// and the dead letters have all reasons.
const MAX_EXPLAINED: usize = 100;

/// The result of a batch.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Processed)]
pub(crate) struct Processed {
    /// The number of messages in the batch.
    processed_count: usize,
    /// For each message, in their order: its decision; or, if the decision did not arrive in time, its id and the status
    /// `accepted`; or, if it is not a transaction or could not be decided, its id if it has one, the status `error`, and
    /// the reason. Of messages that are no transactions the first 100 have id and reason, the others the status alone.
    #[schema(value_type = Vec<Object>)]
    results: Vec<Box<RawValue>>,
    /// When the batch was answered.
    #[schema(value_type = String, format = "date-time")]
    processing_time: String,
}

/// Send a batch of a stream
///
/// Accepts what a function on a stream receives: `{"messages":[{"value":…}]}`, or Connector Hub's array with base64 values.
/// A value is a transaction as JSON text, plain or in base64, or as an object. 200 means that every message is processed:
/// its transaction is on the log, or its text is a dead letter.
#[utoipa::path(
    post,
    path = "/v1/functions/streaming",
    tag = "transactions",
    operation_id = "sendStreamingBatch",
    params(
        ("Prefer" = Option<String>, Header, description = "`wait=N`: wait up to N seconds for the decisions, instead of `ingest.functions_wait_ms`. Other preferences are ignored; a `wait` that is no number is answered with 400.", example = json!("wait=2.5")),
    ),
    request_body(
        content = Object,
        description = "A batch of messages.",
        content_type = "application/json",
        example = json!({"messages": [{"value": "{\"transaction_id\":\"tx-1\",\"user_id\":\"user-1\",\"amount\":19.99,\"timestamp\":\"2026-03-01T12:31:00Z\"}"}]}),
    ),
    responses(
        openapi::CommonProblems,
        (status = 200, description = "Every message is processed.", body = Processed, example = json!({"processed_count": 1, "results": [{"transaction_id": "tx-1", "status": "accepted"}], "processing_time": "2026-03-01T12:31:00.123456Z"})),
        (status = 400, description = "Not a batch: malformed JSON, not UTF-8, or neither an array nor an object with `messages`.", body = openapi::Problem, content_type = "application/problem+json"),
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
    request::require_json(parts)?;
    let preferred = Wait::of(&parts.headers)?;
    let body = request::admit(app, &caller, parts, arriving).await?;
    let messages = messages::split(&body, app.config.max_items);
    app.admission
        .charge(&caller, messages.as_ref().map_or(1, Vec::len))?;
    let messages = messages?;
    let items: Vec<Cow<'_, [u8]>> = messages
        .iter()
        .map(|message| messages::item(message))
        .collect();
    let items = request::protect(app, items.iter().map(|item| &**item)).await;
    let validated = request::validate(app, &provenance, &items).await;
    let positions: Vec<Position> = messages
        .iter()
        .map(|message| Position::of(message, &app.cards))
        .collect();
    let reasons: Vec<String> = validated
        .rejected
        .iter()
        .map(|result| result.message())
        .collect();
    let trace = request::trace(parts);
    let origin = |rejected: usize| {
        let position = &positions[validated.rejected[rejected].index()];
        Origin::Message {
            stream: &position.stream,
            partition: &position.partition,
            offset: &position.offset,
        }
    };
    let all: Vec<Rejected<'_>> = validated
        .rejected
        .iter()
        .zip(&reasons)
        .map(|(result, reason)| Rejected::of(&items[result.index()], reason))
        .collect();
    letters::log("messages", &all);
    let combined = letters::combine(&all);
    let formats = Formats::new(app.config.user_id_case);
    let claims = provenance.clone();
    let claims = claims.claims(caller.tenant());
    let rejected = letters::rows(&all, &combined, &formats, claims, origin, || trace.failed());
    let records = PublishRequest {
        transactions: validated.with_trace(None).collect(),
        rejected,
        ..PublishRequest::new(&caller, Arc::clone(&trace), provenance)
    };
    let wait = preferred.unwrap_or_else(|| Wait::of_millis(app.config.functions_wait_ms));
    let wait = Some(wait).filter(|_| !validated.accepted.is_empty());
    let published = request::publish_and_wait(app, records, wait, started).await?;
    let decisions = published
        .outcome
        .map(|outcome| outcome.decisions)
        .unwrap_or_default();
    let results = results(&validated, decisions);
    let processed = Processed {
        processed_count: results.len(),
        results,
        processing_time: tollgate_service::now().to_string(),
    };
    Ok((StatusCode::OK, Json(processed)).into_response())
}

/// One result for each message, in their order.
fn results(
    validated: &ValidatedItems<'_>,
    decisions: Vec<Option<Box<RawValue>>>,
) -> Vec<Box<RawValue>> {
    #[derive(Serialize)]
    struct Unexplained {
        status: &'static str,
    }
    #[derive(Serialize)]
    struct Undecided<'a> {
        transaction_id: Option<&'a str>,
        status: &'static str,
        #[serde(skip_serializing_if = "Option::is_none")]
        error: Option<String>,
    }
    let raw = |result: &Undecided<'_>| to_raw_value(result).ok();
    // An error reply in the form of the other errors of this endpoint.
    let as_result = |reply: Box<RawValue>| {
        let Ok(error) = serde_json::from_str::<ErrorReply<'_>>(reply.get()) else {
            return Some(reply);
        };
        raw(&Undecided {
            transaction_id: Some(&error.transaction_id),
            status: "error",
            error: Some(match &error.field {
                Some(field) => format!("{field}: {}", error.reason),
                None => error.reason.clone().into_owned(),
            }),
        })
    };
    let mut decisions = decisions.into_iter();
    let mut all: Vec<(usize, Box<RawValue>)> = Vec::new();
    for (index, transaction) in &validated.accepted {
        let undecided = || {
            raw(&Undecided {
                transaction_id: Some(&transaction.transaction_id),
                status: "accepted",
                error: None,
            })
        };
        let decided = decisions.next().flatten().and_then(as_result);
        all.extend(decided.or_else(undecided).map(|result| (*index, result)));
    }
    for (number, rejected) in validated.rejected.iter().enumerate() {
        let status = "error";
        let error = if number < MAX_EXPLAINED {
            raw(&Undecided {
                transaction_id: rejected.transaction_id(),
                status,
                error: Some(rejected.message()),
            })
        } else {
            to_raw_value(&Unexplained { status }).ok()
        };
        all.extend(error.map(|result| (rejected.index(), result)));
    }
    all.sort_by_key(|(index, _)| *index);
    all.into_iter().map(|(_, result)| result).collect()
}
