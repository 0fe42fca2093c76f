//! The listeners: HTTP/1.1, plain or in TLS. They own their connections, so that nothing is left of a stand-in that is
//! dropped, and so that a connection can end without an answer.

use std::fmt;
use std::time::Duration;

use axum::Router;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_native_tls::TlsAcceptor;

use super::witness::Unsent;

/// Until the next attempt to accept a connection, after one that failed.
const PAUSE: Duration = Duration::from_millis(50);

impl fmt::Display for Unsent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("closed in place of an answer")
    }
}

impl std::error::Error for Unsent {}

/// Serves until it is dropped.
pub(super) async fn serve(listener: TcpListener, router: Router, tls: Option<TlsAcceptor>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((stream, _)) = accepted else {
                    // Out of files: others have to close theirs first.
                    tokio::time::sleep(PAUSE).await;
                    continue;
                };
                let (router, tls) = (router.clone(), tls.clone());
                connections.spawn(async move {
                    match tls {
                        None => connection(stream, router).await,
                        // A client that does not trust the certificate disconnects here.
                        Some(tls) => if let Ok(stream) = tls.accept(stream).await {
                            connection(stream, router).await;
                        },
                    }
                });
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn connection<S>(stream: S, router: Router)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let router = TowerToHyperService::new(router);
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let answer = router.call(request);
        async move {
            let answer = answer.await.map_err(|never| match never {})?;
            // An error ends the connection at once; there is no other way to end one without an answer.
            match answer.extensions().get::<Unsent>() {
                Some(unsent) => Err(*unsent),
                None => Ok(answer),
            }
        }
    });
    // Its errors are those of clients, and of dropping on purpose.
    drop(
        http1::Builder::new()
            .serve_connection(TokioIo::new(stream), service)
            .await,
    );
}
