//! Instance principals: exchanges the certificate of the machine, from its metadata service, for a session token.
//!
//! The protocol is that of the OCI SDKs; see `common/auth/federation_client.go` in `oci-go-sdk`.

use std::sync::Arc;
use std::time::Duration;

use data_encoding::HEXLOWER;
use openssl::hash::MessageDigest;
use openssl::x509::X509;
use reqwest::Client;
use serde_json::{Value, json};

use super::key::{SessionKey, to_pkcs8};
use super::token::Life;
use super::{Reason, Signing};
use crate::client::sdk_client;
use crate::config::OciConfig;
use tollgate_service::http::with_causes;

use crate::failure::OciFailure;

const TENANT: &str = "opc-tenant:";

#[derive(Debug)]
pub(super) struct Instance {
    metadata: String,
    federation: String,
    region: String,
    domain: String,
    timeout: Duration,
}

impl Instance {
    pub(super) fn new(config: &OciConfig) -> Self {
        Self {
            metadata: config.metadata_endpoint.clone(),
            federation: config.federation_endpoint.clone(),
            region: config.region.clone(),
            domain: config.domain.clone(),
            timeout: config.timeout(),
        }
    }

    /// The region of the machine. The oldest regions have the codes of airports.
    pub(super) async fn region(&self) -> Result<String, Reason> {
        let region = self.ask("/instance/region").await?;
        let region = region.trim().to_lowercase();
        Ok(match region.as_str() {
            "phx" => "us-phoenix-1".to_owned(),
            "iad" => "us-ashburn-1".to_owned(),
            "fra" => "eu-frankfurt-1".to_owned(),
            "lhr" => "uk-london-1".to_owned(),
            _ => region,
        })
    }

    /// The certificates are renewed by the platform, so that they are requested each time.
    pub(super) async fn fetch(&self) -> Result<Signing, Reason> {
        let leaf = self.ask("/identity/cert.pem").await?;
        let leaf_key = self.ask("/identity/key.pem").await?;
        let intermediate = self.ask("/identity/intermediate.pem").await?;
        let certificate = X509::from_pem(leaf.as_bytes())
            .map_err(|error| format!("the machine's certificate: {error}"))?;
        let tenancy = tenancy(&certificate)?;
        let key_id = format!("{tenancy}/fed-x509-sha256/{}", fingerprint(&certificate)?);
        let machine = Signing::new(key_id, to_pkcs8(&leaf_key, "")?, None);
        let session = SessionKey::make().await?;
        let endpoint = match self.federation.as_str() {
            "" if self.region.is_empty() => {
                format!("https://auth.{}.{}", self.region().await?, self.domain)
            }
            "" => format!("https://auth.{}.{}", self.region, self.domain),
            given => given.to_owned(),
        };
        let client = sdk_client(&Arc::new(machine), endpoint, self.timeout)
            .map_err(|failure| failure.to_string())?;
        let body = json!({
            "certificate": bare(&leaf),
            "publicKey": session.public,
            "intermediateCertificates": [bare(&intermediate)],
            "fingerprintAlgorithm": "SHA256",
        });
        let answer = client.post::<_, Value>("/v1/x509", Some(&body)).await;
        let answer = answer
            .map_err(|error| format!("instance principal: {}", OciFailure::from(error)))?
            .body;
        let token = answer.get("token").and_then(Value::as_str);
        let token = token.ok_or("instance principal: the answer holds no token")?;
        let life = Life::of(token)?;
        Ok(Signing::new(
            format!("ST${token}"),
            session.private,
            Some(life),
        ))
    }

    async fn ask(&self, path: &str) -> Result<String, Reason> {
        let ask = async {
            let client = Client::builder().timeout(self.timeout).no_proxy().build()?;
            let url = format!("{}/opc/v2{path}", self.metadata);
            let request = client.get(url).header("authorization", "Bearer Oracle");
            request.send().await?.error_for_status()?.text().await
        };
        let answer = ask.await;
        answer.map_err(|error| format!("the machine's metadata: {}", with_causes(&error)))
    }
}

/// The OCID of the tenancy, from the subject of the certificate.
fn tenancy(certificate: &X509) -> Result<String, Reason> {
    let entries = certificate.subject_name().entries();
    let mut texts = entries.filter_map(|entry| entry.data().to_string().ok());
    let found = texts.find_map(|text| text.strip_prefix(TENANT).map(str::to_owned));
    found.ok_or_else(|| "the machine's certificate names no tenancy".to_owned())
}

/// SHA-256 of the certificate, as `aa:bb:…`.
fn fingerprint(certificate: &X509) -> Result<String, Reason> {
    let digest = certificate
        .digest(MessageDigest::sha256())
        .map_err(|error| error.to_string())?;
    let pairs: Vec<String> = digest
        .iter()
        .map(|byte| HEXLOWER.encode(&[*byte]))
        .collect();
    Ok(pairs.join(":"))
}

/// PEM without its first and last line, on one line.
fn bare(pem: &str) -> String {
    pem.lines()
        .filter(|line| !line.starts_with("-----"))
        .map(str::trim)
        .collect()
}
