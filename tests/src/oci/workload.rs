//! Workload identity of an enhanced Kubernetes cluster: a pod shows its service account's token and a public key, and
//! gets a session token for that key.
//!
//! `POST https://$KUBERNETES_SERVICE_HOST:12250/resourcePrincipalSessionTokens`, as the Go, Java and Python SDKs call
//! it. The endpoint is in no public reference.

use std::sync::{Arc, Mutex};

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use axum::{Json, Router};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use openssl::pkey::{PKey, Public};
use serde::Deserialize;
use serde_json::json;

use super::answer::{internal_error, invalid_parameter, not_authenticated, refusal};
use super::core::Core;
use super::keys;
use super::store::lock;

pub(super) const PATH: &str = "/resourcePrincipalSessionTokens";

/// The token that a pod has to show. Kubernetes rotates it, so a client has to read its file again.
#[derive(Debug)]
pub(super) struct Workload {
    service_account_token: Mutex<String>,
}

impl Workload {
    pub(super) fn new(service_account_token: String) -> Self {
        Self {
            service_account_token: Mutex::new(service_account_token),
        }
    }

    pub(super) fn set_token(&self, token: &str) {
        token.clone_into(&mut lock(&self.service_account_token));
    }

    fn accepts(&self, headers: &HeaderMap) -> bool {
        let expected = lock(&self.service_account_token);
        // An empty one is that of no pod: HTTP trims the blank after `Bearer`.
        bearer(headers) == Some(expected.as_str())
    }
}

/// The token of `Authorization: Bearer …`.
pub(super) fn bearer(headers: &HeaderMap) -> Option<&str> {
    headers
        .get("authorization")?
        .to_str()
        .ok()?
        .strip_prefix("Bearer ")
}

pub(super) fn routes() -> Router<Arc<Core>> {
    Router::new().route(PATH, post(issue))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Request {
    pod_key: String,
}

async fn issue(State(core): State<Arc<Core>>, headers: HeaderMap, body: Bytes) -> Response {
    if !core.workload.accepts(&headers) {
        return not_authenticated("authorization: not the token of the service account");
    }
    if core.faults.workload_identity_forbidden() {
        return refusal(
            StatusCode::FORBIDDEN,
            "NotAuthorized",
            "the cluster is not enhanced",
        );
    }
    let request = match serde_json::from_slice::<Request>(&body) {
        Ok(request) => request,
        Err(error) => return invalid_parameter(&format!("body: {error}")),
    };
    let key = match pod_key(&request.pod_key) {
        Ok(key) => key,
        Err(error) => return invalid_parameter(&format!("podKey: {error:#}")),
    };
    let claims = json!({
        "sub": "ocid1.workload.stand-in",
        "ptype": "workload",
        "res_tenant": core.config.tenancy,
        "res_compartment": core.config.tenancy,
    });
    match core.tokens.issue(key, claims, core.clock.now()) {
        // A JSON string, in it base64, in it JSON: that is how all SDKs take it apart.
        Ok(token) => {
            let inner = json!({ "token": format!("ST${token}") }).to_string();
            Json(BASE64_STANDARD.encode(inner)).into_response()
        }
        Err(error) => internal_error(&error),
    }
}

/// Java and Python send base64 of the DER, Go sends PEM; Oracle takes both.
fn pod_key(text: &str) -> anyhow::Result<PKey<Public>> {
    if text.starts_with("-----BEGIN PUBLIC KEY-----") {
        return keys::rsa_from_pem(text);
    }
    keys::rsa_from_der(&BASE64_STANDARD.decode(text)?)
}
