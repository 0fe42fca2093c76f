//! `/stand-in/…`: the same for programs in other languages as [`super::StandIn`] is for Rust. Unsigned; every answer is
//! JSON.
//!
//! `POST`: `answer-next` `{service, n, status, code, retryAfter?}` · `hang-next` and `drop-next` `{service, n}` ·
//! `forbid-workload-identity` `{forbidden}` · `service-account-token` `{token}` · `shift-clock` `{seconds}` ·
//! `revoke-tokens` · `rotate-instance` · `confirmation-url` `{id}`.
//! `GET`: `received?service=` · `messages` · `metrics` · `tokens-issued` · `confirmed?id=`.

use std::sync::Arc;

use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};

use super::core::Core;
use super::metric::StoredMetric;
use super::notifications::Message;
use super::requests::Received;
use super::service::Service;

pub(super) fn routes() -> Router<Arc<Core>> {
    Router::new()
        .route("/stand-in/answer-next", post(answer_next))
        .route("/stand-in/hang-next", post(hang_next))
        .route("/stand-in/drop-next", post(drop_next))
        .route("/stand-in/forbid-workload-identity", post(forbid))
        .route(
            "/stand-in/service-account-token",
            post(service_account_token),
        )
        .route("/stand-in/shift-clock", post(shift_clock))
        .route("/stand-in/revoke-tokens", post(revoke_tokens))
        .route("/stand-in/rotate-instance", post(rotate_instance))
        .route("/stand-in/confirmation-url", post(confirmation_url))
        .route("/stand-in/received", get(received))
        .route("/stand-in/messages", get(messages))
        .route("/stand-in/metrics", get(metrics))
        .route("/stand-in/tokens-issued", get(tokens_issued))
        .route("/stand-in/confirmed", get(confirmed))
}

type Shared = State<Arc<Core>>;

fn done() -> Json<Value> {
    Json(json!({}))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct AnswerNext {
    service: Service,
    n: usize,
    status: u16,
    code: String,
    retry_after: Option<u64>,
}

async fn answer_next(
    State(core): Shared,
    Json(plan): Json<AnswerNext>,
) -> Result<Json<Value>, (StatusCode, String)> {
    if StatusCode::from_u16(plan.status).is_err() {
        return Err((
            StatusCode::BAD_REQUEST,
            format!("no status {}", plan.status),
        ));
    }
    let AnswerNext {
        service,
        n,
        status,
        code,
        retry_after,
    } = plan;
    core.faults
        .answer_next(service, n, status, &code, retry_after);
    Ok(done())
}

#[derive(Deserialize)]
struct Next {
    service: Service,
    n: usize,
}

async fn hang_next(State(core): Shared, Json(plan): Json<Next>) -> Json<Value> {
    core.faults.hang_next(plan.service, plan.n);
    done()
}

async fn drop_next(State(core): Shared, Json(plan): Json<Next>) -> Json<Value> {
    core.faults.drop_next(plan.service, plan.n);
    done()
}

#[derive(Deserialize)]
struct Forbid {
    forbidden: bool,
}

async fn forbid(State(core): Shared, Json(forbid): Json<Forbid>) -> Json<Value> {
    core.faults.forbid_workload_identity(forbid.forbidden);
    done()
}

#[derive(Deserialize)]
struct Token {
    token: String,
}

async fn service_account_token(State(core): Shared, Json(token): Json<Token>) -> Json<Value> {
    core.workload.set_token(&token.token);
    done()
}

#[derive(Deserialize)]
struct Shift {
    seconds: i64,
}

async fn shift_clock(State(core): Shared, Json(shift): Json<Shift>) -> Json<Value> {
    core.clock.shift(shift.seconds);
    done()
}

async fn revoke_tokens(State(core): Shared) -> Json<Value> {
    core.tokens.revoke();
    done()
}

async fn rotate_instance(State(core): Shared) -> Result<Json<Value>, (StatusCode, String)> {
    let rotated = core.instance.rotate();
    rotated.map_err(|error| (StatusCode::INTERNAL_SERVER_ERROR, format!("{error:#}")))?;
    Ok(done())
}

#[derive(Deserialize)]
struct Subscription {
    id: String,
}

async fn confirmation_url(State(core): Shared, Json(of): Json<Subscription>) -> Json<Value> {
    // The host is the one that the caller came by.
    Json(json!({ "path": core.confirmations.path(&of.id) }))
}

async fn confirmed(State(core): Shared, Query(of): Query<Subscription>) -> Json<bool> {
    Json(core.confirmations.confirmed(&of.id))
}

#[derive(Deserialize)]
struct Of {
    service: Option<Service>,
}

async fn received(State(core): Shared, Query(of): Query<Of>) -> Json<Vec<Received>> {
    Json(core.requests.all(of.service))
}

async fn messages(State(core): Shared) -> Json<Vec<Message>> {
    Json(core.notifications.messages())
}

async fn metrics(State(core): Shared) -> Json<Vec<StoredMetric>> {
    Json(core.monitoring.metrics())
}

async fn tokens_issued(State(core): Shared) -> Json<usize> {
    Json(core.tokens.count())
}
