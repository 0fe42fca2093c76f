//! The admin port of a service: `/livez`, `/readyz`, `/metrics`.

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde_json::json;

use super::Bound;
use crate::Shutdown;
use crate::health::Health;
use crate::telemetry::metrics_text;

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

async fn prometheus() -> Response {
    (
        [(header::CONTENT_TYPE, "text/plain; version=0.0.4")],
        metrics_text(),
    )
        .into_response()
}
