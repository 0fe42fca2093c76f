//! Listens for connections within their bounds, and stops without cutting requests off.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

use super::activity::Close;
use super::answers::PIECE;
use super::config::ConnectionLimits;
use super::connections::{Admitted, Connections};
use super::guarded::{ConnectionService, GuardedStream};
use super::hosts::Hosts;
use super::tls::Tls;
use super::{ClientCertificate, HttpConfig, TlsConfig};
use crate::config::ConfigError;
use crate::{Shutdown, files};

/// The longest head of a request, in bytes; beyond it 431. Also the buffer of a connection.
const MAX_HEAD: usize = 32 * 1024;
/// Streams that a caller has reset before they were answered; beyond it the connection is closed (CVE-2023-44487).
const MAX_RESET_STREAMS: usize = 20;
/// Streams that are reset because of errors of the caller; beyond it the connection is closed (CVE-2025-8671).
const MAX_ERROR_STREAMS: usize = 128;
/// How long an idle connection may take to close after the announcement (HTTP/2: GOAWAY).
const GOODBYE: Duration = Duration::from_secs(1);

/// A bound port on which nothing is answered yet.
#[derive(Debug)]
pub struct Bound {
    setting: Arc<str>,
    listener: TcpListener,
    address: SocketAddr,
    limits: ConnectionLimits,
    hosts: Hosts,
    tls: Option<Arc<Tls>>,
}

/// Binds the address of a setting. Port 0 is any free one. Connections are bounded as on an admin port, unless
/// [`Bound::with`] sets other bounds.
///
/// # Errors
/// Names the setting, and what to do.
pub async fn bind(setting: &str, address: SocketAddr) -> anyhow::Result<Bound> {
    let variable = format!("TOLLGATE_{}", setting.replace('.', "__").to_uppercase());
    let listener = TcpListener::bind(address).await.map_err(|error| {
        anyhow::anyhow!("{setting}: cannot listen on {address}: {error}. Choose another address with {variable}, or port 0 for any free one")
    })?;
    let address = listener.local_addr()?;
    Ok(Bound {
        setting: setting.into(),
        listener,
        address,
        limits: ConnectionLimits::default(),
        hosts: Hosts::of_open(address),
        tls: None,
    })
}

impl Bound {
    /// The bound address, with the port that was chosen.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// `https` or `http`.
    #[must_use]
    pub const fn scheme(&self) -> &'static str {
        if self.tls.is_some() { "https" } else { "http" }
    }

    /// Applies the settings of a public listener, which may have API keys.
    #[must_use]
    pub fn with(mut self, config: &HttpConfig, has_keys: bool) -> Self {
        let section = self
            .setting
            .rsplit_once('.')
            .map_or("", |(section, _)| section);
        let setting = format!("{section}.http.hosts");
        self.hosts = self.hosts.with(&config.hosts, has_keys, setting);
        if let Some(all) = config
            .proxies
            .iter()
            .find(|network| network.is_everything())
        {
            let listener = &*self.setting;
            tracing::warn!(listener, %all, "http.proxies holds every address, so that no address has a bound on its connections: name the networks of proxies only");
        }
        self.limits = config.limits(files::limit());
        if self.limits.max < config.max_connections {
            tracing::info!(
                listener = &*self.setting,
                max_connections = self.limits.max,
                "the limit of open files (ulimit -n) allows fewer connections than the setting"
            );
        }
        self
    }

    /// Applies the section `tls`, or its part for admin ports: [`TlsConfig::of_admin`].
    ///
    /// # Errors
    /// Names the file that cannot be used.
    pub async fn with_tls(mut self, config: &TlsConfig) -> Result<Self, ConfigError> {
        self.tls = Tls::open(config, Arc::clone(&self.setting)).await?;
        Ok(self)
    }

    /// Answers until the shutdown; then requests in flight end within the grace period.
    ///
    /// # Errors
    /// The listener failed.
    pub async fn serve(self, app: Router, shutdown: Shutdown) -> anyhow::Result<()> {
        let connections = Connections::new(Arc::clone(&self.setting), self.limits);
        let server = Server {
            builder: Arc::new(builder(connections.limits())),
            app,
            hosts: Arc::new(self.hosts),
            listener: self.setting,
            tls: self.tls,
            shutdown: shutdown.clone(),
        };
        let tasks = TaskTracker::new();
        let watching = server
            .tls
            .clone()
            .map(|tls| AbortOnDropHandle::new(tokio::spawn(tls.watch())));
        loop {
            let accepted = tokio::select! {
                accepted = self.listener.accept() => accepted,
                () = shutdown.begun() => break,
            };
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // The peer closed it already, or there are no file descriptors left at the moment.
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            // The stream is closed where it is not admitted.
            if let Some(admitted) = connections.admit(peer.ip(), tokio::time::Instant::now()) {
                let (server, connections) = (server.clone(), Arc::clone(&connections));
                tasks.spawn(async move {
                    if let Some(why) = server
                        .connection(stream, peer, &admitted, &connections)
                        .await
                    {
                        connections.closed(why);
                    }
                });
            }
        }
        drop((self.listener, watching));
        tasks.close();
        if tokio::time::timeout(shutdown.grace(), tasks.wait())
            .await
            .is_err()
        {
            tracing::warn!("requests were still in flight at the end of the grace period");
        }
        Ok(())
    }
}

fn builder(limits: &ConnectionLimits) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    // The deadlines of heads are those of `Activity`, which begin with the connection and hold for HTTP/2 and TLS too.
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(None)
        .max_buf_size(MAX_HEAD);
    let max_head = u32::try_from(MAX_HEAD).unwrap_or(u32::MAX);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(30))
        .max_header_list_size(max_head)
        .max_concurrent_streams(limits.streams)
        .max_send_buf_size(PIECE)
        .max_pending_accept_reset_streams(MAX_RESET_STREAMS)
        .max_local_error_reset_streams(MAX_ERROR_STREAMS);
    builder
}

/// Who is at the other end of a connection.
struct Peer {
    address: SocketAddr,
    certificate: Option<ClientCertificate>,
}

/// What all connections of a listener share.
#[derive(Clone)]
struct Server {
    builder: Arc<Builder<TokioExecutor>>,
    app: Router,
    hosts: Arc<Hosts>,
    listener: Arc<str>,
    tls: Option<Arc<Tls>>,
    shutdown: Shutdown,
}

impl Server {
    /// Serves a connection to its end. Returns the reason if the service closed it.
    async fn connection(
        &self,
        stream: TcpStream,
        peer: SocketAddr,
        admitted: &Admitted,
        connections: &Arc<Connections>,
    ) -> Option<Close> {
        // Answers are small and must not wait for more data.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "TCP_NODELAY");
        }
        let caller = Peer {
            address: peer,
            certificate: None,
        };
        let Some(tls) = &self.tls else {
            return self.requests(stream, caller, admitted, connections).await;
        };
        let (stream, certificate) = tokio::select! {
            accepted = tls.accept(stream) => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::debug!(listener = &*self.listener, %error, "a TLS handshake failed");
                    return Some(Close::Handshake);
                }
            },
            why = admitted.activity.expired(connections.limits()) => return Some(why),
            () = self.shutdown.begun() => return None,
        };
        let caller = Peer {
            certificate,
            ..caller
        };
        self.requests(stream, caller, admitted, connections).await
    }

    async fn requests(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        peer: Peer,
        admitted: &Admitted,
        connections: &Arc<Connections>,
    ) -> Option<Close> {
        let activity = &admitted.activity;
        let service = ConnectionService {
            app: self.app.clone(),
            hosts: Arc::clone(&self.hosts),
            listener: Arc::clone(&self.listener),
            peer: peer.address,
            certificate: peer.certificate,
            activity: Arc::clone(activity),
            connections: Arc::clone(connections),
            over_tls: self.tls.is_some(),
        };
        let stream = GuardedStream::new(stream, Arc::clone(activity), Arc::clone(connections));
        let connection = self.builder.serve_connection(TokioIo::new(stream), service);
        let mut connection = pin!(connection);
        let why = tokio::select! {
            // A caller that disconnects is not an error of the service.
            _ = connection.as_mut() => return None,
            why = activity.expired(connections.limits()) => Some(why),
            () = self.shutdown.begun() => None,
        };
        match why {
            Some(
                Close::Head | Close::Write | Close::Evicted | Close::Unread | Close::Handshake,
            ) => {}
            Some(Close::Idle) => {
                connection.as_mut().graceful_shutdown();
                let _ = tokio::time::timeout(GOODBYE, connection).await;
            }
            None => {
                connection.as_mut().graceful_shutdown();
                let limits = ConnectionLimits {
                    head: GOODBYE,
                    idle: GOODBYE,
                    ..connections.limits().clone()
                };
                let quiet = async {
                    tokio::time::sleep(GOODBYE).await;
                    activity.expired(&limits).await
                };
                // Requests in flight end within the grace period.
                tokio::select! {
                    _ = connection.as_mut() => {}
                    _ = quiet => {}
                }
            }
        }
        why
    }
}

#[cfg(test)]
mod tests;
