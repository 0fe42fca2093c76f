//! The read API: requests over HTTP, answered from the store. Every error is `application/problem+json`.

mod access;
mod decisions;
mod documents;
mod in_flight;
mod stats;
mod users;

use std::collections::BTreeMap;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use tollgate_service::http::{self, ApiKeys, Problem, Scope};
use tollgate_types::{Indicator, Indicators, MAX_ID_BYTES, Status, UserIdCase};
use utoipa::OpenApi as _;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use self::access::Access;
use self::in_flight::InFlight;
use crate::audit::Recorder;
use crate::config::PersistenceConfig;
use crate::store::Store;

/// Who is let in, and where it is recorded.
#[derive(Debug, Clone)]
pub(crate) struct Gate {
    pub(crate) keys: ApiKeys,
    /// `None` if nothing is audited.
    pub(crate) audit: Option<Recorder>,
}

/// What the handlers share.
#[derive(Debug, Clone)]
struct Api {
    store: Store,
    page_default: u32,
    page_max: u32,
    page_max_bytes: usize,
    user_id_case: UserIdCase,
}

/// What lets requests in.
#[derive(Debug, Clone)]
struct Entrance {
    gate: Gate,
    in_flight: InFlight,
}

/// The API with its documents.
///
/// # Errors
/// The description of the API is no JSON, which is a defect.
pub(crate) fn router(
    store: Store,
    config: &PersistenceConfig,
    gate: Gate,
) -> anyhow::Result<Router> {
    let api = Api {
        store,
        page_default: config.page_default,
        page_max: config.page_max,
        page_max_bytes: config.page_max_bytes,
        user_id_case: config.user_id_case,
    };
    let entrance = Entrance {
        gate,
        in_flight: InFlight::new(config),
    };
    let (requests, description) = OpenApiRouter::with_openapi(documents::ApiDoc::openapi())
        .routes(routes!(decisions::get_decision))
        .routes(routes!(decisions::list_decisions))
        .routes(routes!(users::get_user_summary))
        .routes(routes!(stats::get_stats))
        .split_for_parts();
    let routes = requests
        .route_layer(from_fn_with_state(entrance, enter))
        .with_state(api)
        .merge(http::documents(&description)?);
    Ok(http::api(routes, "persistence"))
}

async fn enter(
    State(entrance): State<Entrance>,
    mut request: Request,
    next: Next,
) -> Result<Response, Problem> {
    let Gate { keys, audit } = &entrance.gate;
    let certificate = request.extensions().get();
    let authorized = keys.authorize(request.headers(), certificate, &Scope::DECISIONS_READ);
    let caller = authorized.inspect_err(|problem| {
        if let Some(recorder) = audit {
            let owner = keys.owner(request.headers(), certificate);
            access::refused(recorder, &request, owner.as_ref(), problem.status());
        }
    })?;
    let slot = entrance.in_flight.enter(caller.clone())?;
    let access = Access::of(audit.as_ref(), &request, &caller);
    request.extensions_mut().insert(caller);
    let response = next.run(request).await;
    // Before anything of the answer is sent.
    let mut response = access.recorded(response).await;
    entrance.in_flight.keep(&mut response, slot);
    Ok(response)
}

/// The answer to an invalid parameter.
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
