//! The routes, and what their handlers share.

use std::sync::Arc;

use axum::Router;
use axum::response::Redirect;
use axum::routing::get;
use tollgate_log::{Kafka, Producer};
use tollgate_service::Shutdown;
use tollgate_service::health::Health;
use tollgate_service::http::{ApiKeys, api};
use tollgate_service::resilience::Dependency;
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
    api(routes, "ingest")
}
