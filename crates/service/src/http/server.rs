//! Listens for connections, and stops without cutting requests off.

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tower::{Service as _, ServiceExt as _};

use crate::Shutdown;

/// Timeout for the head of a request, and for an idle connection: connections that send nothing must not use up the file
/// descriptors of others.
const HEAD: Duration = Duration::from_secs(30);

/// A bound port on which nothing is answered yet.
#[derive(Debug)]
pub struct Bound {
    listener: TcpListener,
    address: SocketAddr,
}

/// Binds the address of a setting. Port 0 is any free one.
///
/// # Errors
/// Names the setting, and what to do.
pub async fn bind(setting: &str, address: SocketAddr) -> anyhow::Result<Bound> {
    let variable = format!("TOLLGATE_{}", setting.replace('.', "__").to_uppercase());
    let listener = TcpListener::bind(address).await.map_err(|error| {
        anyhow::anyhow!("{setting}: cannot listen on {address}: {error}. Choose another address with {variable}, or port 0 for any free one")
    })?;
    let address = listener.local_addr()?;
    Ok(Bound { listener, address })
}

impl Bound {
    /// The bound address, with the port that was chosen.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers until the shutdown; then requests in flight end within the grace period.
    ///
    /// # Errors
    /// The listener failed.
    pub async fn serve(self, app: Router, shutdown: Shutdown) -> anyhow::Result<()> {
        let mut builder = Builder::new(TokioExecutor::new());
        builder
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD);
        builder
            .http2()
            .timer(TokioTimer::new())
            .keep_alive_interval(HEAD)
            .keep_alive_timeout(HEAD);
        let mut services = app.into_make_service_with_connect_info::<SocketAddr>();
        let connections = GracefulShutdown::new();
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
            // Answers are small and must not wait for more data.
            if let Err(error) = stream.set_nodelay(true) {
                tracing::debug!(%error, "TCP_NODELAY");
            }
            let Ok(service) = services.call(peer).await;
            let service = service.map_request(|request: Request<Incoming>| request.map(Body::new));
            let connection = builder
                .serve_connection(TokioIo::new(stream), TowerToHyperService::new(service))
                .into_owned();
            let connection = connections.watch(connection);
            tokio::spawn(async move {
                // A caller that disconnects or is too slow is not an error of the service.
                let _ = connection.await;
            });
        }
        drop(self.listener);
        if tokio::time::timeout(shutdown.grace(), connections.shutdown())
            .await
            .is_err()
        {
            tracing::warn!("requests were still in flight at the end of the grace period");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_caller_that_does_not_finish_its_head_is_disconnected_and_others_are_answered() {
        let bound = bind("test.listen", SocketAddr::from(([127, 0, 0, 1], 0)))
            .await
            .unwrap();
        let address = bound.address();
        let shutdown = Shutdown::new(Duration::from_secs(1));
        let app = Router::new().route("/", axum::routing::get(async || "here"));
        let serving = tokio::spawn(bound.serve(app, shutdown.clone()));

        let mut slow = TcpStream::connect(address).await.unwrap();
        slow.write_all(b"GET / HTTP/1.1\r\nhost:").await.unwrap();
        let mut quick = TcpStream::connect(address).await.unwrap();
        quick
            .write_all(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
            .await
            .unwrap();
        let mut answer = String::new();
        quick.read_to_string(&mut answer).await.unwrap();
        assert!(answer.ends_with("here"), "{answer}");

        // The paused clock advances while every task waits.
        let mut rest = Vec::new();
        let cut_off = tokio::time::timeout(2 * HEAD, slow.read_to_end(&mut rest));
        assert!(cut_off.await.is_ok(), "the connection is still open");
        shutdown.begin();
        serving.await.unwrap().unwrap();
    }
}
