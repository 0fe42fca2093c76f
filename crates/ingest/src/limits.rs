//! How much is taken at once: requests, bytes of bodies, transactions of a key. Beyond it callers are told when to
//! come again, at once and at little cost, so that those who were let in are served.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use governor::clock::Clock as _;
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tollgate_service::http::{Caller, Problem};

use crate::{IngestConfig, RateLimitConfig};

/// When to come again after being shed: requests take milliseconds.
const SHED_RETRY: Duration = Duration::from_secs(1);

/// The limits in force.
#[derive(Debug)]
pub(crate) struct Limits {
    requests: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
    rate: Option<Rate>,
}

#[derive(Debug)]
struct Rate {
    buckets: DefaultKeyedRateLimiter<Caller>,
    burst: NonZeroU32,
}

impl Rate {
    fn new(config: RateLimitConfig) -> Option<Self> {
        let per_second = NonZeroU32::new(config.transactions_per_second)?;
        let burst = NonZeroU32::new(config.burst).unwrap_or(per_second);
        let quota = Quota::per_second(per_second).allow_burst(burst);
        // Its keys are the names of the configured API keys: it cannot grow.
        let buckets = RateLimiter::keyed(quota);
        Some(Self { buckets, burst })
    }
}

impl Limits {
    pub(crate) fn new(config: &IngestConfig) -> Self {
        Self {
            requests: Arc::new(Semaphore::new(config.max_in_flight)),
            bytes: Arc::new(Semaphore::new(config.max_in_flight_bytes)),
            rate: Rate::new(config.rate_limit),
        }
    }

    /// A place among the requests under way, kept as long as the permit.
    pub(crate) fn enter(&self) -> Result<OwnedSemaphorePermit, Problem> {
        let place = Arc::clone(&self.requests).try_acquire_owned();
        place.map_err(|_| shed("requests", "too many requests are under way"))
    }

    /// Room for so many bytes of a body, kept as long as the permit.
    pub(crate) fn hold(&self, bytes: usize) -> Result<OwnedSemaphorePermit, Problem> {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let room = Arc::clone(&self.bytes).try_acquire_many_owned(bytes);
        room.map_err(|_| shed("bytes", "too much data is under way"))
    }

    /// Takes so many transactions, one at least, from the caller's bucket.
    pub(crate) fn charge(&self, caller: &Caller, items: usize) -> Result<(), Problem> {
        let Some(rate) = &self.rate else {
            return Ok(());
        };
        let items = u32::try_from(items).unwrap_or(u32::MAX);
        let items = NonZeroU32::new(items).unwrap_or(NonZeroU32::MIN);
        match rate.buckets.check_key_n(caller, items) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(early)) => {
                metrics::counter!("tollgate_ingest_shed_total", "reason" => "rate").increment(1);
                let wait = early.wait_time_from(rate.buckets.clock().now());
                let problem = Problem::new(
                    StatusCode::TOO_MANY_REQUESTS,
                    "this key has sent more transactions a second than it may; nothing of this request was taken",
                );
                Err(problem.retry_after(wait))
            }
            // Waiting would not help, so it is not answered with 429.
            Err(_) => Err(Problem::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                format!(
                    "the request holds {items} transactions, and this key may send {} at once; send fewer in a request",
                    rate.burst
                ),
            )),
        }
    }
}

fn shed(reason: &'static str, detail: &'static str) -> Problem {
    metrics::counter!("tollgate_ingest_shed_total", "reason" => reason).increment(1);
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail).retry_after(SHED_RETRY)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(change: impl FnOnce(&mut IngestConfig)) -> Limits {
        let mut config = IngestConfig::default();
        change(&mut config);
        Limits::new(&config)
    }

    #[test]
    fn a_place_is_free_again_when_its_request_has_ended() {
        let limits = limits(|config| config.max_in_flight = 1);
        let place = limits.enter().unwrap();
        let problem = limits.enter().unwrap_err();
        assert_eq!(problem.status(), StatusCode::SERVICE_UNAVAILABLE);
        drop(place);
        assert!(limits.enter().is_ok());
    }

    #[test]
    fn bytes_are_counted_over_all_requests() {
        let limits = limits(|config| config.max_in_flight_bytes = 10);
        let first = limits.hold(6).unwrap();
        assert!(limits.hold(5).is_err());
        drop(first);
        assert!(limits.hold(10).is_ok());
    }

    #[test]
    fn keys_have_buckets_of_their_own_and_more_than_a_bucket_never_fits() {
        let limits = limits(|config| {
            config.rate_limit = RateLimitConfig {
                transactions_per_second: 1,
                burst: 10,
            };
        });
        let [a, b] = ["a", "b"].map(|name| Caller(name.into()));
        assert!(limits.charge(&a, 10).is_ok());
        let problem = limits.charge(&a, 5).unwrap_err();
        assert_eq!(problem.status(), StatusCode::TOO_MANY_REQUESTS);
        assert!(limits.charge(&b, 10).is_ok());
        let problem = limits.charge(&b, 11).unwrap_err();
        assert_eq!(problem.status(), StatusCode::PAYLOAD_TOO_LARGE);
    }
}
