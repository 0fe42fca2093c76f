//! Answers on their way from the handler to the socket.
//!
//! Invariant: an answer is counted as unread, and keeps what its service has lent it, until its last byte was given to the
//! socket or its connection has ended. It is handed over in pieces, so that a caller with a small window does not make the
//! connection buffer more than one piece.

use std::any::Any;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::http::Response;
use hyper::body::{Buf, Bytes, Frame, SizeHint};
use tokio::time::Instant;

use super::activity::Activity;
use super::connections::Connections;

/// The most bytes that are given to a connection at once. What is held for an answer of at most this size is released when
/// the answer begins.
pub(super) const PIECE: usize = 64 * 1024;
/// What a request in flight takes beside its answer, in bytes: the states of the request and its stream.
const OVERHEAD: usize = 8 * 1024;

/// What an answer keeps until it is written: an extension of the response.
#[derive(Debug, Clone)]
struct Held {
    _what: Arc<dyn Any + Send + Sync>,
    timeout: Option<Duration>,
}

/// The bytes of the answer are in memory once for all answers: an extension of the response.
#[derive(Debug, Clone, Copy)]
struct Shared;

/// Keeps `what`, such as a permit, until the answer is written or its connection has ended. Answers of up to 64 KiB keep
/// nothing: a connection holds no more of them than its listener permits. If nothing of the answer is taken for as long as
/// `timeout`, the connection is closed; in any case after the `write_timeout_ms` of the listener.
pub fn hold_until_written<B>(
    response: &mut Response<B>,
    what: impl Any + Send + Sync,
    timeout: Option<Duration>,
) {
    let held = Held {
        _what: Arc::new(what),
        timeout,
    };
    response.extensions_mut().insert(held);
}

/// Declares that the bytes of this answer are in memory once for all answers with them.
pub(super) fn shared<B>(mut response: Response<B>) -> Response<B> {
    response.extensions_mut().insert(Shared);
    response
}

/// A request of a connection. It ends when it is dropped.
#[derive(Debug)]
pub(super) struct RequestGuard {
    activity: Arc<Activity>,
    request: u64,
}

impl RequestGuard {
    pub(super) fn begin(activity: &Arc<Activity>, is_http2: bool) -> Self {
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

/// An answer until it is written.
#[derive(Debug)]
struct Answer {
    guard: RequestGuard,
    connections: Arc<Connections>,
    charged: usize,
    _held: Option<Held>,
}

impl Answer {
    fn taken(&self, bytes: usize) {
        let RequestGuard { activity, request } = &self.guard;
        activity.answer_taken(*request, bytes, Instant::now(), self.connections.limits());
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.connections.release(&self.guard.activity, self.charged);
    }
}

/// The body of an answer.
#[derive(Debug)]
pub(super) struct AnswerBody {
    body: Body,
    /// Of a frame of the body, what was not handed over yet.
    rest: Bytes,
    answer: Arc<Answer>,
}

impl AnswerBody {
    /// Replaces the body of a response.
    pub(super) fn of(
        mut response: Response<Body>,
        guard: RequestGuard,
        connections: Arc<Connections>,
    ) -> Response<Self> {
        let held = response.extensions_mut().remove::<Held>();
        let is_shared = response.extensions_mut().remove::<Shared>().is_some();
        let bytes = usize::try_from(response.body().size_hint().lower()).unwrap_or(usize::MAX / 2);
        let is_small = response.body().size_hint().exact().is_some() && bytes <= PIECE;
        let charged = OVERHEAD + if is_shared { 0 } else { bytes };
        let (activity, limits) = (&guard.activity, connections.limits());
        let timeout = held.as_ref().and_then(|held| held.timeout);
        let timeout = timeout.map_or(limits.write, |timeout| timeout.min(limits.write));
        activity.answer_begins(guard.request, Instant::now(), timeout);
        connections.charge(activity, charged);
        let answer = Answer {
            guard,
            connections,
            charged,
            _held: held.filter(|_| !is_small),
        };
        response.map(|body| Self {
            body,
            rest: Bytes::new(),
            answer: Arc::new(answer),
        })
    }

    fn piece(&mut self) -> Frame<Piece> {
        let length = self.rest.len().min(PIECE);
        Frame::data(Piece {
            bytes: self.rest.split_to(length),
            answer: Arc::clone(&self.answer),
        })
    }
}

impl HttpBody for AnswerBody {
    type Data = Piece;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Piece>, axum::Error>>> {
        if !self.rest.is_empty() {
            return Poll::Ready(Some(Ok(self.piece())));
        }
        let Some(frame) = ready!(Pin::new(&mut self.body).poll_frame(context)?) else {
            return Poll::Ready(None);
        };
        let frame = match frame.into_data() {
            Ok(data) => {
                self.rest = data;
                self.piece()
            }
            Err(frame) => match frame.into_trailers() {
                Ok(trailers) => Frame::trailers(trailers),
                Err(_) => return Poll::Ready(None),
            },
        };
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (rest, body) = (self.rest.len() as u64, self.body.size_hint());
        let mut hint = SizeHint::new();
        hint.set_lower(rest + body.lower());
        if let Some(upper) = body.upper() {
            hint.set_upper(rest + upper);
        }
        hint
    }
}

/// Bytes of an answer, which is unread as long as one of them is not written.
#[derive(Debug)]
pub(super) struct Piece {
    bytes: Bytes,
    answer: Arc<Answer>,
}

impl Buf for Piece {
    fn remaining(&self) -> usize {
        self.bytes.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.bytes.chunk()
    }

    fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
        self.answer.taken(count);
    }
}
