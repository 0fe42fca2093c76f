//! The admin port of a service: `/livez`, `/readyz`, `/metrics`, and the log filter at `/log`.

use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, put};
use serde_json::json;
use tower_http::timeout::TimeoutLayer;

use super::{Bound, Problem};
use crate::Shutdown;
use crate::health::Health;
use crate::telemetry::{LogLevels, log_levels, metrics_text};

/// Longest log filter, in bytes. Each directive is evaluated for each line.
const MAX_FILTER: usize = 2_048;
/// The time of a request: a body that is sent slowly must not hold a connection.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Answers health checks, scrapes and the service's `own` routes until `shutdown`, which is given after the service has
/// drained: until then it is alive and not ready.
///
/// # Errors
/// The listener failed.
pub(crate) async fn serve_admin(
    bound: Bound,
    own: Router,
    health: Health,
    shutdown: Shutdown,
) -> anyhow::Result<()> {
    if !bound.address().ip().is_loopback() {
        let address = bound.address();
        tracing::warn!(%address, "the admin port has no authentication, and listens beyond this machine: whoever reaches it reads metrics and changes the levels of log lines; only scrapers and probes should");
    }
    let app = Router::new()
        .route("/livez", get(|| async { "alive\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(prometheus))
        .route(
            "/log",
            put(set_levels)
                .layer(DefaultBodyLimit::max(MAX_FILTER))
                .get(levels)
                .delete(reset_levels),
        )
        .with_state(health)
        .merge(own)
        .layer(TimeoutLayer::with_status_code(
            StatusCode::REQUEST_TIMEOUT,
            TIMEOUT,
        ));
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
async fn set_levels(body: Result<Bytes, BytesRejection>) -> Response {
    let Some(levels) = log_levels() else {
        return unset().into_response();
    };
    let refused = |status, reason: String| {
        Problem::new(status, format!("the filter: {reason}"))
            .with("reason", reason)
            .into_response()
    };
    let body = match body {
        Ok(body) => body,
        Err(rejection) if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE => {
            return refused(
                rejection.status(),
                format!("longer than {MAX_FILTER} bytes"),
            );
        }
        Err(rejection) => return refused(rejection.status(), rejection.body_text()),
    };
    let Ok(filter) = std::str::from_utf8(&body).map(str::trim) else {
        return refused(StatusCode::BAD_REQUEST, "not UTF-8".to_owned());
    };
    match levels.set(filter) {
        Ok(()) => {
            tracing::warn!(filter, "the log filter was changed");
            let mut answer = format!("{filter}\n");
            if !filter.split(',').any(|word| !word.contains(['=', '['])) {
                answer.push_str(
                    "# targets that it does not name are off now; begin it with info, to keep them\n",
                );
            }
            answer.into_response()
        }
        Err(reason) => refused(StatusCode::BAD_REQUEST, reason),
    }
}

async fn reset_levels() -> Response {
    match log_levels().map(LogLevels::reset) {
        Some(Ok(())) => levels().await,
        Some(Err(reason)) => Problem::new(StatusCode::SERVICE_UNAVAILABLE, reason).into_response(),
        None => unset().into_response(),
    }
}

/// The program has set a subscriber of its own.
fn unset() -> Problem {
    let detail = "the log of this process was not set up by Tollgate";
    Problem::new(StatusCode::NOT_FOUND, detail)
}

async fn prometheus() -> Response {
    (
        [(header::CONTENT_TYPE, "text/plain; version=0.0.4")],
        metrics_text(),
    )
        .into_response()
}
