//! Reads the body of a request, bounded in bytes and in time, with or without a `Content-Length`.

use std::future::poll_fn;
use std::pin::Pin;
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody as _};
use axum::http::StatusCode;
use tokio::sync::OwnedSemaphorePermit;
use tollgate_service::http::Problem;

use crate::admission::AdmissionControl;

/// How long the rest of a rejected body is read and discarded. A caller that is still writing when the connection is
/// closed does not see the answer.
const DISCARD_TIME: Duration = Duration::from_millis(250);
/// How many bytes of a rejected body are discarded at most.
const DISCARD_BYTES: usize = 64 * 1024 * 1024;

/// A complete body, and the permit for its bytes.
#[derive(Debug, Default)]
pub(crate) struct RequestBody {
    bytes: Vec<u8>,
    permit: Option<OwnedSemaphorePermit>,
}

impl RequestBody {
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    fn push(&mut self, chunk: &[u8], admission: &AdmissionControl) -> Result<(), Problem> {
        let more = admission.acquire_bytes(chunk.len())?;
        match &mut self.permit {
            Some(permit) => permit.merge(more),
            None => self.permit = Some(more),
        }
        self.bytes.extend_from_slice(chunk);
        Ok(())
    }
}

/// Reads a body of at most `max_bytes` within `timeout`.
///
/// # Errors
/// 413 if it is larger, 408 if it does not arrive in time, 503 if there is no room for it, 400 if the connection fails.
pub(crate) async fn receive(
    body: &mut Body,
    max_bytes: usize,
    timeout: Duration,
    admission: &AdmissionControl,
) -> Result<RequestBody, Problem> {
    let declared = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    if declared > max_bytes {
        return Err(too_large(max_bytes));
    }
    let reading = async {
        let mut received = RequestBody::default();
        while let Some(chunk) = next(body).await? {
            if received.bytes.len() + chunk.len() > max_bytes {
                return Err(too_large(max_bytes));
            }
            received.push(&chunk, admission)?;
        }
        Ok(received)
    };
    tokio::time::timeout(timeout, reading)
        .await
        .unwrap_or_else(|_| {
            Err(Problem::new(
                StatusCode::REQUEST_TIMEOUT,
                format!("the body did not arrive within {} ms", timeout.as_millis()),
            ))
        })
}

/// Reads and discards the rest of the body of a rejected request.
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
    // Best effort: whether the whole body arrived makes no difference.
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
                let detail = format!("the body could not be read: {error}");
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
