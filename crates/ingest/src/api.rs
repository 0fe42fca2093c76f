//! The routes. Every error is a problem (RFC 9457), and every request is measured.

use std::any::Any;
use std::sync::Arc;

use axum::Router;
use axum::http::{Method, StatusCode, Uri};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use tollgate_log::{Kafka, Producer};
use tollgate_service::Shutdown;
use tollgate_service::health::Health;
use tollgate_service::http::{ApiKeys, Problem, observed};
use tollgate_service::resilience::Dependency;
use tower_http::catch_panic::CatchPanicLayer;
use utoipa::OpenApi as _;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use utoipa_swagger_ui::SwaggerUi;

use crate::IngestConfig;
use crate::admission::AdmissionControl;
use crate::events::Confirmations;
use crate::imports::Imports;
use crate::openapi::ApiDoc;
use crate::replies::Replies;
use crate::{events, functions, transactions};

/// The state that the handlers share.
#[derive(Debug)]
pub(crate) struct App {
    pub(crate) config: IngestConfig,
    pub(crate) keys: ApiKeys,
    /// The name of the topic `transactions`.
    pub(crate) topic: String,
    pub(crate) producer: Producer,
    pub(crate) kafka: Kafka,
    pub(crate) imports: Imports,
    /// Confirms subscriptions of Oracle's Notifications.
    pub(crate) confirmations: Confirmations,
    /// The log as a dependency: its circuit breaker.
    pub(crate) log: Dependency,
    pub(crate) admission: AdmissionControl,
    pub(crate) replies: Replies,
    pub(crate) health: Health,
    pub(crate) shutdown: Shutdown,
}

/// All routes of the service.
pub(crate) fn router(app: Arc<App>) -> Router {
    let (routes, openapi) = OpenApiRouter::with_openapi(ApiDoc::openapi())
        .routes(routes!(transactions::submit))
        .routes(routes!(events::submit))
        .routes(routes!(functions::submit))
        .split_for_parts();
    let routes = routes
        .with_state(app)
        .merge(SwaggerUi::new("/docs").url("/openapi.json", openapi))
        .route("/", get(|| async { Redirect::to("/docs") }));
    with_common(routes)
}

fn with_common(routes: Router) -> Router {
    let routes = routes
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(CatchPanicLayer::custom(panicked));
    observed(routes, "ingest")
}

async fn not_found(uri: Uri) -> Problem {
    let detail = format!("{} does not exist; see /docs", uri.path());
    Problem::new(StatusCode::NOT_FOUND, detail)
}

async fn method_not_allowed(method: Method) -> Problem {
    let detail = format!("{method} is not supported here; see /docs");
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, detail)
}

/// The panic itself is written to standard error. Its text is not returned to the caller, since it may quote data.
fn panicked(_panic: Box<dyn Any + Send>) -> Response {
    metrics::counter!("tollgate_http_panics_total", "service" => "ingest").increment(1);
    let detail = "an internal error; its cause is in the log of the service";
    Problem::new(StatusCode::INTERNAL_SERVER_ERROR, detail).into_response()
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::extract::Request;
    use axum::http::header;
    use tower::ServiceExt as _;

    use super::*;

    #[tokio::test]
    async fn a_panic_in_a_handler_is_answered_with_a_problem_without_its_text() {
        async fn broken() -> Response {
            panic!("4111111111111111");
        }
        let app = with_common(Router::new().route("/", get(broken)));
        let request = Request::new(Body::empty());
        let response = app.oneshot(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
        let content_type = &response.headers()[header::CONTENT_TYPE];
        assert_eq!(content_type, "application/problem+json");
        let body = axum::body::to_bytes(response.into_body(), 10_000)
            .await
            .unwrap();
        assert!(!String::from_utf8_lossy(&body).contains("4111"));
    }
}
