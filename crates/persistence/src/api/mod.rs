//! The read API: questions over HTTP, answered from the store. Every error is `application/problem+json`.

mod decisions;
mod documents;
mod stats;
mod users;

use std::any::Any;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use tollgate_service::database::DatabaseError;
use tollgate_service::http::{ApiKeys, Denied, Problem, Scope, observed};
use tollgate_types::{Indicator, Indicators, MAX_ID_BYTES, Status};
use tower_http::catch_panic::CatchPanicLayer;
use utoipa::OpenApi as _;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use utoipa_swagger_ui::SwaggerUi;

use crate::config::PersistenceConfig;
use crate::store::Store;

/// When a caller may come back to a store that is away.
const RETRY_AFTER: Duration = Duration::from_secs(2);

/// What the handlers share.
#[derive(Debug, Clone)]
struct Api {
    store: Store,
    page_default: u32,
    page_max: u32,
}

/// The whole HTTP face of the service.
pub(crate) fn router(store: Store, config: &PersistenceConfig, keys: ApiKeys) -> Router {
    let api = Api {
        store,
        page_default: config.page_default,
        page_max: config.page_max,
    };
    let (questions, description) = OpenApiRouter::with_openapi(documents::ApiDoc::openapi())
        .routes(routes!(decisions::get_decision))
        .routes(routes!(decisions::list_decisions))
        .routes(routes!(users::get_user_summary))
        .routes(routes!(stats::get_stats))
        .split_for_parts();
    let routes = questions
        .route_layer(from_fn_with_state(Arc::new(keys), authorize))
        .with_state(api)
        .merge(SwaggerUi::new("/docs").url("/openapi.json", description))
        .fallback(|| async {
            Problem::new(
                StatusCode::NOT_FOUND,
                "there is nothing at this address; /docs lists what there is",
            )
        })
        .method_not_allowed_fallback(|| async {
            Problem::new(
                StatusCode::METHOD_NOT_ALLOWED,
                "this address only answers GET",
            )
        })
        .layer(CatchPanicLayer::custom(panicked));
    observed(routes, "persistence")
}

async fn authorize(State(keys): State<Arc<ApiKeys>>, request: Request, next: Next) -> Response {
    match keys.identify(request.headers(), Scope::DecisionsRead) {
        Ok(_) => next.run(request).await,
        Err(Denied::Unknown) => Problem::new(
            StatusCode::UNAUTHORIZED,
            "send a known API key as Authorization: Bearer … or X-API-Key: …",
        )
        .into_response(),
        Err(Denied::OutOfScope) => {
            let detail = format!(
                "this API key lacks the scope {}",
                Scope::DecisionsRead.name()
            );
            Problem::new(StatusCode::FORBIDDEN, detail).into_response()
        }
    }
}

fn panicked(_: Box<dyn Any + Send>) -> Response {
    // The panic itself is on standard error; a caller learns nothing from it.
    metrics::counter!("tollgate_http_panics_total", "service" => "persistence").increment(1);
    Problem::new(
        StatusCode::INTERNAL_SERVER_ERROR,
        "an error of this service; it has been logged",
    )
    .into_response()
}

/// The one place where a failed question becomes an answer.
fn failed(error: DatabaseError) -> Problem {
    match error {
        DatabaseError::Unavailable(_) => {
            tracing::warn!(%error, "a question could not be answered");
            Problem::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "the store does not answer at the moment; try again",
            )
            .retry_after(RETRY_AFTER)
        }
        DatabaseError::Refused(_) | DatabaseError::Broken(_) => {
            tracing::error!(%error, "a question could not be answered");
            Problem::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                "an error of this service; it has been logged",
            )
        }
    }
}

/// A parameter that does not fit.
fn bad_parameter(parameter: &str, reason: impl Into<String>) -> Problem {
    let reason = reason.into();
    Problem::new(StatusCode::BAD_REQUEST, format!("{parameter}: {reason}"))
        .with("parameter", parameter)
        .with("reason", reason)
}

/// Whether a transaction or user can have this id at all.
fn is_id(text: &str) -> bool {
    (1..=MAX_ID_BYTES).contains(&text.len()) && !text.contains('\0')
}

/// A number of decisions for each status, none left out.
fn by_status(counts: impl Iterator<Item = (String, i64)>) -> BTreeMap<&'static str, i64> {
    let mut sums: BTreeMap<_, _> = Status::ALL
        .iter()
        .map(|status| (status.name(), 0))
        .collect();
    for (status, count) in counts {
        if let Some(status) = Status::from_name(&status) {
            *sums.entry(status.name()).or_default() += count;
        }
    }
    sums
}

/// A number of decisions for each indicator: all built-in ones, and the others that fired.
fn by_indicator(counts: impl Iterator<Item = (Indicators, i64)>) -> BTreeMap<&'static str, i64> {
    let mut sums: BTreeMap<_, _> = Indicator::BUILT_IN
        .iter()
        .map(|indicator| (indicator.name(), 0))
        .collect();
    for (indicators, count) in counts {
        for indicator in indicators.iter() {
            *sums.entry(indicator.name()).or_default() += count;
        }
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_and_a_store_that_is_away_are_answered_as_problems() {
        let away = failed(DatabaseError::Unavailable(sqlx::Error::PoolTimedOut)).into_response();
        assert_eq!(away.headers()["retry-after"], "2");
        for (response, status) in [
            (
                panicked(Box::new("secret")),
                StatusCode::INTERNAL_SERVER_ERROR,
            ),
            (
                failed(DatabaseError::Broken(sqlx::Error::RowNotFound)).into_response(),
                StatusCode::INTERNAL_SERVER_ERROR,
            ),
            (away, StatusCode::SERVICE_UNAVAILABLE),
        ] {
            assert_eq!(response.status(), status);
            assert_eq!(
                response.headers()["content-type"],
                "application/problem+json"
            );
        }
    }
}
