//! What became of imported objects, for `tollgate imports` and the admin port: a fold over the topic `imports`.

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde::{Deserialize, Serialize};
use tollgate_log::Log;
use tollgate_service::http::Problem;
use tollgate_types::TopicKind;
use utoipa::ToSchema;

use super::journal::{Journal, Progress, Request};

/// Where an import stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum ImportState {
    /// An instance reads it, or will.
    Open,
    /// Every row is on the log or a dead letter.
    Done,
    /// It is not read any further, unless another event names the object.
    Failed,
}

impl ImportState {
    /// `open`, `done` or `failed`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Done => "done",
            Self::Failed => "failed",
        }
    }
}

/// One version of one object, and what became of its rows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ImportStatus {
    /// Id of the import.
    pub id: String,
    /// Where it stands.
    pub state: ImportState,
    /// Bucket of the object; empty where the log no longer has the request.
    pub bucket: String,
    /// Name of the object.
    pub object: String,
    /// The event that asked for it.
    pub event_id: String,
    /// Rows read so far.
    pub rows: u64,
    /// Of these, those that were accepted.
    pub accepted: u64,
    /// Of these, those that became dead letters.
    pub rejected: u64,
    /// Of the accepted rows, those that are older than the history of their user, compared with what the importing instance
    /// has written before; `late` in a decision is exact.
    #[serde(default)]
    pub late: u64,
    /// Bytes of the object that were read.
    #[serde(default)]
    pub bytes: u64,
    /// Bytes of the object, once it was opened.
    #[serde(default)]
    pub size: u64,
    /// The tenant whose event asked for it; the default tenant unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// The store's name for the version, once the object was opened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl ImportStatus {
    pub(super) fn new(
        id: String,
        state: ImportState,
        request: Option<Request>,
        progress: Progress,
        reason: Option<String>,
    ) -> Self {
        let (bucket, object, event_id, tenant) = request
            .map(|request| {
                (
                    request.bucket,
                    request.object,
                    request.event_id,
                    request.tenant,
                )
            })
            .unwrap_or_default();
        Self {
            id,
            state,
            bucket,
            object,
            event_id,
            rows: progress.rows,
            accepted: progress.accepted,
            rejected: progress.rejected,
            late: progress.late,
            bytes: progress.bytes,
            size: progress.size,
            tenant,
            version: progress.version,
            reason,
        }
    }
}

/// Every import that the topic `imports` has, by bucket and object. Blocks until the topic is read.
///
/// # Errors
/// Where the log cannot be read.
pub fn list_imports(kafka: &Log) -> anyhow::Result<Vec<ImportStatus>> {
    let mut journal = Journal::default();
    kafka
        .reader(&[&kafka.topics().imports])?
        .read_all(|record| {
            // The worker reports a record that is no entry, or of no service; here it has nothing to show.
            if kafka
                .authenticate_owned(TopicKind::Imports, &record)
                .is_ok()
            {
                let _ = journal.apply(&record.payload);
            }
            anyhow::Ok(())
        })?;
    Ok(journal.status())
}

/// `GET /imports` of the admin port.
pub(crate) fn admin_routes(kafka: Log) -> Router {
    Router::new()
        .route("/imports", get(imports))
        .with_state(kafka)
}

async fn imports(State(kafka): State<Log>) -> Response {
    let read = tokio::task::spawn_blocking(move || list_imports(&kafka)).await;
    match read.map_err(anyhow::Error::from).and_then(|read| read) {
        Ok(imports) => axum::Json(serde_json::json!({ "imports": imports })).into_response(),
        Err(error) => {
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, format!("{error:#}")).into_response()
        }
    }
}
