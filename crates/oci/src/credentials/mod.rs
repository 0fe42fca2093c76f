//! The keys that sign requests, renewed before they expire.
//!
//! Invariant: key and key id are one immutable value, so that a request is never signed with the key of another id.

mod config_file;
mod instance;
mod key;
mod resource_principal;
mod token;
mod workload;

use std::sync::Arc;
use std::time::{Duration, Instant};

use oci_rust_sdk::auth::provider::AuthProvider;
use tokio::sync::Mutex;
use tollgate_service::files::read_regular;

use crate::config::{Auth, OciConfig};
use crate::failure::OciFailure;

/// Wait after a failed renewal while the key is still valid.
const RENEW_AGAIN: Duration = Duration::from_secs(30);

/// The largest file of a key or token, in bytes.
const MAX_FILE_BYTES: u64 = 1024 * 1024;

/// The key that signs requests.
pub(crate) struct Signing {
    key_id: String,
    private_key: String,
    /// `None`: until it is not accepted.
    life: Option<token::Life>,
}

impl std::fmt::Debug for Signing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Signing").finish_non_exhaustive()
    }
}

impl Signing {
    /// `private_key` is PEM, PKCS#8, the form of the SDK; see [`key::to_pkcs8`].
    fn new(key_id: String, private_key: String, life: Option<token::Life>) -> Self {
        Self {
            key_id,
            private_key,
            life,
        }
    }
}

impl AuthProvider for Signing {
    fn get_key_id(&self) -> String {
        self.key_id.clone()
    }

    fn get_private_key(&self) -> &str {
        &self.private_key
    }

    fn get_passphrase(&self) -> Option<&str> {
        None
    }
}

/// Why there is no key. The text contains nothing of it.
type Reason = String;

#[derive(Debug)]
enum Provider {
    ConfigFile(config_file::ConfigFile),
    ApiKey(Box<OciConfig>),
    ResourcePrincipal(resource_principal::ResourcePrincipal),
    Workload(workload::Workload),
    Instance(instance::Instance),
}

/// The keys of one principal. All clients of a process share them.
#[derive(Debug)]
pub(crate) struct Credentials {
    provider: Provider,
    region: String,
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    signing: Option<Arc<Signing>>,
    not_before: Option<Instant>,
}

impl Credentials {
    /// Missing variables and files are errors of the calls, not of this function: they may appear later.
    pub(crate) fn new(config: &OciConfig) -> Self {
        let provider = match config.auth {
            Auth::ConfigFile => Provider::ConfigFile(config_file::ConfigFile::new(config)),
            Auth::ApiKey => Provider::ApiKey(Box::new(config.clone())),
            Auth::ResourcePrincipal => Provider::ResourcePrincipal(
                resource_principal::ResourcePrincipal::from_environment(),
            ),
            Auth::WorkloadIdentity => Provider::Workload(workload::Workload::new(config)),
            Auth::InstancePrincipal => Provider::Instance(instance::Instance::new(config)),
        };
        Self {
            provider,
            region: config.region.clone(),
            held: Mutex::default(),
        }
    }

    /// The region of the credentials.
    pub(crate) async fn region(&self) -> Result<String, OciFailure> {
        if !self.region.is_empty() {
            return Ok(self.region.clone());
        }
        let found = match &self.provider {
            Provider::ConfigFile(file) => file.region(),
            Provider::ResourcePrincipal(_) | Provider::Workload(_) => {
                resource_principal::variable("OCI_RESOURCE_PRINCIPAL_REGION")
            }
            Provider::Instance(instance) => instance.region().await,
            // Checked when the settings were read.
            Provider::ApiKey(config) => Ok(config.region.clone()),
        };
        found.map_err(|reason| {
            OciFailure::Credentials(format!("oci.region is not set, and {reason}"))
        })
    }

    /// The current key. It is renewed after half of its lifetime, as in Oracle's own clients; after a failed renewal it is
    /// used until it expires.
    pub(crate) async fn current(&self) -> Result<Arc<Signing>, OciFailure> {
        let mut held = self.held.lock().await;
        let now = Instant::now();
        let usable = held
            .signing
            .clone()
            .filter(|signing| signing.life.as_ref().is_none_or(|life| !life.is_over(now)));
        if let Some(signing) = &usable {
            let due = signing
                .life
                .as_ref()
                .is_some_and(|life| life.is_half_over(now));
            if !due || held.not_before.is_some_and(|then| now < then) {
                return Ok(Arc::clone(signing));
            }
        }
        if usable.is_some() {
            // In a task of its own: it completes also if the caller is cancelled.
            held.not_before = Some(now + RENEW_AGAIN);
        }
        match self.fetch().await {
            Ok(signing) => {
                let signing = Arc::new(signing);
                *held = Held {
                    signing: Some(Arc::clone(&signing)),
                    not_before: None,
                };
                Ok(signing)
            }
            Err(reason) => match usable {
                Some(signing) => {
                    tracing::warn!(reason, "the key for Oracle Cloud was not renewed");
                    Ok(signing)
                }
                None => Err(OciFailure::Credentials(reason)),
            },
        }
    }

    /// Discards a key that was not accepted: the next call renews it.
    pub(crate) async fn invalidate(&self, refused: &Arc<Signing>) {
        let mut held = self.held.lock().await;
        if held
            .signing
            .as_ref()
            .is_some_and(|signing| Arc::ptr_eq(signing, refused))
        {
            *held = Held::default();
        }
    }

    async fn fetch(&self) -> Result<Signing, Reason> {
        match &self.provider {
            Provider::ConfigFile(file) => file.fetch(),
            Provider::ApiKey(config) => api_key(config),
            Provider::ResourcePrincipal(principal) => principal.fetch(),
            Provider::Workload(workload) => workload.fetch().await,
            Provider::Instance(instance) => instance.fetch().await,
        }
    }
}

fn api_key(config: &OciConfig) -> Result<Signing, Reason> {
    let pem = match &config.private_key_file {
        Some(file) => read(file)?,
        None => config.private_key.expose().to_owned(),
    };
    let key = key::to_pkcs8(&pem, config.passphrase.expose())?;
    let key_id = format!("{}/{}/{}", config.tenancy, config.user, config.fingerprint);
    Ok(Signing::new(key_id, key, None))
}

fn read(path: &std::path::Path) -> Result<String, Reason> {
    let cannot = |reason: String| format!("{} cannot be read: {reason}", path.display());
    let bytes = read_regular(path, MAX_FILE_BYTES).map_err(|error| cannot(error.to_string()))?;
    String::from_utf8(bytes).map_err(|_| cannot("it is not UTF-8".to_owned()))
}
