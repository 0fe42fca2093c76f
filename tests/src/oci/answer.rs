//! Refusals in Oracle's form, `{"code","message"}`. Codes are those of the table of common API errors, which the retry
//! tests of Oracle's Go SDK repeat; the messages are for the reader of a failed test; Oracle's are shorter.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use serde_json::json;

pub(super) fn refusal(status: StatusCode, code: &str, message: &str) -> Response {
    let body = json!({ "code": code, "message": message });
    (status, Json(body)).into_response()
}

pub(super) fn not_authenticated(message: &str) -> Response {
    refusal(StatusCode::UNAUTHORIZED, "NotAuthenticated", message)
}

pub(super) fn cannot_parse(message: &str) -> Response {
    refusal(StatusCode::BAD_REQUEST, "CannotParseRequest", message)
}

pub(super) fn invalid_parameter(message: &str) -> Response {
    refusal(StatusCode::BAD_REQUEST, "InvalidParameter", message)
}

pub(super) fn missing_parameter(message: &str) -> Response {
    refusal(StatusCode::BAD_REQUEST, "MissingParameter", message)
}

/// Also what a caller without permission gets: Oracle does not distinguish the two.
pub(super) fn not_found(message: &str) -> Response {
    refusal(StatusCode::NOT_FOUND, "NotAuthorizedOrNotFound", message)
}

/// Without Retry-After: whether Oracle sends it with its own refusals is not known, so no client may depend on it. A test
/// that wants one plans it, see [`super::Faults::answer_next`].
pub(super) fn too_many_requests(message: &str) -> Response {
    refusal(StatusCode::TOO_MANY_REQUESTS, "TooManyRequests", message)
}

pub(super) fn too_large(message: &str) -> Response {
    refusal(StatusCode::PAYLOAD_TOO_LARGE, "PayloadTooLarge", message)
}

/// A body of another type than JSON. The status is HTTP's; what Oracle answers is not documented.
pub(super) fn not_json(content_type: &str) -> Response {
    let message = format!("content-type: {content_type:?} in place of application/json");
    refusal(
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        "UnsupportedMediaType",
        &message,
    )
}

/// The stand-in itself has failed.
pub(super) fn internal_error(error: &anyhow::Error) -> Response {
    refusal(
        StatusCode::INTERNAL_SERVER_ERROR,
        "InternalServerError",
        &format!("{error:#}"),
    )
}
