//! `GET /v1/imports/{id}`: what became of an object, for whoever may send transactions of its tenant.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Json;
use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use tokio::sync::Mutex;
use tollgate_log::Log;
use tollgate_service::http::Problem;

use super::status::{ImportStatus, list_imports};
use crate::api::App;
use crate::openapi;
use crate::request;

/// How old an answer may be. The topic is read at most this often, whoever asks.
const FRESH: Duration = Duration::from_secs(1);

/// The imports by their ids, as they were read.
type Statuses = Arc<HashMap<String, ImportStatus>>;

/// The state of all imports, read from the log when somebody asks.
#[derive(Debug, Clone, Default)]
pub(super) struct StatusCache {
    read: Arc<Mutex<Option<(Instant, Statuses)>>>,
}

impl StatusCache {
    /// The imports, not older than a second. Requests that come together cause one reading.
    async fn statuses(&self, kafka: &Log) -> anyhow::Result<Statuses> {
        let mut read = self.read.lock().await;
        if let Some((at, statuses)) = &*read
            && at.elapsed() < FRESH
        {
            return Ok(Arc::clone(statuses));
        }
        let kafka = kafka.clone();
        let imports = tokio::task::spawn_blocking(move || list_imports(&kafka)).await??;
        let by_id = imports
            .into_iter()
            .map(|import| (import.id.clone(), import));
        let statuses: Statuses = Arc::new(by_id.collect());
        *read = Some((Instant::now(), Arc::clone(&statuses)));
        Ok(statuses)
    }
}

/// Ask about an import
///
/// What became of an object: how much of it was read, how many of its rows were accepted, rejected and late, and how the
/// import ended. The id is in the answer to the event that requested it. The answer may be a second old. Imports of other
/// tenants are unknown here.
#[utoipa::path(
    get,
    path = "/v1/imports/{id}",
    tag = "events",
    operation_id = "getImport",
    params(("id" = String, Path, description = "The id of the import, as `POST /v1/events` answered it.", example = json!("import_0123456789abcdef01234567"))),
    responses(
        openapi::CommonProblems,
        (status = 200, description = "The import.", body = ImportStatus),
        (status = 404, description = "There is no such import of the caller's tenant.", body = openapi::Problem, content_type = "application/problem+json"),
    ),
    security((), ("bearer" = []), ("api_key" = []), ("basic" = [])),
)]
pub(crate) async fn get_import(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    request: Request,
) -> Response {
    let (parts, _) = request.into_parts();
    let answer = async {
        let caller = request::authenticate(&app, &parts)?;
        let statuses = app.imports.status.statuses(&app.kafka).await;
        let statuses = statuses.map_err(|error| {
            tracing::warn!(error = %format!("{error:#}"), "the state of imports cannot be read");
            let detail = "the log cannot be read";
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail).retry_after(FRESH)
        })?;
        let found = statuses
            .get(&id)
            .filter(|import| import.tenant.as_deref() == caller.tenant().given());
        found.cloned().ok_or_else(|| {
            let detail = "there is no import with this id";
            Problem::new(StatusCode::NOT_FOUND, detail)
        })
    };
    match answer.await {
        Ok(import) => Json(import).into_response(),
        Err(problem) => problem.into_response(),
    }
}
