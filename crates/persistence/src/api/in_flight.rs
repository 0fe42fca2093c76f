//! Bounds the memory of requests: a number in flight, in total and for each caller, and a deadline for answers that
//! their callers do not read.
//!
//! Invariant: a request holds its slot until its answer is written, or its connection has ended.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::http::StatusCode;
use axum::response::Response;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tollgate_service::http::{Caller, Problem, hold_until_written};

use crate::config::PersistenceConfig;

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

    /// Lets the answer keep the slot until it is written. A connection that takes nothing of it for `unread_timeout_ms` is
    /// closed.
    pub(super) fn keep(&self, response: &mut Response, slot: Slot) {
        hold_until_written(response, slot, Some(self.unread));
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

#[cfg(test)]
mod tests {
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
}
