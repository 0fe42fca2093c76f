//! Confirmation of a subscription: the owner of an HTTPS endpoint opens the address that Notifications sent to it.
//! `GET /20181201/subscriptions/{id}/confirmation?token=…&protocol=CUSTOM_HTTPS`, without a signature: the token is what
//! shows that the address was received.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::json;

use super::answer::{invalid_parameter, missing_parameter, not_found};
use super::core::Core;
use super::keys;
use super::store::lock;

const PROTOCOL: &str = "CUSTOM_HTTPS";

#[derive(Debug)]
struct Subscription {
    token: String,
    confirmed: bool,
}

/// The subscriptions that wait for confirmation, and those that have it.
#[derive(Debug, Default)]
pub(super) struct Confirmations(Mutex<HashMap<String, Subscription>>);

impl Confirmations {
    /// Path and query that confirm a subscription; the same each time.
    pub(super) fn path(&self, id: &str) -> String {
        let mut subscriptions = lock(&self.0);
        let subscription = subscriptions.entry(id.to_owned());
        let subscription = subscription.or_insert_with(|| Subscription {
            token: keys::random_id(),
            confirmed: false,
        });
        let token = &subscription.token;
        format!("/20181201/subscriptions/{id}/confirmation?token={token}&protocol={PROTOCOL}")
    }

    pub(super) fn confirmed(&self, id: &str) -> bool {
        let subscriptions = lock(&self.0);
        subscriptions
            .get(id)
            .is_some_and(|subscription| subscription.confirmed)
    }

    fn confirm(&self, id: &str, token: &str) -> bool {
        let mut subscriptions = lock(&self.0);
        let Some(subscription) = subscriptions.get_mut(id) else {
            return false;
        };
        subscription.confirmed |= subscription.token == token;
        subscription.token == token
    }
}

pub(super) fn routes() -> Router<Arc<Core>> {
    Router::new().route("/20181201/subscriptions/{id}/confirmation", get(confirm))
}

#[derive(Deserialize)]
struct Parameters {
    token: Option<String>,
    protocol: Option<String>,
}

async fn confirm(
    State(core): State<Arc<Core>>,
    Path(id): Path<String>,
    Query(parameters): Query<Parameters>,
) -> Response {
    let Some(token) = parameters.token else {
        return missing_parameter("token");
    };
    match parameters.protocol.as_deref() {
        Some(PROTOCOL) => {}
        None => return missing_parameter("protocol"),
        Some(other) => {
            return invalid_parameter(&format!(
                "protocol: {other:?}, the subscription is {PROTOCOL}"
            ));
        }
    }
    if !core.confirmations.confirm(&id, &token) {
        return not_found("no subscription of this id waits for this token");
    }
    Json(json!({
        "topicName": "stand-in",
        "topicId": "ocid1.onstopic.stand-in",
        "endpoint": "https://stand-in.invalid/",
        "unsubscribeUrl": "https://stand-in.invalid/unsubscribe",
        "message": "You have subscribed.",
        "subscriptionId": id,
    }))
    .into_response()
}
