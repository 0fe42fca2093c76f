//! Admission control: bounds on requests in flight, on bytes of bodies in memory, and on the rate of each API key.
//!
//! A request beyond a bound is rejected at once with `Retry-After`, so that the requests in flight complete in time.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use governor::clock::Clock as _;
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tollgate_service::http::{Caller, Problem};

use crate::{IngestConfig, RateLimitConfig};

/// `Retry-After` of a rejected request: requests take milliseconds.
const SHED_RETRY: Duration = Duration::from_secs(1);

/// The bounds in force.
#[derive(Debug)]
pub(crate) struct AdmissionControl {
    requests: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
    rate: Option<RateLimit>,
}

/// A token bucket of transactions for each API key.
#[derive(Debug)]
struct RateLimit {
    buckets: DefaultKeyedRateLimiter<Caller>,
    burst: NonZeroU32,
}

impl RateLimit {
    fn new(config: RateLimitConfig) -> Option<Self> {
        let per_second = NonZeroU32::new(config.transactions_per_second)?;
        let burst = NonZeroU32::new(config.burst).unwrap_or(per_second);
        let quota = Quota::per_second(per_second).allow_burst(burst);
        // Bounded: its keys are the names of the configured API keys.
        let buckets = RateLimiter::keyed(quota);
        Some(Self { buckets, burst })
    }
}

impl AdmissionControl {
    pub(crate) fn new(config: &IngestConfig) -> Self {
        Self {
            requests: Arc::new(Semaphore::new(config.max_in_flight)),
            bytes: Arc::new(Semaphore::new(config.max_in_flight_bytes)),
            rate: RateLimit::new(config.rate_limit),
        }
    }

    /// A permit for one request in flight. Dropping it releases the permit.
    ///
    /// # Errors
    /// 503 if `max_in_flight` requests are in flight.
    pub(crate) fn acquire_request(&self) -> Result<OwnedSemaphorePermit, Problem> {
        let permit = Arc::clone(&self.requests).try_acquire_owned();
        permit.map_err(|_| shed("requests", "too many requests are in flight"))
    }

    /// A permit for `bytes` of a body in memory. Dropping it releases the permit.
    ///
    /// # Errors
    /// 503 if all bodies together would exceed `max_in_flight_bytes`.
    pub(crate) fn acquire_bytes(&self, bytes: usize) -> Result<OwnedSemaphorePermit, Problem> {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let permit = Arc::clone(&self.bytes).try_acquire_many_owned(bytes);
        permit.map_err(|_| shed("bytes", "too much data is in flight"))
    }

    /// Charges `items` transactions, at least one, to the caller's rate limit.
    ///
    /// # Errors
    /// 429 if the key is over its rate, 413 if the request exceeds the key's burst.
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
                    "the rate limit of this key is exceeded; nothing of this request was accepted",
                );
                Err(problem.retry_after(wait))
            }
            // More than a full bucket: retrying cannot succeed, so the answer is not 429.
            Err(_) => Err(Problem::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                format!(
                    "the request has {items} transactions, more than the burst of {} of this key; send fewer in a request",
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

    fn admission(change: impl FnOnce(&mut IngestConfig)) -> AdmissionControl {
        let mut config = IngestConfig::default();
        change(&mut config);
        AdmissionControl::new(&config)
    }

    #[test]
    fn a_permit_is_released_when_its_request_ends() {
        let admission = admission(|config| config.max_in_flight = 1);
        let permit = admission.acquire_request().unwrap();
        let problem = admission.acquire_request().unwrap_err();
        assert_eq!(problem.status(), StatusCode::SERVICE_UNAVAILABLE);
        drop(permit);
        assert!(admission.acquire_request().is_ok());
    }

    #[test]
    fn bytes_are_counted_over_all_requests() {
        let admission = admission(|config| config.max_in_flight_bytes = 10);
        let first = admission.acquire_bytes(6).unwrap();
        assert!(admission.acquire_bytes(5).is_err());
        drop(first);
        assert!(admission.acquire_bytes(10).is_ok());
    }

    #[test]
    fn each_key_has_its_own_bucket_and_a_request_larger_than_a_bucket_is_too_large() {
        let admission = admission(|config| {
            config.rate_limit = RateLimitConfig {
                transactions_per_second: 1,
                burst: 10,
            };
        });
        let [a, b] = ["a", "b"].map(|name| Caller(name.into()));
        assert!(admission.charge(&a, 10).is_ok());
        let problem = admission.charge(&a, 5).unwrap_err();
        assert_eq!(problem.status(), StatusCode::TOO_MANY_REQUESTS);
        assert!(admission.charge(&b, 10).is_ok());
        let problem = admission.charge(&b, 11).unwrap_err();
        assert_eq!(problem.status(), StatusCode::PAYLOAD_TOO_LARGE);
    }
}
