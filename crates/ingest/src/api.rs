//! The routes. Every error is a problem (RFC 9457), and every request is measured.

use std::sync::Arc;

use axum::Router;
use tollgate_log::{Log, Producer};
use tollgate_service::Shutdown;
use tollgate_service::health::Health;
use tollgate_service::http::{ApiKeys, api, documents};
use tollgate_service::resilience::Dependency;
use tollgate_types::CardPolicy;
use utoipa::OpenApi as _;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::IngestConfig;
use crate::admission::AdmissionControl;
use crate::events::Confirmations;
use crate::imports::{self, Imports};
use crate::lateness::NewestTimes;
use crate::openapi::ApiDoc;
use crate::replies::Replies;
use crate::{events, functions, transactions};

/// The state that the handlers share.
#[derive(Debug)]
pub(crate) struct App {
    pub(crate) config: IngestConfig,
    pub(crate) keys: ApiKeys,
    /// How card data in transactions is treated.
    pub(crate) cards: CardPolicy,
    /// The name of the topic `transactions`.
    pub(crate) topic: String,
    pub(crate) producer: Producer,
    pub(crate) kafka: Log,
    pub(crate) imports: Imports,
    /// The newest timestamp of each user that this instance has written.
    pub(crate) newest: Arc<NewestTimes>,
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
///
/// # Errors
/// The description of the API is no JSON, which is a defect.
pub(crate) fn router(app: Arc<App>) -> anyhow::Result<Router> {
    let (routes, openapi) = OpenApiRouter::with_openapi(ApiDoc::openapi())
        .routes(routes!(transactions::submit))
        .routes(routes!(events::submit))
        .routes(routes!(functions::submit))
        .routes(routes!(imports::get_import))
        .split_for_parts();
    let routes = routes.with_state(app).merge(documents(&openapi)?);
    Ok(api(routes, "ingest"))
}
