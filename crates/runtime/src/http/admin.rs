//! The admin port of a service: `/livez`, `/readyz`, `/metrics`, and the levels of its logs at `/log`.

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde_json::json;

use super::{Bound, Problem};
use crate::Shutdown;
use crate::health::Health;
use crate::telemetry::{LogLevels, log_levels, metrics_text};

/// Answers probes and scrapes until `shutdown`, which is given when the service has drained, not when it begins to:
/// a service that drains is alive, and says that it is not ready.
///
/// # Errors
/// Where the listener breaks.
pub async fn serve_admin(bound: Bound, health: Health, shutdown: Shutdown) -> anyhow::Result<()> {
    let app = Router::new()
        .route("/livez", get(|| async { "alive\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(prometheus))
        .route("/log", get(levels).put(set_levels).delete(reset_levels))
        .with_state(health);
    bound.serve(app, shutdown).await
}

async fn readyz(State(health): State<Health>) -> Response {
    let (reasons, warnings) = (health.reasons(), health.warnings());
    let (status, word) = if reasons.is_empty() {
        (StatusCode::OK, "ready")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "not ready")
    };
    let mut body = json!({ "status": word, "reasons": reasons });
    if !warnings.is_empty() {
        body["warnings"] = json!(warnings);
    }
    (status, axum::Json(body)).into_response()
}

async fn levels() -> Response {
    match log_levels() {
        Some(levels) => format!("{}\n", levels.current()).into_response(),
        None => unset().into_response(),
    }
}

/// The body is a filter such as `info,tollgate_scorer=debug`; it stays in force until the process ends.
async fn set_levels(filter: String) -> Response {
    let Some(levels) = log_levels() else {
        return unset().into_response();
    };
    let filter = filter.trim();
    match levels.set(filter) {
        Ok(()) => {
            tracing::warn!(filter, "the levels of the log were changed");
            (StatusCode::OK, format!("{filter}\n")).into_response()
        }
        Err(reason) => Problem::new(StatusCode::BAD_REQUEST, format!("the filter: {reason}"))
            .with("reason", reason)
            .into_response(),
    }
}

async fn reset_levels() -> Response {
    match log_levels().map(LogLevels::reset) {
        Some(Ok(())) => levels().await,
        Some(Err(reason)) => Problem::new(StatusCode::SERVICE_UNAVAILABLE, reason).into_response(),
        None => unset().into_response(),
    }
}

/// As in a program that has brought a subscriber of its own.
fn unset() -> Problem {
    let detail = "the log of this process is not Tollgate's to set";
    Problem::new(StatusCode::NOT_FOUND, detail)
}

async fn prometheus() -> Response {
    (
        [(header::CONTENT_TYPE, "text/plain; version=0.0.4")],
        metrics_text(),
    )
        .into_response()
}
