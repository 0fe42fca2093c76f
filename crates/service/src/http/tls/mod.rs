//! TLS of a listener. Its files are read again when they change: certificates are renewed while services run.
//!
//! Invariant: files that cannot be used change nothing. The listener goes on with what it has, and says so.

mod config;
mod context;
mod identity;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use openssl::ssl::{Ssl, SslContext};
use tokio::net::TcpStream;
use tokio_openssl::SslStream;

pub use config::TlsConfig;
pub use identity::ClientCertificate;
pub(crate) use identity::is_certificate_name;

use self::context::{Context, Files, build};
use crate::config::ConfigError;
use crate::files;

/// The largest file of certificates or keys, in bytes.
const MAX_FILE_BYTES: u64 = 4 * 1024 * 1024;

/// The certificate of a listener, and its files.
#[derive(Debug)]
pub(super) struct Tls {
    listener: Arc<str>,
    certificate: PathBuf,
    key: PathBuf,
    client_ca: Option<PathBuf>,
    interval: Duration,
    context: RwLock<SslContext>,
    /// The last files that were read, used or not.
    seen: Mutex<Files>,
}

impl Tls {
    /// Reads the files; `None` if the section has none.
    ///
    /// # Errors
    /// Names the setting at fault.
    pub(super) async fn open(
        config: &TlsConfig,
        listener: Arc<str>,
    ) -> Result<Option<Arc<Self>>, ConfigError> {
        let (Some(certificate), Some(key)) = (&config.certificate, &config.key) else {
            return Ok(None);
        };
        let client_ca = config.client_ca.as_deref();
        let files = read(certificate, key, client_ca)
            .await
            .map_err(|reason| ConfigError::invalid("tls", reason))?;
        let context = build(&files).map_err(|reason| ConfigError::invalid("tls", reason))?;
        measure(&listener, &context);
        Ok(Some(Arc::new(Self {
            listener,
            certificate: certificate.clone(),
            key: key.clone(),
            client_ca: config.client_ca.clone(),
            interval: Duration::from_secs(config.reload_seconds),
            context: RwLock::new(context.context),
            seen: Mutex::new(files),
        })))
    }

    /// Makes the handshake. The caller bounds its time.
    ///
    /// # Errors
    /// The client does not speak TLS, or its certificate is not accepted.
    pub(super) async fn accept(
        &self,
        stream: TcpStream,
    ) -> Result<
        (SslStream<TcpStream>, Option<ClientCertificate>),
        Box<dyn std::error::Error + Send + Sync>,
    > {
        let ssl = {
            let context = self.context.read().unwrap_or_else(PoisonError::into_inner);
            Ssl::new(&context)?
        };
        let mut stream = SslStream::new(ssl, stream)?;
        std::pin::Pin::new(&mut stream).accept().await?;
        let certificate = stream.ssl().peer_certificate();
        let certificate = certificate.map(|certificate| ClientCertificate::of(&certificate));
        Ok((stream, certificate))
    }

    /// Looks for changed files, for ever.
    pub(super) async fn watch(self: Arc<Self>) {
        let mut ticks = tokio::time::interval(self.interval);
        ticks.tick().await;
        loop {
            ticks.tick().await;
            self.reload().await;
        }
    }

    async fn reload(&self) {
        let files = read(&self.certificate, &self.key, self.client_ca.as_deref()).await;
        let outcome = files.and_then(|files| {
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            if *seen == files {
                return Ok(None);
            }
            let built = build(&files);
            // Files that cannot be used are reported once.
            *seen = files;
            built.map(Some)
        });
        let listener = &*self.listener;
        let outcome = match outcome {
            Ok(None) => return,
            Ok(Some(context)) => {
                measure(listener, &context);
                let mut current = self.context.write().unwrap_or_else(PoisonError::into_inner);
                *current = context.context;
                tracing::info!(listener, "the certificate was read again");
                "used"
            }
            Err(reason) => {
                tracing::error!(
                    listener,
                    reason,
                    "the changed certificate cannot be used; the one before stays in force"
                );
                "refused"
            }
        };
        metrics::counter!("tollgate_tls_reloads_total", "listener" => listener.to_owned(), "outcome" => outcome)
            .increment(1);
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "seconds since 1970 are exact in a double for millions of years"
)]
fn measure(listener: &str, context: &Context) {
    metrics::gauge!("tollgate_tls_certificate_expiry_timestamp_seconds", "listener" => listener.to_owned())
        .set(context.expires as f64);
}

async fn read(certificate: &Path, key: &Path, client_ca: Option<&Path>) -> Result<Files, String> {
    Ok(Files {
        certificate: file("certificate", certificate).await?,
        key: file("key", key).await?,
        client_ca: match client_ca {
            Some(path) => Some(file("client_ca", path).await?),
            None => None,
        },
    })
}

async fn file(setting: &str, path: &Path) -> Result<Vec<u8>, String> {
    let owned = path.to_owned();
    let read = tokio::task::spawn_blocking(move || files::read_regular(&owned, MAX_FILE_BYTES));
    let read = read.await.map_err(std::io::Error::other).flatten();
    read.map_err(|error| format!("tls.{setting}: {}: {error}", path.display()))
}

#[cfg(test)]
mod tests;
