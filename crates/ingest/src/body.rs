//! Reading a request's body: bounded in bytes and in time, whether or not the caller says how long it is.

use std::future::poll_fn;
use std::pin::Pin;
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody as _};
use axum::http::StatusCode;
use tokio::sync::OwnedSemaphorePermit;
use tollgate_service::http::Problem;

use crate::limits::Limits;

/// A body that is answered before it was read is read on for so long at most, …
const DISCARD_TIME: Duration = Duration::from_millis(250);
/// … and so far: a caller that is still writing would not see the answer of a connection that is closed.
const DISCARD_BYTES: usize = 64 * 1024 * 1024;

/// A whole body, and its share of the bytes that may be held.
#[derive(Debug, Default)]
pub(crate) struct Received {
    bytes: Vec<u8>,
    room: Option<OwnedSemaphorePermit>,
}

impl Received {
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    fn push(&mut self, chunk: &[u8], limits: &Limits) -> Result<(), Problem> {
        let more = limits.hold(chunk.len())?;
        match &mut self.room {
            Some(room) => room.merge(more),
            None => self.room = Some(more),
        }
        self.bytes.extend_from_slice(chunk);
        Ok(())
    }
}

/// Reads a body of at most `max_bytes` within `time`.
pub(crate) async fn receive(
    body: &mut Body,
    max_bytes: usize,
    time: Duration,
    limits: &Limits,
) -> Result<Received, Problem> {
    let declared = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    if declared > max_bytes {
        return Err(too_large(max_bytes));
    }
    let reading = async {
        let mut received = Received::default();
        while let Some(chunk) = next(body).await? {
            if received.bytes.len() + chunk.len() > max_bytes {
                return Err(too_large(max_bytes));
            }
            received.push(&chunk, limits)?;
        }
        Ok(received)
    };
    tokio::time::timeout(time, reading)
        .await
        .unwrap_or_else(|_| {
            Err(Problem::new(
                StatusCode::REQUEST_TIMEOUT,
                format!("the body did not arrive within {} ms", time.as_millis()),
            ))
        })
}

/// Reads what is left of a body that was answered already.
pub(crate) async fn discard(body: &mut Body) {
    let reading = async {
        let mut left = DISCARD_BYTES;
        while let Ok(Some(chunk)) = next(body).await {
            left = left.saturating_sub(chunk.len());
            if left == 0 {
                break;
            }
        }
    };
    // Whether all of it came makes no difference to anybody.
    let _ = tokio::time::timeout(DISCARD_TIME, reading).await;
}

async fn next(body: &mut Body) -> Result<Option<Bytes>, Problem> {
    loop {
        match poll_fn(|context| Pin::new(&mut *body).poll_frame(context)).await {
            None => return Ok(None),
            Some(Ok(frame)) => {
                // Trailers hold no data.
                if let Ok(data) = frame.into_data() {
                    return Ok(Some(data));
                }
            }
            Some(Err(error)) => {
                let detail = format!("the body broke off: {error}");
                return Err(Problem::new(StatusCode::BAD_REQUEST, detail));
            }
        }
    }
}

fn too_large(max_bytes: usize) -> Problem {
    let detail =
        format!("the body is larger than {max_bytes} bytes; send fewer transactions in a request");
    Problem::new(StatusCode::PAYLOAD_TOO_LARGE, detail)
}
