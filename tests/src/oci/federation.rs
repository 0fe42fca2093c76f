//! The exchange of an instance's certificate for a session token.

use std::sync::Arc;

use anyhow::Context as _;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Method, Uri};
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use axum::{Json, Router};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use openssl::stack::Stack;
use openssl::x509::X509;
use serde::Deserialize;
use serde_json::json;

use super::answer::{cannot_parse, internal_error, invalid_parameter, not_authenticated};
use super::call::Call;
use super::core::Core;
use super::instance::Vouched;
use super::signature::{self, Host};
use super::{keys, witness};

pub(super) fn routes() -> Router<Arc<Core>> {
    Router::new().route("/v1/x509", post(exchange))
}

/// Certificates and keys as PEM without its first line, its last line, and line ends: base64 of the DER.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Details {
    certificate: String,
    public_key: String,
    #[serde(default)]
    intermediate_certificates: Vec<String>,
    fingerprint_algorithm: Option<String>,
}

async fn exchange(
    State(core): State<Arc<Core>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let details = match serde_json::from_slice::<Details>(&body) {
        Ok(details) => details,
        Err(error) => return cannot_parse(&format!("body: {error}")),
    };
    let vouched = match vouch(&core, &details) {
        Ok(vouched) => vouched,
        Err(error) => return not_authenticated(&format!("certificate: {error:#}")),
    };
    let call = Call {
        method,
        target: witness::target(&uri),
        headers,
        body,
    };
    let checked = signature::check(&call, core.clock.now(), Host::Free, |key_id| {
        let algorithm = details.fingerprint_algorithm.as_deref();
        let expected = vouched
            .key_id(algorithm)
            .map_err(|error| error.to_string())?;
        if key_id != expected {
            return Err(format!("{key_id:?}, the certificate's is {expected:?}"));
        }
        vouched
            .certificate
            .public_key()
            .map_err(|error| error.to_string())
    });
    if let Err(flaw) = checked {
        return not_authenticated(&flaw);
    }
    let session = BASE64_STANDARD.decode(&details.public_key);
    let session = session
        .map_err(anyhow::Error::from)
        .and_then(|der| keys::rsa_from_der(&der));
    let session = match session {
        Ok(session) => session,
        Err(error) => return invalid_parameter(&format!("publicKey: {error:#}")),
    };
    let claims = json!({
        "sub": "ocid1.instance.stand-in",
        "ptype": "instance",
        "opc-tenant": vouched.tenancy,
    });
    match core.tokens.issue(session, claims, core.clock.now()) {
        Ok(token) => Json(json!({ "token": token })).into_response(),
        Err(error) => internal_error(&error),
    }
}

fn vouch(core: &Core, details: &Details) -> anyhow::Result<Vouched> {
    let mut intermediates = Stack::new()?;
    for intermediate in &details.intermediate_certificates {
        intermediates.push(certificate(intermediate).context("an intermediate")?)?;
    }
    let certificate = certificate(&details.certificate)?;
    core.instance.vouch(certificate, intermediates)
}

fn certificate(text: &str) -> anyhow::Result<X509> {
    let der = BASE64_STANDARD.decode(text).context("not base64")?;
    X509::from_der(&der).context("not a certificate in DER")
}
