//! Signed calls to one service.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use oci_rust_sdk::auth::provider::AuthProvider;
use oci_rust_sdk::core::client::http_client::OciClient;
use oci_rust_sdk::core::{OciError, Retrier, RetryConfiguration};
use serde::Serialize;
use serde_json::Value;
use serde_json::value::to_raw_value;

use crate::OciFailure;
use crate::credentials::{Credentials, Signing};

/// The endpoint of a service.
#[derive(Debug, Clone)]
pub(crate) enum Endpoint {
    /// Configured.
    Given(String),
    /// `https://HOST.REGION.DOMAIN`, in the region of the credentials.
    Regional { host: &'static str, domain: String },
}

/// Calls a service with the current key.
pub struct Client {
    credentials: Arc<Credentials>,
    endpoint: Endpoint,
    timeout: Duration,
    /// A client of the SDK, with its key.
    held: Mutex<Option<(Arc<Signing>, Arc<OciClient>)>>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Client").field(&self.endpoint).finish()
    }
}

impl Client {
    pub(crate) const fn new(
        credentials: Arc<Credentials>,
        endpoint: Endpoint,
        timeout: Duration,
    ) -> Self {
        Self {
            credentials,
            endpoint,
            timeout,
            held: Mutex::new(None),
        }
    }

    /// Posts JSON once. A key that is not accepted is renewed, and the call repeated with the new one, which is safe: a
    /// request that was not authenticated has no effect. An empty answer is null.
    ///
    /// # Errors
    /// The error of the service.
    pub async fn post(&self, path: &str, body: &impl Serialize) -> Result<Value, OciFailure> {
        let signing = self.credentials.current().await?;
        match self.send(&signing, path, body).await {
            Err(failure) if failure.is_unauthenticated() => {
                tracing::info!(%failure, "the key was not accepted; it is renewed");
                self.credentials.invalidate(&signing).await;
                let renewed = self.credentials.current().await?;
                self.send(&renewed, path, body).await
            }
            result => result,
        }
    }

    async fn send(
        &self,
        signing: &Arc<Signing>,
        path: &str,
        body: &impl Serialize,
    ) -> Result<Value, OciFailure> {
        let client = self.client_for(signing).await?;
        // Serialised here, so that an error of the SDK can only be that of the answer.
        let body =
            to_raw_value(body).map_err(|error| OciFailure::Unreachable(error.to_string()))?;
        match client.post::<_, Value>(path, Some(&body)).await {
            Ok(answer) => Ok(answer.body),
            // 2xx without JSON: null. The caller decides whether that is a valid answer.
            Err(OciError::SerdeError(_)) => Ok(Value::Null),
            Err(error) => Err(error.into()),
        }
    }

    async fn client_for(&self, signing: &Arc<Signing>) -> Result<Arc<OciClient>, OciFailure> {
        let same = |held: &(Arc<Signing>, Arc<OciClient>)| {
            Arc::ptr_eq(&held.0, signing).then(|| Arc::clone(&held.1))
        };
        if let Some(client) = self.lock().as_ref().and_then(same) {
            return Ok(client);
        }
        let endpoint = match &self.endpoint {
            Endpoint::Given(url) => url.clone(),
            Endpoint::Regional { host, domain } => {
                let region = self.credentials.region().await?;
                format!("https://{host}.{region}.{domain}")
            }
        };
        let client = Arc::new(sdk_client(signing, endpoint, self.timeout)?);
        *self.lock() = Some((Arc::clone(signing), Arc::clone(&client)));
        Ok(client)
    }

    fn lock(&self) -> MutexGuard<'_, Option<(Arc<Signing>, Arc<OciClient>)>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A client of the SDK without its retries: `tollgate_service::resilience` retries.
pub(crate) fn sdk_client(
    signing: &Arc<Signing>,
    endpoint: String,
    timeout: Duration,
) -> Result<OciClient, OciFailure> {
    let provider = Arc::clone(signing) as Arc<dyn AuthProvider>;
    let once = Retrier::with_config(RetryConfiguration {
        max_attempts: 1,
        ..RetryConfiguration::default()
    });
    Ok(OciClient::with_timeout(provider, endpoint, timeout)?.with_retrier(once))
}
