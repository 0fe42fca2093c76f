//! Reads the body of a request, bounded in bytes and in time, with or without a `Content-Length`.

use std::future::poll_fn;
use std::pin::Pin;
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody as _};
use axum::http::StatusCode;
use tokio::time::Instant;
use tollgate_service::http::Problem;

use crate::coding::{self, Coding};
use crate::shares::SharePermit;

/// How long the rest of a rejected body is read and discarded. A caller that is still writing when the connection is
/// closed does not see the answer.
const DISCARD_TIME: Duration = Duration::from_millis(250);
/// How many bytes of a rejected body are discarded at most.
const DISCARD_BYTES: usize = 64 * 1024 * 1024;

/// How long a body may keep arriving without its rate being looked at: connections start slowly.
const GRACE: Duration = Duration::from_secs(2);

/// How fast a body must arrive. A body that arrives slowly holds a permit that others need.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BodyPace {
    pub(crate) timeout: Duration,
    /// On average, after [`GRACE`]; 0 is no limit.
    pub(crate) min_bytes_per_second: u32,
}

impl BodyPace {
    /// When the next byte must be there, `received` bytes having arrived since `begun`, and whether that is because of the
    /// rate.
    fn deadline(self, begun: Instant, received: usize) -> (Instant, bool) {
        let whole = begun + self.timeout;
        let rate = u64::from(self.min_bytes_per_second);
        let received = received as u64;
        let paid = received.saturating_mul(1_000).checked_div(rate);
        let slowest = paid.map(|millis| begun + GRACE + Duration::from_millis(millis));
        match slowest {
            Some(slowest) if slowest < whole => (slowest, true),
            _ => (whole, false),
        }
    }

    fn late(self, is_slow: bool) -> Problem {
        let detail = match is_slow {
            true => format!(
                "the body arrives at less than {} bytes a second",
                self.min_bytes_per_second
            ),
            false => format!(
                "the body did not arrive within {} ms",
                self.timeout.as_millis()
            ),
        };
        Problem::new(StatusCode::REQUEST_TIMEOUT, detail)
    }
}

/// A complete body, and the permit for its bytes.
#[derive(Debug, Default)]
pub(crate) struct RequestBody {
    pub(crate) bytes: Vec<u8>,
    pub(crate) permit: Option<SharePermit>,
}

impl RequestBody {
    fn push(&mut self, chunk: &[u8], more: SharePermit) {
        match &mut self.permit {
            Some(permit) => permit.merge(more),
            None => self.permit = Some(more),
        }
        self.bytes.extend_from_slice(chunk);
    }
}

/// Reads a body of at most `max_bytes` that arrives at `pace`, and decompresses it into at most as many. `acquire` gives
/// the permits for its bytes.
///
/// # Errors
/// 413 if it is larger, 408 if it does not arrive in time, 400 if the connection fails or it cannot be decompressed; the
/// errors of `acquire`.
pub(crate) async fn receive(
    body: &mut Body,
    coding: Coding,
    max_bytes: usize,
    pace: BodyPace,
    acquire: impl Fn(usize) -> Result<SharePermit, Problem>,
) -> Result<RequestBody, Problem> {
    let received = receive_plain(body, max_bytes, pace, &acquire).await?;
    match coding {
        Coding::Plain => Ok(received),
        Coding::Gzip => {
            let mut plain = RequestBody::default();
            let grow = |piece: &[u8]| {
                plain.push(piece, acquire(piece.len())?);
                Ok(())
            };
            coding::inflate(&received.bytes, max_bytes, grow).await?;
            Ok(plain)
        }
    }
}

async fn receive_plain(
    body: &mut Body,
    max_bytes: usize,
    pace: BodyPace,
    acquire: impl Fn(usize) -> Result<SharePermit, Problem>,
) -> Result<RequestBody, Problem> {
    let declared = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    if declared > max_bytes {
        return Err(too_large(max_bytes));
    }
    let begun = Instant::now();
    let mut received = RequestBody::default();
    loop {
        let (deadline, is_slow) = pace.deadline(begun, received.bytes.len());
        let chunk = tokio::time::timeout_at(deadline, next(body))
            .await
            .map_err(|_| pace.late(is_slow))??;
        let Some(chunk) = chunk else {
            return Ok(received);
        };
        if received.bytes.len() + chunk.len() > max_bytes {
            return Err(too_large(max_bytes));
        }
        received.push(&chunk, acquire(chunk.len())?);
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_must_arrive_at_its_rate_and_within_its_time() {
        let begun = Instant::now();
        let deadline = |min_bytes_per_second, received| {
            let pace = BodyPace {
                timeout: Duration::from_secs(10),
                min_bytes_per_second,
            };
            pace.deadline(begun, received).0.duration_since(begun)
        };
        assert_eq!(deadline(1_000, 0), GRACE);
        assert_eq!(deadline(1_000, 500), GRACE + Duration::from_millis(500));
        assert_eq!(deadline(1_000, 8_000), Duration::from_secs(10));
        assert_eq!(deadline(1_000, 1 << 30), Duration::from_secs(10));
        assert_eq!(deadline(0, 0), Duration::from_secs(10));
    }
}
