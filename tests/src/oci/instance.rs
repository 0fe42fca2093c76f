//! Instance principals: an instance learns its certificate from the metadata service and exchanges it for a session
//! token. The certificate rotates, so a client has to read it again each time.
//!
//! Metadata: <https://docs.oracle.com/en-us/iaas/Content/Compute/Tasks/gettingmetadata.htm>. The exchange,
//! `POST https://auth.<region>.oraclecloud.com/v1/x509`, is documented only by the SDKs that call it
//! (`common/auth/federation_client.go` in Go, `auth/federation_client.py` in Python).

use std::sync::{Arc, Mutex};

use anyhow::Context as _;
use axum::Router;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::stack::Stack;
use openssl::x509::store::X509StoreBuilder;
use openssl::x509::{X509, X509StoreContext};

use super::answer::{internal_error, not_authenticated, refusal};
use super::certificates::Authority;
use super::core::Core;
use super::keys;
use super::store::lock;
use super::workload::bearer;

/// Attribute of the subject that names the tenancy.
const TENANT: &str = "opc-tenant:";

/// What the instance has at the moment.
#[derive(Debug, Clone)]
struct Leaf {
    certificate: X509,
    key_pem: String,
}

/// An instance and the authority that vouches for it.
#[derive(Debug)]
pub(super) struct Instance {
    tenancy: String,
    root: Authority,
    intermediate: Authority,
    /// None until the first request for it: a key of RSA takes longer than the rest of the start.
    leaf: Mutex<Option<Leaf>>,
}

/// An instance's certificate that has been found good.
#[derive(Debug)]
pub(super) struct Vouched {
    pub(super) certificate: X509,
    pub(super) tenancy: String,
}

impl Instance {
    pub(super) fn new(tenancy: &str) -> anyhow::Result<Self> {
        let root = Authority::root("stand-in PKI root")?;
        let intermediate = root.intermediate("stand-in PKI intermediate")?;
        Ok(Self {
            tenancy: tenancy.to_owned(),
            root,
            intermediate,
            leaf: Mutex::new(None),
        })
    }

    /// Gives the instance another certificate and key. The one before is refused from here on, as if it had expired.
    pub(super) fn rotate(&self) -> anyhow::Result<()> {
        let leaf = new_leaf(&self.intermediate, &self.tenancy)?;
        *lock(&self.leaf) = Some(leaf);
        Ok(())
    }

    fn leaf(&self) -> anyhow::Result<Leaf> {
        let mut leaf = lock(&self.leaf);
        if let Some(leaf) = leaf.as_ref() {
            return Ok(leaf.clone());
        }
        let new = new_leaf(&self.intermediate, &self.tenancy)?;
        Ok(leaf.insert(new).clone())
    }

    /// Whether a certificate is this instance's.
    ///
    /// # Errors
    /// Which check failed.
    pub(super) fn vouch(
        &self,
        certificate: X509,
        intermediates: Stack<X509>,
    ) -> anyhow::Result<Vouched> {
        let mut trusted = X509StoreBuilder::new()?;
        trusted.add_cert(self.root.certificate.clone())?;
        let mut context = X509StoreContext::new()?;
        let mut reason = None;
        let good = context.init(&trusted.build(), &certificate, &intermediates, |context| {
            let good = context.verify_cert()?;
            reason = Some(context.error().error_string());
            Ok(good)
        })?;
        anyhow::ensure!(
            good,
            "the chain does not lead to the root: {}",
            reason.unwrap_or("no reason given")
        );
        anyhow::ensure!(
            certificate == self.leaf()?.certificate,
            "the certificate has been rotated away"
        );
        let tenancy = tenancy_of(&certificate).context("no opc-tenant in the subject")?;
        Ok(Vouched {
            certificate,
            tenancy,
        })
    }
}

fn new_leaf(intermediate: &Authority, tenancy: &str) -> anyhow::Result<Leaf> {
    let key = keys::new_rsa()?;
    let name = |prefix: &str, value: &str| format!("{prefix}{value}");
    let subject = [
        (
            Nid::COMMONNAME,
            name("ocid1.instance.oc1..", &keys::random_id()),
        ),
        (
            Nid::ORGANIZATIONALUNITNAME,
            name("opc-certtype:", "instance"),
        ),
        (
            Nid::ORGANIZATIONALUNITNAME,
            name("opc-compartment:", tenancy),
        ),
        (Nid::ORGANIZATIONALUNITNAME, name(TENANT, tenancy)),
    ];
    let subject: Vec<_> = subject
        .iter()
        .map(|(nid, value)| (*nid, value.as_str()))
        .collect();
    Ok(Leaf {
        certificate: intermediate.issue(&subject, &key, &[])?,
        // PKCS#1, which many readers of keys do not expect.
        key_pem: String::from_utf8(key.rsa()?.private_key_to_pem()?)?,
    })
}

fn tenancy_of(certificate: &X509) -> Option<String> {
    let values = certificate.subject_name().entries();
    let mut values = values.filter_map(|entry| entry.data().to_string().ok());
    values.find_map(|value| value.strip_prefix(TENANT).map(str::to_owned))
}

impl Vouched {
    /// The only key id under which the certificate's key may sign. Python's SDK digests with SHA-1 and says nothing of
    /// it; Go's with SHA-256, and says so in the body.
    pub(super) fn key_id(&self, algorithm: Option<&str>) -> anyhow::Result<String> {
        let der = self.certificate.to_der()?;
        let (kind, fingerprint) = match algorithm {
            None => (
                "fed-x509",
                keys::fingerprint(&der, MessageDigest::sha1())?.to_uppercase(),
            ),
            Some("SHA256") => (
                "fed-x509-sha256",
                keys::fingerprint(&der, MessageDigest::sha256())?,
            ),
            Some(other) => anyhow::bail!("fingerprintAlgorithm {other:?} is not SHA256"),
        };
        Ok(format!("{}/{kind}/{fingerprint}", self.tenancy))
    }
}

pub(super) fn metadata() -> Router<Arc<Core>> {
    Router::new()
        .route("/opc/v2/instance/region", get(region))
        .route("/opc/v2/identity/cert.pem", get(certificate))
        .route("/opc/v2/identity/key.pem", get(key))
        .route("/opc/v2/identity/intermediate.pem", get(intermediate))
        .layer(from_fn(admit))
}

type Shared = State<Arc<Core>>;

async fn region(State(core): Shared) -> String {
    core.config.region.clone()
}

async fn certificate(State(core): Shared) -> Response {
    text(core.instance.leaf().and_then(|leaf| pem(&leaf.certificate)))
}

async fn key(State(core): Shared) -> Response {
    text(core.instance.leaf().map(|leaf| leaf.key_pem))
}

async fn intermediate(State(core): Shared) -> Response {
    text(pem(&core.instance.intermediate.certificate))
}

fn pem(certificate: &X509) -> anyhow::Result<String> {
    Ok(String::from_utf8(certificate.to_pem()?)?)
}

fn text(text: anyhow::Result<String>) -> Response {
    text.map_or_else(|error| internal_error(&error), IntoResponse::into_response)
}

/// Version 2 of the metadata service requires it, against forged requests through another client.
async fn admit(request: Request, next: Next) -> Response {
    let headers = request.headers();
    // The documentation has no status for the rejection.
    let forwarded = ["forwarded", "x-forwarded-for", "x-forwarded-host"];
    if let Some(name) = forwarded
        .into_iter()
        .find(|name| headers.contains_key(*name))
    {
        let message = format!("{name}: forwarded requests are refused");
        return refusal(StatusCode::FORBIDDEN, "NotAuthorized", &message);
    }
    if bearer(headers) != Some("Oracle") {
        return not_authenticated("authorization: not `Bearer Oracle`");
    }
    next.run(request).await
}
