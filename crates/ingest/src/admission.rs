//! Admission control: bounds on requests in flight and on bytes of bodies in memory, of which each API key has a share,
//! and on the rate of each API key and of each tenant.
//!
//! A request beyond a bound is rejected at once with `Retry-After`, so that the requests in flight complete in time.

use std::hash::Hash;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use governor::clock::Clock as _;
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use tollgate_service::http::{Caller, Problem};

use crate::shares::{Exhausted, SharePermit, Shares};
use crate::tenant_rates::TenantRates;
use crate::{IngestConfig, RateLimitConfig};

/// `Retry-After` of a rejected request: requests take milliseconds.
const SHED_RETRY: Duration = Duration::from_secs(1);

/// The bounds in force.
#[derive(Debug)]
pub(crate) struct AdmissionControl {
    requests: Arc<Shares>,
    bytes: Arc<Shares>,
    max_body_bytes: usize,
    rate: Option<RateLimit<Caller>>,
    tenant_rates: TenantRates,
}

/// A token bucket of transactions for each API key or tenant.
#[derive(Debug)]
pub(crate) struct RateLimit<K: Clone + Eq + Hash> {
    buckets: DefaultKeyedRateLimiter<K>,
    burst: NonZeroU32,
}

/// Why a request is over a rate limit.
pub(crate) enum OverRate {
    Until(Duration),
    /// It has more transactions than a full bucket.
    LargerThan(NonZeroU32),
}

impl<K: Clone + Eq + Hash> RateLimit<K> {
    pub(crate) fn charge(&self, key: &K, items: NonZeroU32) -> Result<(), OverRate> {
        match self.buckets.check_key_n(key, items) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(early)) => Err(OverRate::Until(
                early.wait_time_from(self.buckets.clock().now()),
            )),
            Err(_) => Err(OverRate::LargerThan(self.burst)),
        }
    }

    pub(crate) fn new(config: RateLimitConfig) -> Option<Self> {
        let per_second = NonZeroU32::new(config.transactions_per_second)?;
        let burst = NonZeroU32::new(config.burst).unwrap_or(per_second);
        let quota = Quota::per_second(per_second).allow_burst(burst);
        // Bounded: its keys are names in the configured API keys.
        let buckets = RateLimiter::keyed(quota);
        Some(Self { buckets, burst })
    }
}

impl AdmissionControl {
    pub(crate) fn new(config: &IngestConfig) -> Self {
        // A single caller has nobody to leave anything to. A file may hold several at any time.
        let share = match (config.api_keys.len(), &config.api_keys_file) {
            (0 | 1, None) => 100,
            _ => config.max_key_share_percent,
        };
        Self {
            requests: Shares::new(config.max_in_flight, share),
            bytes: Shares::new(config.max_in_flight_bytes, share),
            max_body_bytes: config.max_body_bytes,
            rate: RateLimit::new(config.rate_limit),
            tenant_rates: TenantRates::new(config),
        }
    }

    /// A permit for one request in flight of this caller. Dropping it releases the permit.
    ///
    /// # Errors
    /// 503 if `max_in_flight` requests are in flight, 429 if the key has its share of them.
    pub(crate) fn acquire_request(&self, caller: &Caller) -> Result<SharePermit, Problem> {
        let permit = self.requests.acquire(caller, 1, 1);
        permit.map_err(|exhausted| match exhausted {
            Exhausted::All => shed("requests", "too many requests are in flight"),
            Exhausted::Share => over_share("this key has its share of the requests in flight"),
        })
    }

    /// A permit for `bytes` of a body of this caller in memory. Dropping it releases the permit.
    ///
    /// # Errors
    /// 503 if all bodies together would exceed `max_in_flight_bytes`, 429 if those of the key would exceed its share.
    pub(crate) fn acquire_bytes(
        &self,
        caller: &Caller,
        bytes: usize,
    ) -> Result<SharePermit, Problem> {
        // The largest body must be possible with a small capacity too.
        let permit = self.bytes.acquire(caller, bytes, self.max_body_bytes);
        permit.map_err(|exhausted| match exhausted {
            Exhausted::All => shed("bytes", "too much data is in flight"),
            Exhausted::Share => over_share("this key has its share of the data in flight"),
        })
    }

    /// Charges `items` transactions, at least one, to the rate limits of the caller's tenant and of its key.
    ///
    /// # Errors
    /// 429 if the tenant or the key is over its rate, 413 if the request exceeds a burst.
    pub(crate) fn charge(&self, caller: &Caller, items: usize) -> Result<(), Problem> {
        let items = u32::try_from(items).unwrap_or(u32::MAX);
        let items = NonZeroU32::new(items).unwrap_or(NonZeroU32::MIN);
        let tenant = caller.tenant();
        let of_tenant = self.tenant_rates.charge(tenant, items);
        let outcome = if of_tenant.is_err() {
            "limited"
        } else {
            "admitted"
        };
        metrics::counter!("tollgate_ingest_tenant_transactions_total", "tenant" => self.tenant_rates.label(tenant), "outcome" => outcome)
            .increment(items.get().into());
        of_tenant.map_err(|over| over_rate(&over, items, "tenant_rate", "tenant"))?;
        match &self.rate {
            Some(rate) => rate
                .charge(caller, items)
                .map_err(|over| over_rate(&over, items, "rate", "key")),
            None => Ok(()),
        }
    }
}

fn over_rate(
    over: &OverRate,
    items: NonZeroU32,
    reason: &'static str,
    whose: &'static str,
) -> Problem {
    match over {
        OverRate::Until(wait) => {
            metrics::counter!("tollgate_ingest_shed_total", "reason" => reason).increment(1);
            let detail = format!(
                "the rate limit of this {whose} is exceeded; nothing of this request was accepted"
            );
            Problem::new(StatusCode::TOO_MANY_REQUESTS, detail).retry_after(*wait)
        }
        // Retrying cannot succeed, so the answer is not 429.
        OverRate::LargerThan(burst) => Problem::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!(
                "the request has {items} transactions, more than the burst of {burst} of this {whose}; send fewer in a request"
            ),
        ),
    }
}

fn shed(reason: &'static str, detail: &'static str) -> Problem {
    metrics::counter!("tollgate_ingest_shed_total", "reason" => reason).increment(1);
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail).retry_after(SHED_RETRY)
}

fn over_share(detail: &'static str) -> Problem {
    metrics::counter!("tollgate_ingest_shed_total", "reason" => "share").increment(1);
    Problem::new(StatusCode::TOO_MANY_REQUESTS, detail).retry_after(SHED_RETRY)
}

#[cfg(test)]
mod tests {
    use tollgate_types::Tenant;

    use super::*;

    fn admission(change: impl FnOnce(&mut IngestConfig)) -> AdmissionControl {
        let mut config = IngestConfig::default();
        change(&mut config);
        AdmissionControl::new(&config)
    }

    #[test]
    fn a_permit_is_released_when_its_request_ends() {
        let admission = admission(|config| config.max_in_flight = 1);
        let caller = Caller::named("a");
        let permit = admission.acquire_request(&caller).unwrap();
        let problem = admission.acquire_request(&caller).unwrap_err();
        assert_eq!(problem.status(), StatusCode::SERVICE_UNAVAILABLE);
        drop(permit);
        assert!(admission.acquire_request(&caller).is_ok());
    }

    #[test]
    fn bytes_are_counted_over_all_requests() {
        let admission = admission(|config| config.max_in_flight_bytes = 10);
        let [a, b] = ["a", "b"].map(Caller::named);
        let first = admission.acquire_bytes(&a, 6).unwrap();
        assert!(admission.acquire_bytes(&b, 5).is_err());
        drop(first);
        assert!(admission.acquire_bytes(&b, 10).is_ok());
    }

    #[test]
    fn each_key_has_its_own_bucket_and_a_request_larger_than_a_bucket_is_too_large() {
        let admission = admission(|config| {
            config.rate_limit = RateLimitConfig {
                transactions_per_second: 1,
                burst: 10,
            };
        });
        let [a, b] = ["a", "b"].map(Caller::named);
        assert!(admission.charge(&a, 10).is_ok());
        let problem = admission.charge(&a, 5).unwrap_err();
        assert_eq!(problem.status(), StatusCode::TOO_MANY_REQUESTS);
        assert!(admission.charge(&b, 10).is_ok());
        let problem = admission.charge(&b, 11).unwrap_err();
        assert_eq!(problem.status(), StatusCode::PAYLOAD_TOO_LARGE);
    }

    #[test]
    fn all_keys_of_a_tenant_share_its_limit_and_other_tenants_are_not_affected() {
        let limit = |burst| RateLimitConfig {
            transactions_per_second: 1,
            burst,
        };
        let admission = admission(|config| {
            config.tenant_rate_limit = limit(10);
            config.tenant_rate_limits.insert("large".into(), limit(20));
        });
        let of = |name, tenant| Caller::of(name, Tenant::parse(tenant).unwrap());
        assert!(admission.charge(&of("a", "acme"), 6).is_ok());
        let problem = admission.charge(&of("b", "acme"), 6).unwrap_err();
        assert_eq!(problem.status(), StatusCode::TOO_MANY_REQUESTS);
        assert!(admission.charge(&of("c", "other"), 10).is_ok());
        assert!(admission.charge(&Caller::named("d"), 10).is_ok());
        assert!(admission.charge(&of("e", "large"), 20).is_ok());
        let problem = admission.charge(&of("c", "other"), 11).unwrap_err();
        assert_eq!(problem.status(), StatusCode::PAYLOAD_TOO_LARGE);
    }
}
