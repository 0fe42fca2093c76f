//! The routes, and what all of them have in common: problems instead of bare errors, and measurement.

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
use crate::events::Confirmations;
use crate::imports::Imports;
use crate::limits::Limits;
use crate::openapi::ApiDoc;
use crate::replies::Replies;
use crate::{events, functions, transactions};

/// What the handlers share.
#[derive(Debug)]
pub(crate) struct App {
    pub(crate) config: IngestConfig,
    pub(crate) keys: ApiKeys,
    /// The topic of transactions.
    pub(crate) topic: String,
    pub(crate) producer: Producer,
    pub(crate) kafka: Kafka,
    pub(crate) imports: Imports,
    /// For subscriptions that are to be confirmed.
    pub(crate) confirmations: Confirmations,
    /// What is known of whether it writes.
    pub(crate) log: Dependency,
    pub(crate) limits: Limits,
    pub(crate) replies: Replies,
    pub(crate) health: Health,
    pub(crate) shutdown: Shutdown,
}

/// The whole face of the service.
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
    let detail = format!(
        "there is nothing at {}; /docs shows what there is",
        uri.path()
    );
    Problem::new(StatusCode::NOT_FOUND, detail)
}

async fn method_not_allowed(method: Method) -> Problem {
    let detail = format!("{method} does nothing here; /docs shows what does");
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, detail)
}

/// The panic itself is on standard error already; its text is nothing for a caller, since it may quote data.
fn panicked(_panic: Box<dyn Any + Send>) -> Response {
    metrics::counter!("tollgate_http_panics_total", "service" => "ingest").increment(1);
    let detail = "a defect of this service; what it did is on its log";
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
    async fn a_handler_that_panics_is_answered_with_a_problem_that_hides_its_words() {
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
