//! The circuit breaker that the callers of one dependency share: the pure [`BreakerState`] behind a lock, with its
//! metrics, and the waits for the circuit to close.
//!
//! Invariant: each admitted call is recorded exactly once. One that is dropped before its end counts neither as an
//! answer nor as a failure, so that it cannot hold the circuit half-open.

use std::sync::{Mutex, MutexGuard, PoisonError};

use metrics::{Counter, Gauge, counter, gauge};
use tokio::sync::Notify;

use super::breaker_state::{Admission, BreakerConfig, BreakerState, Circuit, Outcome, Permit};
use super::{CallError, CallPolicy};

/// The breaker of one dependency.
pub(super) struct CircuitBreaker {
    dependency: String,
    shared: Mutex<Shared>,
    /// Wakes the calls that wait for the circuit.
    changed: Notify,
    circuit: Gauge,
    answered: Counter,
    failed: Counter,
}

#[derive(Debug)]
struct Shared {
    state: BreakerState,
    /// Calls that succeeded so far, of all callers.
    succeeded: u64,
}

impl std::fmt::Debug for CircuitBreaker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CircuitBreaker")
            .field("dependency", &self.dependency)
            .field("shared", &self.shared)
            .finish_non_exhaustive()
    }
}

impl CircuitBreaker {
    pub(super) fn new(dependency: &str, config: BreakerConfig) -> Self {
        let calls = |outcome: &'static str| counter!("tollgate_dependency_calls_total", "dependency" => dependency.to_owned(), "outcome" => outcome);
        let circuit = gauge!("tollgate_dependency_circuit", "dependency" => dependency.to_owned());
        circuit.set(0.0);
        Self {
            answered: calls("answered"),
            failed: calls("failed"),
            dependency: dependency.to_owned(),
            shared: Mutex::new(Shared {
                state: BreakerState::new(config),
                succeeded: 0,
            }),
            changed: Notify::new(),
            circuit,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn circuit(&self) -> Circuit {
        self.lock().state.circuit()
    }

    /// Calls that succeeded so far, of all callers.
    pub(super) fn succeeded(&self) -> u64 {
        self.lock().succeeded
    }

    /// Waits until the circuit closes after it was open. Pending while it stays closed.
    pub(super) async fn closed_again(&self) {
        loop {
            self.changed.notified().await;
            if self.circuit() == Circuit::Closed {
                return;
            }
        }
    }

    /// Waits until a call may go through. `None`: the policy ended the wait.
    pub(super) async fn admit(&self, policy: &CallPolicy) -> Option<AdmittedCall<'_>> {
        loop {
            // Registered before the state is read, so that no change is missed.
            let changed = self.changed.notified();
            let open_until = match self.try_admit() {
                Admission::Admitted(permit) => {
                    return Some(AdmittedCall {
                        breaker: self,
                        permit: Some(permit),
                    });
                }
                Admission::OpenUntil(until) => Some(until),
                Admission::Probing => None,
            };
            let half_open = async {
                match open_until {
                    Some(until) => tokio::time::sleep_until(until.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = policy.expired() => return None,
                () = changed => {}
                () = half_open => {}
            }
        }
    }

    fn try_admit(&self) -> Admission {
        let mut shared = self.lock();
        let before = shared.state.circuit();
        let admission = shared.state.admit(now());
        let after = shared.state.circuit();
        drop(shared);
        self.report(before, after, None);
        admission
    }

    fn record(&self, permit: &Permit, outcome: Outcome, error: Option<&dyn std::error::Error>) {
        let mut shared = self.lock();
        let before = shared.state.circuit();
        shared.state.record(permit, outcome, now());
        if outcome == Outcome::Answered && error.is_none() {
            shared.succeeded += 1;
        }
        let after = shared.state.circuit();
        drop(shared);
        match outcome {
            Outcome::Answered => self.answered.increment(1),
            Outcome::Failed => self.failed.increment(1),
            Outcome::Abandoned => {}
        }
        self.report(before, after, error);
        if before != Circuit::Closed {
            self.changed.notify_waiters();
        }
    }

    /// Metric and log lines for a change of the circuit.
    fn report(&self, before: Circuit, after: Circuit, error: Option<&dyn std::error::Error>) {
        if before == after {
            return;
        }
        let dependency = self.dependency.as_str();
        match after {
            Circuit::Closed => {
                self.circuit.set(0.0);
                tracing::info!(dependency, "the dependency answers again");
            }
            Circuit::HalfOpen => self.circuit.set(1.0),
            Circuit::Open => {
                self.circuit.set(2.0);
                if before == Circuit::Closed {
                    let reason = error.map(ToString::to_string).unwrap_or_default();
                    tracing::warn!(
                        dependency,
                        reason,
                        "the dependency is down; calls are retried until it answers"
                    );
                }
            }
        }
    }
}

/// The runtime's clock, which a test can move.
fn now() -> std::time::Instant {
    tokio::time::Instant::now().into_std()
}

/// A call that the breaker let through.
pub(super) struct AdmittedCall<'a> {
    breaker: &'a CircuitBreaker,
    permit: Option<Permit>,
}

impl AdmittedCall<'_> {
    /// Records how the attempt ended.
    pub(super) fn complete<T, E: CallError>(mut self, result: &Result<T, E>) {
        let Some(permit) = self.permit.take() else {
            return;
        };
        match result {
            Ok(_) => self.breaker.record(&permit, Outcome::Answered, None),
            Err(error) if error.is_outage() => {
                self.breaker.record(&permit, Outcome::Failed, Some(error));
            }
            // A rejection is an answer too.
            Err(error) => self.breaker.record(&permit, Outcome::Answered, Some(error)),
        }
    }
}

impl Drop for AdmittedCall<'_> {
    fn drop(&mut self) {
        if let Some(permit) = self.permit.take() {
            self.breaker.record(&permit, Outcome::Abandoned, None);
        }
    }
}
