//! One call to a dependency, from the wait for a free slot to its answer.

use std::sync::Arc;
use std::time::Duration;

use metrics::{Counter, Gauge, counter, gauge};
use tokio::sync::Semaphore;

use super::circuit_breaker::CircuitBreaker;
use super::readiness::Readiness;
use super::{BreakerConfig, CallError, CallFailure, CallPolicy, Circuit, RetryConfig};
use crate::health::Health;

/// How a dependency is called.
#[derive(Debug, Clone)]
pub struct DependencyConfig {
    /// Timeout of one attempt.
    pub timeout: Duration,
    /// Calls in flight at once, those that wait for a retry included. Further calls wait for a free slot.
    pub concurrency: usize,
    /// When a failed call is made again.
    pub retry: RetryConfig,
    /// Failures of one call after which the call counts as poison. A failure counts only if another call succeeded
    /// since the one before. `None`: the call is retried regardless.
    pub poison_after: Option<u32>,
    /// When no call is made at all.
    pub breaker: BreakerConfig,
}

impl DependencyConfig {
    /// Defaults for everything but the timeout of an attempt and the calls in flight.
    #[must_use]
    pub fn new(timeout: Duration, concurrency: usize) -> Self {
        Self {
            timeout,
            concurrency,
            retry: RetryConfig::default(),
            poison_after: None,
            breaker: BreakerConfig::default(),
        }
    }
}

/// A service, store or broker outside this process. Clones share the bulkhead, the circuit and the metrics.
#[derive(Clone)]
pub struct Dependency {
    breaker: Arc<CircuitBreaker>,
    bulkhead: Arc<Semaphore>,
    readiness: Readiness,
    timeout: Duration,
    retry: RetryConfig,
    poison_after: Option<u32>,
    retries: Counter,
    /// Calls that wait for a free slot of the bulkhead.
    waiting: Gauge,
    /// Calls that hold a slot.
    under_way: Gauge,
}

impl std::fmt::Debug for Dependency {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Dependency").field(&self.breaker).finish()
    }
}

impl Dependency {
    /// `name` is the label of its metrics. With `health` the service is not ready while the dependency is down.
    #[must_use]
    pub fn new(
        name: &str,
        config: &DependencyConfig,
        health: Option<(Health, &'static str)>,
    ) -> Self {
        let calls = |state: &'static str| gauge!("tollgate_dependency_bulkhead_calls", "dependency" => name.to_owned(), "state" => state);
        Self {
            breaker: Arc::new(CircuitBreaker::new(name, config.breaker.clone())),
            bulkhead: Arc::new(Semaphore::new(config.concurrency)),
            readiness: Readiness::new(health),
            timeout: config.timeout,
            retry: config.retry.clone(),
            poison_after: config.poison_after,
            retries: counter!("tollgate_dependency_retries_total", "dependency" => name.to_owned()),
            waiting: calls("waiting"),
            under_way: calls("under_way"),
        }
    }

    /// The same dependency, with another timeout of one attempt.
    #[must_use]
    pub fn with_timeout(&self, timeout: Duration) -> Self {
        Self {
            timeout,
            ..self.clone()
        }
    }

    /// The state of the circuit.
    #[must_use]
    pub fn circuit(&self) -> Circuit {
        self.breaker.circuit()
    }

    /// Makes attempts until the dependency answers or the policy ends the call. Returns the number of attempts with the
    /// result.
    pub async fn call<T, E, F>(
        &self,
        policy: CallPolicy,
        attempt: impl Fn() -> F,
    ) -> (u32, Result<T, CallFailure<E>>)
    where
        F: Future<Output = Result<T, E>>,
        E: CallError,
    {
        let mut attempts = 0;
        let result = self.call_counted(policy, attempt, &mut attempts).await;
        (attempts, result)
    }

    async fn call_counted<T, E, F>(
        &self,
        mut policy: CallPolicy,
        attempt: impl Fn() -> F,
        attempts: &mut u32,
    ) -> Result<T, CallFailure<E>>
    where
        F: Future<Output = Result<T, E>>,
        E: CallError,
    {
        let waiting = CountedCall::new(&self.waiting);
        let _slot = tokio::select! {
            slot = self.bulkhead.acquire() => slot,
            () = policy.cancelled() => return Err(CallFailure::Unavailable(None)),
        };
        drop(waiting);
        let _under_way = CountedCall::new(&self.under_way);
        let mut failures = Failures::default();
        let mut failing = None;
        let mut last = None;
        loop {
            let Some(admitted) = self.breaker.admit(&policy).await else {
                return Err(CallFailure::Unavailable(last));
            };
            if policy.is_cancelled() {
                return Err(CallFailure::Unavailable(last));
            }
            *attempts = attempts.saturating_add(1);
            let result = match tokio::time::timeout(self.timeout, attempt()).await {
                Ok(result) => result,
                Err(_) => Err(E::timed_out(self.timeout)),
            };
            admitted.complete(&result);
            let error = match result {
                Ok(answer) => {
                    // Before the readiness is set, which counts the calls that are failing.
                    drop(failing);
                    self.readiness.attempt_answered();
                    return Ok(answer);
                }
                Err(error) if error.is_outage() => error,
                // A rejection concerns this call alone.
                Err(error) => return Err(CallFailure::Rejected(error)),
            };
            failing.get_or_insert_with(|| self.readiness.failing_call());
            self.readiness.attempt_failed(&error);
            failures.total = failures.total.saturating_add(1);
            let retry_after = error.retry_after();
            // A dependency that names the time of the next attempt is overloaded: the call is not poison.
            if retry_after.is_none()
                && failures.are_poison(self.breaker.succeeded(), self.poison_after)
            {
                return Err(CallFailure::Rejected(error));
            }
            if policy.is_expired() {
                return Err(CallFailure::Unavailable(Some(error)));
            }
            self.retries.increment(1);
            let backoff = self
                .retry
                .backoff(failures.total, rand::random(), retry_after);
            tracing::debug!(%error, failed = failures.total, ?backoff, "an attempt failed");
            last = Some(error);
            policy.cancel_once_expired();
            tokio::select! {
                () = tokio::time::sleep(backoff) => {}
                // Another call got through, so this one may. A wait that the dependency asked for is kept.
                () = self.breaker.closed_again(), if retry_after.is_none() => {}
                () = policy.expired() => {}
            }
        }
    }
}

/// The failures of one call.
#[derive(Debug, Default)]
struct Failures {
    total: u32,
    /// Failures with a success of another call since the failure before.
    alone: u32,
    /// Successful calls of all callers, at the last failure.
    succeeded: u64,
}

impl Failures {
    /// Whether the call is at fault rather than the dependency. `succeeded` counts the successful calls of all callers.
    fn are_poison(&mut self, succeeded: u64, poison_after: Option<u32>) -> bool {
        if self.total > 1 && succeeded > self.succeeded {
            self.alone += 1;
        }
        self.succeeded = succeeded;
        poison_after.is_some_and(|after| self.alone >= after)
    }
}

/// Counts a call in a gauge until it is dropped.
struct CountedCall<'a>(&'a Gauge);

impl<'a> CountedCall<'a> {
    fn new(gauge: &'a Gauge) -> Self {
        gauge.increment(1.0);
        Self(gauge)
    }
}

impl Drop for CountedCall<'_> {
    fn drop(&mut self) {
        self.0.decrement(1.0);
    }
}
