//! OKE workload identity: exchanges the token of the service account of a pod for a token of Oracle. Enhanced clusters only.
//!
//! The protocol is that of the OCI SDKs; see `containerresourceprincipals` in `oci-python-sdk`.

use std::path::PathBuf;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::{Certificate, Client, StatusCode};
use serde::Deserialize;
use serde_json::json;

use super::key::SessionKey;
use super::resource_principal::variable;
use super::token::Life;
use super::{Reason, Signing, read};
use crate::config::OciConfig;
use tollgate_service::http::with_causes;

const PATH: &str = "/resourcePrincipalSessionTokens";
const PORT: u16 = 12_250;
const ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
const CA_VARIABLE: &str = "OCI_KUBERNETES_SERVICE_ACCOUNT_CERT_PATH";
/// The path of the token in the OCI SDK for Go, unless it is the default.
const TOKEN_VARIABLE: &str = "OCI_KUBERNETES_SERVICE_ACCOUNT_TOKEN_PATH";

#[derive(Debug)]
pub(super) struct Workload {
    endpoint: String,
    timeout: Duration,
}

impl Workload {
    pub(super) fn new(config: &OciConfig) -> Self {
        Self {
            endpoint: config.workload_identity_endpoint.clone(),
            timeout: config.timeout(),
        }
    }

    pub(super) async fn fetch(&self) -> Result<Signing, Reason> {
        let endpoint = match self.endpoint.as_str() {
            "" => {
                let host = variable("KUBERNETES_SERVICE_HOST")?;
                let host = if host.contains(':') {
                    format!("[{host}]")
                } else {
                    host
                };
                format!("https://{host}:{PORT}")
            }
            given => given.to_owned(),
        };
        // Kubernetes renews both, so that they are read each time.
        let account = read(&path(TOKEN_VARIABLE, "token"))?;
        let ca = read(&path(CA_VARIABLE, "ca.crt"))?;
        let ca = Certificate::from_pem_bundle(ca.as_bytes())
            .map_err(|error| format!("the cluster's certificate: {error}"))?;
        let client = Client::builder()
            .tls_certs_only(ca)
            .timeout(self.timeout)
            .no_proxy()
            .build()
            .map_err(|error| with_causes(&error))?;
        let session = SessionKey::make().await?;
        let answer = client
            .post(format!("{endpoint}{PATH}"))
            .bearer_auth(account.trim())
            .json(&json!({ "podKey": session.public }))
            .send()
            .await
            .map_err(|error| format!("workload identity: {}", with_causes(&error)))?;
        let status = answer.status();
        let text = answer.text().await.map_err(|error| with_causes(&error))?;
        match status {
            StatusCode::OK => {}
            StatusCode::FORBIDDEN => {
                return Err(
                    "workload identity: HTTP 403; the cluster must be an enhanced one".to_owned(),
                );
            }
            other => {
                let text: String = text.chars().take(200).collect();
                return Err(format!("workload identity: HTTP {other}: {text}"));
            }
        }
        let token = session_token(&text).ok_or("workload identity: the answer holds no token")?;
        let life = Life::of(&token)?;
        Ok(Signing::new(
            format!("ST${token}"),
            session.private,
            Some(life),
        ))
    }
}

fn path(variable_name: &str, file: &str) -> PathBuf {
    variable(variable_name).map_or_else(|_| PathBuf::from(ACCOUNT).join(file), PathBuf::from)
}

/// Reads a JSON string with base64 of JSON with a token, which begins with `ST$`.
fn session_token(text: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Answer {
        token: String,
    }
    let coded: String = serde_json::from_str(text).ok()?;
    let json = STANDARD.decode(coded).ok()?;
    let answer: Answer = serde_json::from_slice(&json).ok()?;
    let token = answer.token.strip_prefix("ST$").unwrap_or(&answer.token);
    Some(token.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_token_is_taken_out_of_its_wrappings() {
        let coded = STANDARD.encode(r#"{"token":"ST$a.b.c"}"#);
        assert_eq!(session_token(&format!("\"{coded}\"")).unwrap(), "a.b.c");
        assert_eq!(session_token(&coded), None);
        assert_eq!(session_token("\"!\""), None);
    }
}
