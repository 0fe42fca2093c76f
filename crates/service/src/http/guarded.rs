//! A connection whose input and output, and requests are reported to its [`Activity`].

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::uri::Scheme;
use axum::http::{Request, Response, StatusCode, Version};
use axum::response::IntoResponse as _;
use futures_util::future::BoxFuture;
use hyper::body::Incoming;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;
use tower::ServiceExt as _;

use super::activity::Activity;
use super::answers::{AnswerBody, RequestGuard};
use super::connections::Connections;
use super::hosts::Hosts;
use super::{ClientCertificate, Problem, answer_headers};

const UNREAD_RETRY: Duration = Duration::from_secs(1);

/// Reports what is read, and whether the caller takes what is written.
#[derive(Debug)]
pub(super) struct GuardedStream<S> {
    stream: S,
    activity: Arc<Activity>,
    connections: Arc<Connections>,
}

impl<S> GuardedStream<S> {
    pub(super) const fn new(
        stream: S,
        activity: Arc<Activity>,
        connections: Arc<Connections>,
    ) -> Self {
        Self {
            stream,
            activity,
            connections,
        }
    }

    fn written(&self, result: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match &result {
            Poll::Ready(Ok(bytes)) => {
                let limits = self.connections.limits();
                self.activity.wrote(*bytes, Instant::now(), limits);
            }
            Poll::Ready(Err(_)) => {}
            Poll::Pending => self.activity.write_blocked(Instant::now()),
        }
        result
    }

    /// Connections flush whenever they have written everything.
    fn flushed(&self, result: Poll<io::Result<()>>) -> Poll<io::Result<()>> {
        match &result {
            Poll::Ready(_) => self.activity.flushed(),
            Poll::Pending => self.activity.write_blocked(Instant::now()),
        }
        result
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for GuardedStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        if buffer.filled().len() > before {
            self.activity.read(Instant::now());
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for GuardedStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.written(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.written(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(context);
        self.flushed(flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let closed = Pin::new(&mut self.stream).poll_shutdown(context);
        self.flushed(closed)
    }
}

/// The service of one connection.
#[derive(Debug, Clone)]
pub(super) struct ConnectionService {
    pub(super) app: Router,
    pub(super) hosts: Arc<Hosts>,
    pub(super) listener: Arc<str>,
    pub(super) peer: SocketAddr,
    pub(super) activity: Arc<Activity>,
    pub(super) connections: Arc<Connections>,
    pub(super) over_tls: bool,
    pub(super) certificate: Option<ClientCertificate>,
}

impl hyper::service::Service<Request<Incoming>> for ConnectionService {
    type Response = Response<AnswerBody>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let guard = RequestGuard::begin(&self.activity, request.version() == Version::HTTP_2);
        let over_tls = self.over_tls;
        let answering = self
            .refusal(&request)
            .map_or_else(|| Ok(self.answer(request)), Err);
        let connections = Arc::clone(&self.connections);
        Box::pin(async move {
            let mut response = match answering {
                Ok(answering) => answering.await?,
                Err(problem) => problem.into_response(),
            };
            answer_headers::confine(response.headers_mut(), over_tls);
            Ok(AnswerBody::of(response, guard, connections))
        })
    }
}

impl ConnectionService {
    /// What refuses a request before it reaches its service.
    fn refusal(&self, request: &Request<Incoming>) -> Option<Problem> {
        let (reason, problem) = match self.hosts.check(request) {
            Err(refusal) => (refusal.reason(), self.hosts.problem(refusal)),
            Ok(()) if self.connections.has_room(&self.activity) => return None,
            Ok(()) => {
                let detail = "too much of the answers on this connection is unread";
                let problem = Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail);
                ("unread_answers", problem.retry_after(UNREAD_RETRY))
            }
        };
        let listener = self.listener.to_string();
        metrics::counter!("tollgate_http_requests_refused_total", "listener" => listener, "reason" => reason)
            .increment(1);
        Some(problem)
    }

    fn answer(
        &self,
        request: Request<Incoming>,
    ) -> impl Future<Output = Result<Response<Body>, Infallible>> + Send + 'static {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(ConnectInfo(self.peer));
        request.extensions_mut().insert(if self.over_tls {
            Scheme::HTTPS
        } else {
            Scheme::HTTP
        });
        if let Some(certificate) = &self.certificate {
            request.extensions_mut().insert(certificate.clone());
        }
        self.app.clone().oneshot(request)
    }
}
