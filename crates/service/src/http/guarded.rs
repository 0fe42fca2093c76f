//! A connection whose input and output, requests and answers are reported to its [`Activity`].

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::Router;
use axum::body::{Body, Bytes, HttpBody};
use axum::extract::ConnectInfo;
use axum::http::{Request, Response, Version};
use axum::response::IntoResponse as _;
use futures_util::future::BoxFuture;
use hyper::body::{Frame, Incoming, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;
use tower::ServiceExt as _;

use super::activity::Activity;
use super::hosts::Hosts;
use super::{ClientCertificate, Problem, answer_headers};

/// Reports what is read, and whether the caller takes what is written.
#[derive(Debug)]
pub(super) struct GuardedStream<S> {
    stream: S,
    activity: Arc<Activity>,
}

impl<S> GuardedStream<S> {
    pub(super) const fn new(stream: S, activity: Arc<Activity>) -> Self {
        Self { stream, activity }
    }

    fn written<T>(&self, result: Poll<T>) -> Poll<T> {
        match result {
            Poll::Ready(_) => self.activity.write_progressed(),
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
        self.written(flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let closed = Pin::new(&mut self.stream).poll_shutdown(context);
        self.written(closed)
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
        let answering = match self.hosts.check(&request) {
            Ok(()) => {
                let mut request = request.map(Body::new);
                request.extensions_mut().insert(ConnectInfo(self.peer));
                if let Some(certificate) = &self.certificate {
                    request.extensions_mut().insert(certificate.clone());
                }
                Ok(self.app.clone().oneshot(request))
            }
            Err(refusal) => {
                let (listener, reason) = (self.listener.to_string(), refusal.reason());
                metrics::counter!("tollgate_http_requests_refused_total", "listener" => listener, "reason" => reason)
                    .increment(1);
                Err(Problem::from(refusal))
            }
        };
        Box::pin(async move {
            let mut response = match answering {
                Ok(answering) => answering.await?,
                Err(problem) => problem.into_response(),
            };
            answer_headers::confine(response.headers_mut(), over_tls);
            Ok(response.map(|body| AnswerBody { body, guard }))
        })
    }
}

/// Ends the request when its answer is complete, or when it is aborted.
#[derive(Debug)]
struct RequestGuard {
    activity: Arc<Activity>,
    request: u64,
}

impl RequestGuard {
    fn begin(activity: &Arc<Activity>, is_http2: bool) -> Self {
        Self {
            request: activity.begin_request(is_http2),
            activity: Arc::clone(activity),
        }
    }
}

impl Drop for RequestGuard {
    fn drop(&mut self) {
        self.activity.end_request(self.request, Instant::now());
    }
}

/// The body of an answer.
#[derive(Debug)]
pub(super) struct AnswerBody {
    body: Body,
    guard: RequestGuard,
}

impl HttpBody for AnswerBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let request = self.guard.request;
        self.guard.activity.part_taken(request);
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        if frame.is_some() {
            self.guard.activity.part_begins(request, Instant::now());
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
