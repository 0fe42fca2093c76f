//! Bounds the memory of requests: a number in flight, in total and for each caller, and a deadline for answers that
//! their callers do not read.
//!
//! Invariant: a request holds its slot until its answer has been handed to the connection, in pieces of at most 64 KiB, or
//! has been dropped. The pieces are copies, so that a connection that is stuck keeps only what it has taken.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use futures_util::stream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tollgate_service::http::{Caller, Problem};

use crate::config::PersistenceConfig;

/// Answers up to this size are handed over at once.
const PIECE: usize = 64 * 1024;
const RETRY: Duration = Duration::from_secs(1);

/// The requests in flight.
#[derive(Debug, Clone)]
pub(super) struct InFlight {
    slots: Arc<Semaphore>,
    callers: Arc<Mutex<HashMap<Caller, usize>>>,
    per_caller: usize,
    unread: Duration,
}

/// The place of one request among those in flight, until it is dropped.
#[derive(Debug)]
pub(super) struct Slot {
    caller: Caller,
    callers: Arc<Mutex<HashMap<Caller, usize>>>,
    _slot: OwnedSemaphorePermit,
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut callers = self.callers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = callers.get_mut(&self.caller) {
            *count -= 1;
            if *count == 0 {
                callers.remove(&self.caller);
            }
        }
    }
}

impl InFlight {
    pub(super) fn new(config: &PersistenceConfig) -> Self {
        // Without keys every caller has the same name, and has no share of its own.
        let per_caller = if config.api_keys.is_empty() && config.api_keys_file.is_none() {
            config.requests_max
        } else {
            config.requests_per_key
        };
        Self {
            slots: Arc::new(Semaphore::new(
                config.requests_max.min(Semaphore::MAX_PERMITS),
            )),
            callers: Arc::default(),
            per_caller,
            unread: Duration::from_millis(config.unread_timeout_ms),
        }
    }

    /// # Errors
    /// 429 if this caller has too many requests in flight, 503 if all together have.
    pub(super) fn enter(&self, caller: Caller) -> Result<Slot, Problem> {
        let mut callers = self.callers.lock().unwrap_or_else(PoisonError::into_inner);
        let own = callers.get(&caller).copied().unwrap_or_default();
        if own >= self.per_caller && self.slots.available_permits() > 0 {
            return Err(refused(StatusCode::TOO_MANY_REQUESTS, "key"));
        }
        let Ok(slot) = Arc::clone(&self.slots).try_acquire_owned() else {
            return Err(refused(StatusCode::SERVICE_UNAVAILABLE, "all"));
        };
        callers.insert(caller.clone(), own + 1);
        Ok(Slot {
            caller,
            callers: Arc::clone(&self.callers),
            _slot: slot,
        })
    }

    /// The answer, which keeps the slot until the connection has taken it.
    pub(super) async fn answer(&self, response: Response, slot: Slot) -> Response {
        let (mut parts, body) = response.into_parts();
        // Every answer of this API is in memory already.
        let Ok(bytes) = axum::body::to_bytes(body, usize::MAX).await else {
            return Response::from_parts(parts, Body::empty());
        };
        if bytes.len() <= PIECE {
            return Response::from_parts(parts, Body::from(bytes));
        }
        parts
            .headers
            .insert(header::CONTENT_LENGTH, HeaderValue::from(bytes.len()));
        let unread = Arc::new(Mutex::new(Unread {
            rest: bytes,
            slot: Some(slot),
            pieces: 0,
        }));
        tokio::spawn(drop_unread(Arc::downgrade(&unread), self.unread));
        let pieces = stream::unfold(unread, async |unread| {
            let piece = take_piece(&unread)?;
            Some((piece, unread))
        });
        Response::from_parts(parts, Body::from_stream(pieces))
    }
}

fn refused(status: StatusCode, share: &'static str) -> Problem {
    metrics::counter!("tollgate_persistence_requests_refused_total", "share" => share).increment(1);
    let detail = if share == "key" {
        "this key has too many requests in flight, or answers that it has not read; try again later"
    } else {
        "too many requests are in flight; try again later"
    };
    Problem::new(status, detail).retry_after(RETRY)
}

/// The part of an answer that its connection has not taken.
struct Unread {
    rest: Bytes,
    /// `None` once everything was taken, or dropped.
    slot: Option<Slot>,
    pieces: u64,
}

fn take_piece(unread: &Mutex<Unread>) -> Option<io::Result<Bytes>> {
    let mut unread = unread.lock().unwrap_or_else(PoisonError::into_inner);
    if unread.rest.is_empty() {
        return None;
    }
    if unread.slot.is_none() {
        return Some(Err(io::Error::new(
            io::ErrorKind::TimedOut,
            "the answer was not read in time",
        )));
    }
    let length = unread.rest.len().min(PIECE);
    let piece = Bytes::copy_from_slice(&unread.rest.split_to(length));
    unread.pieces += 1;
    if unread.rest.is_empty() {
        unread.rest = Bytes::new();
        unread.slot = None;
    }
    Some(Ok(piece))
}

/// Drops what is left of an answer of which no piece was taken during the timeout. The connection is closed by the write
/// timeout of the listener, or when it asks for the next piece.
async fn drop_unread(unread: std::sync::Weak<Mutex<Unread>>, timeout: Duration) {
    let mut pieces = 0;
    loop {
        tokio::time::sleep(timeout).await;
        let Some(unread) = unread.upgrade() else {
            return;
        };
        let mut unread = unread.lock().unwrap_or_else(PoisonError::into_inner);
        if unread.slot.is_none() {
            return;
        }
        if unread.pieces == pieces {
            metrics::counter!("tollgate_persistence_answers_unread_total").increment(1);
            // Not empty: the next piece is an error, so that the answer does not look complete.
            unread.rest = Bytes::from_static(b"-");
            unread.slot = None;
            return;
        }
        pieces = unread.pieces;
    }
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt as _;

    use super::*;

    fn in_flight(keys: usize) -> InFlight {
        let key = tollgate_service::http::ApiKeyConfig {
            name: "shop".into(),
            ..Default::default()
        };
        InFlight::new(&PersistenceConfig {
            requests_max: 4,
            requests_per_key: 2,
            api_keys: vec![key; keys],
            ..PersistenceConfig::default()
        })
    }

    fn status(entered: Result<Slot, Problem>) -> u16 {
        entered.map_or_else(|problem| problem.status().as_u16(), |_| 200)
    }

    #[test]
    fn a_key_has_a_share_and_all_together_have_a_limit() {
        let (in_flight, caller) = (in_flight(1), Caller::named);
        let held: Vec<_> = ["a", "a", "b"]
            .iter()
            .map(|name| in_flight.enter(caller(name)).unwrap())
            .collect();
        assert_eq!(status(in_flight.enter(caller("a"))), 429);
        let last = in_flight.enter(caller("c")).unwrap();
        assert_eq!(status(in_flight.enter(caller("d"))), 503);
        drop(last);
        assert_eq!(status(in_flight.enter(caller("d"))), 200);
        drop(held);
        assert!(in_flight.callers.lock().unwrap().is_empty());
        assert_eq!(in_flight.slots.available_permits(), 4);
    }

    #[test]
    fn without_keys_there_are_no_shares() {
        let in_flight = in_flight(0);
        let all: Vec<_> = (0..4)
            .map(|_| in_flight.enter(Caller::anonymous()).unwrap())
            .collect();
        assert_eq!(status(in_flight.enter(Caller::anonymous())), 503);
        drop(all);
    }

    async fn large(in_flight: &InFlight) -> Response {
        let slot = in_flight.enter(Caller::named("a")).unwrap();
        let response = Response::new(Body::from(vec![b'x'; 3 * PIECE + 1]));
        in_flight.answer(response, slot).await
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_is_whole_and_gives_its_slot_back_when_it_is_read() {
        let in_flight = in_flight(0);
        let response = large(&in_flight).await;
        assert_eq!(response.headers()[header::CONTENT_LENGTH], "196609");
        assert_eq!(in_flight.slots.available_permits(), 3);
        let mut pieces = response.into_body().into_data_stream();
        let mut length = 0;
        // Slow, but not too slow.
        while let Some(piece) = pieces.next().await {
            length += piece.unwrap().len();
            tokio::time::advance(in_flight.unread / 2).await;
        }
        assert_eq!(length, 3 * PIECE + 1);
        assert_eq!(in_flight.slots.available_permits(), 4);
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_nobody_reads_is_dropped_and_cannot_be_taken_for_a_whole_one() {
        let in_flight = in_flight(0);
        let mut pieces = large(&in_flight).await.into_body().into_data_stream();
        assert!(pieces.next().await.unwrap().is_ok());
        while in_flight.slots.available_permits() < 4 {
            tokio::time::advance(in_flight.unread).await;
            tokio::task::yield_now().await;
        }
        assert!(pieces.next().await.unwrap().is_err());
    }
}
