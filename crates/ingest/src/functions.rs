//! `POST /v1/functions/streaming`: the batch that a function would get of a stream, answered as the reference design does.
//!
//! Nobody reads the answer to a batch that Connector Hub delivers, and what is wrong would stop it for ever. So a
//! message that is no transaction goes to the dead letters, beside being told.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Instant;

use axum::Json;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};
use tollgate_log::{Origin, RejectedRow};
use tollgate_service::http::Problem;
use utoipa::ToSchema;

use crate::api::App;
use crate::items::Unreadable;
use crate::openapi;
use crate::prefer::Wait;
use crate::publish::Batch;
use crate::report::Sorted;
use crate::{intake, transactions};

/// A message as a function or Connector Hub gets it. Writers do not agree on the types of its members.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Message<'a> {
    #[serde(borrow)]
    value: Option<&'a RawValue>,
    #[serde(borrow)]
    stream: Option<&'a RawValue>,
    #[serde(borrow)]
    partition: Option<&'a RawValue>,
    #[serde(borrow)]
    offset: Option<&'a RawValue>,
}

/// `{"messages":[…]}`, or the array alone.
#[derive(Debug, Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    messages: Vec<&'a RawValue>,
}

/// What became of a batch.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Processed)]
pub(crate) struct Processed {
    /// Messages in the batch.
    processed_count: usize,
    /// For each message, in their order: its decision; or, where that was not there in time, its id and the status
    /// `accepted`; or, where it is no transaction, its id if it has one, the status `error`, and the reason.
    #[schema(value_type = Vec<Object>)]
    results: Vec<Box<RawValue>>,
    /// When it was answered.
    #[schema(value_type = String, format = "date-time")]
    processing_time: String,
}

/// Send a batch of a stream
///
/// Takes what a function on a stream gets: `{"messages":[{"value":…}]}`, or Connector Hub's array with base64 values.
/// A value is a transaction as JSON text, in base64 or as it is, or as an object. 200 means that every message is settled:
/// its transaction on the log, or its text among the dead letters.
#[utoipa::path(
    post,
    path = "/v1/functions/streaming",
    tag = "transactions",
    operation_id = "sendStreamingBatch",
    params(
        ("Prefer" = Option<String>, Header, description = "`wait=N`: wait up to N seconds for the decisions, instead of `ingest.functions_wait_ms`. Anything else is ignored.", example = json!("wait=2.5")),
    ),
    request_body(
        content = Object,
        description = "A batch of messages.",
        content_type = "application/json",
        example = json!({"messages": [{"value": "{\"transaction_id\":\"tx-1\",\"user_id\":\"user-1\",\"amount\":19.99,\"timestamp\":\"2026-03-01T12:31:00Z\"}"}]}),
    ),
    responses(
        (status = 200, description = "Every message is settled.", body = Processed, example = json!({"processed_count": 1, "results": [{"transaction_id": "tx-1", "status": "accepted"}], "processing_time": "2026-03-01T12:31:00.123456Z"})),
        (status = 400, description = "No batch: malformed JSON, not UTF-8, neither an array nor an object with `messages`.", body = openapi::Problem, content_type = "application/problem+json"),
        (status = 401, description = "No API key, or an unknown one.", body = openapi::Problem, content_type = "application/problem+json"),
        (status = 403, description = "The key lacks the scope `transactions:write`.", body = openapi::Problem, content_type = "application/problem+json"),
        (status = 408, description = "The body did not arrive in time.", body = openapi::Problem, content_type = "application/problem+json"),
        (status = 415, description = "A content coding such as gzip.", body = openapi::Problem, content_type = "application/problem+json"),
        (status = 413, description = "The body is too large, or holds too many messages.", body = openapi::Problem, content_type = "application/problem+json"),
        (status = 429, description = "The key's rate limit. Nothing was taken; come again after `Retry-After`.", body = openapi::Problem, content_type = "application/problem+json", headers(("Retry-After" = u64, description = "Seconds."))),
        (status = 500, description = "A defect of this service.", body = openapi::Problem, content_type = "application/problem+json"),
        (status = 503, description = "Too much is under way, or the log has not acknowledged. Send the batch again after `Retry-After`.", body = openapi::Problem, content_type = "application/problem+json", headers(("Retry-After" = u64, description = "Seconds."))),
    ),
    security((), ("bearer" = []), ("api_key" = []), ("basic" = [])),
)]
pub(crate) async fn submit(State(app): State<Arc<App>>, request: Request) -> Response {
    intake::answered(request, async |parts, body| answer(&app, parts, body).await).await
}

async fn answer(app: &App, parts: &Parts, body: &mut Body) -> Result<Response, Problem> {
    let started = Instant::now();
    let caller = intake::identify(app, parts)?;
    intake::refuse_coding(parts)?;
    let admitted = intake::admit(app, body).await?;
    let messages = split(admitted.body.bytes(), app.config.max_items);
    app.limits
        .charge(&caller, messages.as_ref().map_or(1, Vec::len))?;
    let messages = messages.map_err(transactions::unreadable)?;
    let items: Vec<Cow<'_, [u8]>> = messages.iter().map(|message| item(message)).collect();
    let sorted = intake::sort(app, items.iter().map(|item| &**item)).await;
    let places: Vec<Place> = messages.iter().map(|message| Place::of(message)).collect();
    let reasons: Vec<String> = sorted.rejected.iter().map(|result| result.why()).collect();
    let trace = intake::trace(parts);
    let rejected = sorted
        .rejected
        .iter()
        .zip(&reasons)
        .map(|(result, reason)| {
            let place = &places[result.index()];
            RejectedRow {
                kind: "invalid",
                reason,
                payload: &items[result.index()],
                origin: Origin::Message {
                    stream: &place.stream,
                    partition: &place.partition,
                    offset: &place.offset,
                },
                under: trace.failed(),
            }
        });
    let batch = Batch {
        transactions: sorted.within(None).collect(),
        rejected: rejected.collect(),
        ..Batch::new(Arc::clone(&trace))
    };
    let wait =
        Wait::of(&parts.headers).unwrap_or_else(|| Wait::of_millis(app.config.functions_wait_ms));
    let wait = Some(wait).filter(|_| !sorted.accepted.is_empty());
    let waited = intake::settle(app, batch, wait, started).await?;
    let decisions = waited.map(|waited| waited.decisions).unwrap_or_default();
    let results = results(&sorted, decisions);
    let processed = Processed {
        processed_count: results.len(),
        results,
        processing_time: tollgate_service::now().to_string(),
    };
    Ok((StatusCode::OK, Json(processed)).into_response())
}

/// The messages of a batch, unread.
fn split(body: &[u8], limit: usize) -> Result<Vec<&RawValue>, Unreadable> {
    let text =
        std::str::from_utf8(body).map_err(|error| Unreadable::NotUtf8(error.valid_up_to()))?;
    let not_json = |error: serde_json::Error| Unreadable::not_json(&error);
    let whole: &RawValue = serde_json::from_str(text).map_err(not_json)?;
    let messages = if whole.get().starts_with('[') {
        serde_json::from_str(whole.get()).map_err(not_json)?
    } else {
        let envelope: Result<Envelope<'_>, _> = serde_json::from_str(whole.get());
        envelope.map_err(|_| Unreadable::NoBatch)?.messages
    };
    if messages.len() > limit {
        return Err(Unreadable::TooMany(limit));
    }
    Ok(messages)
}

/// The text of the transaction in a message; where there is none, the message itself, so that nothing is lost of it.
fn item<'a>(message: &'a RawValue) -> Cow<'a, [u8]> {
    let whole = || Cow::Borrowed(message.get().as_bytes());
    let read: Result<Message<'a>, _> = serde_json::from_str(message.get());
    let Some(value) = read.ok().and_then(|message| message.value) else {
        return whole();
    };
    if !value.get().starts_with('"') {
        return Cow::Borrowed(value.get().as_bytes());
    }
    let Ok(text) = serde_json::from_str::<String>(value.get()) else {
        return whole();
    };
    if text.trim_start().starts_with('{') {
        return Cow::Owned(text.into_bytes());
    }
    STANDARD
        .decode(text.trim())
        .map_or_else(|_| whole(), Cow::Owned)
}

/// Where a message stood, as its writer told it.
struct Place {
    stream: String,
    partition: String,
    offset: String,
}

impl Place {
    fn of(message: &RawValue) -> Self {
        let message: Message<'_> = serde_json::from_str(message.get()).unwrap_or_default();
        let text = |value: Option<&RawValue>| {
            let text = value.map_or("", RawValue::get).trim_matches('"');
            text.chars().take(256).collect::<String>()
        };
        let stream = text(message.stream);
        Self {
            stream: if stream.is_empty() {
                "functions".to_owned()
            } else {
                stream
            },
            partition: text(message.partition),
            offset: text(message.offset),
        }
    }
}

/// One result for each message, in their order.
fn results(sorted: &Sorted<'_>, decisions: Vec<Option<Box<RawValue>>>) -> Vec<Box<RawValue>> {
    #[derive(Serialize)]
    struct Undecided<'a> {
        transaction_id: Option<&'a str>,
        status: &'static str,
        #[serde(skip_serializing_if = "Option::is_none")]
        error: Option<String>,
    }
    let raw = |result: &Undecided<'_>| to_raw_value(result).ok();
    let mut decisions = decisions.into_iter();
    let mut all: Vec<(usize, Box<RawValue>)> = Vec::new();
    for (index, transaction) in &sorted.accepted {
        let undecided = || {
            raw(&Undecided {
                transaction_id: Some(&transaction.transaction_id),
                status: "accepted",
                error: None,
            })
        };
        let decided = decisions.next().flatten();
        all.extend(decided.or_else(undecided).map(|result| (*index, result)));
    }
    for rejected in &sorted.rejected {
        let error = raw(&Undecided {
            transaction_id: rejected.transaction_id(),
            status: "error",
            error: Some(rejected.why()),
        });
        all.extend(error.map(|result| (rejected.index(), result)));
    }
    all.sort_by_key(|(index, _)| *index);
    all.into_iter().map(|(_, result)| result).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn items(body: &str) -> Vec<String> {
        split(body.as_bytes(), 10)
            .unwrap()
            .into_iter()
            .map(|message| String::from_utf8_lossy(&item(message)).into_owned())
            .collect()
    }

    #[test]
    fn a_value_is_text_base64_or_an_object_and_the_batch_an_object_or_an_array() {
        let coded = STANDARD.encode(r#"{"a":1}"#);
        let messages = format!(
            r#"[{{"value":"{{\"a\":1}}"}},{{"value":"{coded}","offset":3}},{{"value":{{"a":1}},"partition":"0"}}]"#
        );
        let expected = vec![r#"{"a":1}"#; 3];
        assert_eq!(items(&messages), expected);
        assert_eq!(items(&format!(r#"{{"messages":{messages}}}"#)), expected);
        assert!(items(r#"{"messages":[]}"#).is_empty());
    }

    #[test]
    fn what_holds_no_value_is_kept_whole() {
        let wrong = r#"[{"key":"x"},7,{"value":"no base64!"}]"#;
        assert_eq!(
            items(wrong),
            [r#"{"key":"x"}"#, "7", r#"{"value":"no base64!"}"#]
        );
    }

    #[test]
    fn what_is_no_batch_is_told() {
        for body in ["{}", "{\"messages\":1}", "7"] {
            assert_eq!(split(body.as_bytes(), 1).unwrap_err(), Unreadable::NoBatch);
        }
        assert_eq!(split(b"[1,2]", 1).unwrap_err(), Unreadable::TooMany(1));
        assert!(matches!(
            split(b"[", 1).unwrap_err(),
            Unreadable::NotJson(_)
        ));
    }

    #[test]
    fn where_a_message_stood_is_kept_whatever_its_types() {
        let message: &RawValue =
            serde_json::from_str(r#"{"stream":"s","partition":0,"offset":"17","value":""}"#)
                .unwrap();
        let place = Place::of(message);
        assert_eq!(
            (&*place.stream, &*place.partition, &*place.offset),
            ("s", "0", "17")
        );
    }
}
