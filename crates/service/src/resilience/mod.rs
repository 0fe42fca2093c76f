//! Calls to everything outside the process: a bulkhead, a timeout for each attempt, retries with full jitter, and a
//! circuit breaker for each dependency.
//!
//! Invariant: while a dependency is down its callers wait, and nothing is dead-lettered because of it. A consumer stops
//! reading when the records in flight reach its budget.

mod backoff;
mod breaker_state;
mod call_policy;
mod circuit_breaker;
mod dependency;
mod readiness;
#[cfg(test)]
mod tests;

use std::time::Duration;

pub use backoff::RetryConfig;
pub use breaker_state::{BreakerConfig, Circuit};
pub use call_policy::CallPolicy;
pub use dependency::{Dependency, DependencyConfig};

/// An error of a call to a dependency.
pub trait CallError: std::error::Error + Send + Sync + 'static {
    /// The error of an attempt that got no answer within `limit`.
    fn timed_out(limit: Duration) -> Self;

    /// Whether the dependency is at fault, so that the same call may succeed later. A call that was answered with a
    /// rejection would be rejected again.
    fn is_outage(&self) -> bool;

    /// The wait that the dependency asked for before the next attempt.
    fn retry_after(&self) -> Option<Duration> {
        None
    }
}

/// Why a call ended without an answer.
#[derive(Debug, thiserror::Error)]
pub enum CallFailure<E> {
    /// The dependency rejects this call, or keeps failing for it while it answers others. A retry is of no use.
    #[error(transparent)]
    Rejected(E),
    /// The dependency is down, and the call's policy ended the wait. Holds the error of the last attempt, if one was
    /// made.
    #[error("the dependency is down")]
    Unavailable(Option<E>),
}
