//! What stands between a service and everything it depends on, as tower layers, from the outside in: a bulkhead, retries
//! with full jitter, a circuit breaker with half-open probes, a timeout.
//!
//! A dependency that is down makes its callers wait, and nothing else: whoever reads the log stops reading once what
//! is in hand reaches its budget.

mod backoff;
mod breaker;
mod gate;
mod patience;
mod retry;
#[cfg(test)]
mod tests;
mod waiting;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

pub use backoff::RetryConfig;
pub use breaker::{BreakerConfig, Circuit};
pub use patience::Patience;

use gate::{BreakerLayer, Gate};
use metrics::{Gauge, gauge};
use retry::Retries;
use tower::limit::GlobalConcurrencyLimitLayer;
use tower::{ServiceBuilder, ServiceExt as _, service_fn};
use waiting::WaitingCalls;

use crate::health::Health;

/// What a call to a dependency may end with.
pub trait CallError: std::error::Error + Send + Sync + 'static {
    /// It did not answer in time.
    fn timed_out(limit: Duration) -> Self;

    /// Whether the dependency is at fault, so that the same call may succeed later. One that was answered with a
    /// refusal will be refused again.
    fn is_outage(&self) -> bool;

    /// For how long the dependency asked to be left alone.
    fn retry_after(&self) -> Option<Duration> {
        None
    }
}

/// Why a call has no answer.
#[derive(Debug, thiserror::Error)]
pub enum Unserved<E> {
    /// The dependency refuses it, or fails for it alone.
    #[error(transparent)]
    Failed(E),
    /// The caller waited no longer. What failed it last, where it was tried.
    #[error("the dependency is down")]
    GivenUp(Option<E>),
}

/// How a dependency is called.
#[derive(Debug, Clone)]
pub struct Limits {
    /// How long one attempt may take.
    pub timeout: Duration,
    /// Calls under way at once, whatever they wait for; further ones wait for room.
    pub concurrency: usize,
    /// When a failed call is made again.
    pub retry: RetryConfig,
    /// Failures of one call, each after the dependency had served somebody else, that show the call to be at fault.
    /// None: it is tried on all the same.
    pub poison_after: Option<u32>,
    /// When no call is made at all.
    pub breaker: BreakerConfig,
}

impl Limits {
    /// These two, and for the rest what does for most.
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

/// One more, as long as it lives.
struct Counted<'a>(&'a Gauge);

impl<'a> Counted<'a> {
    fn one(gauge: &'a Gauge) -> Self {
        gauge.increment(1.0);
        Self(gauge)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.decrement(1.0);
    }
}

/// Something outside this process. Clones share what is known of it.
#[derive(Clone)]
pub struct Dependency {
    gate: Arc<Gate>,
    retries: Retries,
    bulkhead: GlobalConcurrencyLimitLayer,
    timeout: Duration,
    /// Calls that wait for room, and those under way.
    depth: [Gauge; 2],
}

impl std::fmt::Debug for Dependency {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Dependency").field(&self.gate).finish()
    }
}

impl Dependency {
    /// `name` is the label of its metrics. Where its health is given, the service is not ready while it is down.
    #[must_use]
    pub fn new(name: &str, limits: &Limits, health: Option<(Health, &'static str)>) -> Self {
        let gate = Gate::new(name, limits.breaker.clone());
        let waiting = WaitingCalls::new(health);
        Self {
            retries: Retries::new(name, limits, &gate, &waiting),
            gate,
            bulkhead: GlobalConcurrencyLimitLayer::new(limits.concurrency),
            timeout: limits.timeout,
            depth: ["waiting", "under_way"].map(|state| gauge!("tollgate_dependency_bulkhead_calls", "dependency" => name.to_owned(), "state" => state)),
        }
    }

    /// The same, with another limit to one attempt.
    #[must_use]
    pub fn with_timeout(&self, timeout: Duration) -> Self {
        Self {
            timeout,
            ..self.clone()
        }
    }

    /// Whether calls are let through.
    #[must_use]
    pub fn circuit(&self) -> Circuit {
        self.gate.circuit()
    }

    /// Calls it until it answers, or the caller waits no longer. The attempts that were made, and what came of them.
    pub async fn call<T, E, F>(
        &self,
        patience: Patience,
        ask: impl Fn() -> F,
    ) -> (u32, Result<T, Unserved<E>>)
    where
        F: Future<Output = Result<T, E>>,
        E: CallError,
    {
        let attempts = AtomicU32::new(0);
        let timeout = self.timeout;
        let attempt = || {
            attempts.fetch_add(1, Ordering::Relaxed);
            ask()
        };
        let mut service = ServiceBuilder::new()
            .layer(&self.bulkhead)
            .retry(self.retries.clone())
            .layer(BreakerLayer::new(&self.gate, timeout))
            .timeout(timeout)
            .service(service_fn(|_: Patience| attempt()));
        let [waiting, under_way] = &self.depth;
        let waits = Counted::one(waiting);
        let result = tokio::select! {
            ready = service.ready() => match ready {
                Ok(ready) => {
                    drop(waits);
                    let _under_way = Counted::one(under_way);
                    tower::Service::call(ready, patience.clone()).await
                }
                Err(error) => Err(error),
            },
            () = patience.pointless() => Err(Unserved::GivenUp(None)),
        };
        (attempts.into_inner(), result)
    }
}
