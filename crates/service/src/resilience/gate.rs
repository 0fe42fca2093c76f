//! The breaker as a tower layer: a call waits while the circuit is open, as long as its caller does.

use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use metrics::{Counter, Gauge, counter, gauge};
use pin_project_lite::pin_project;
use tokio::sync::Notify;
use tower::{BoxError, Layer, Service};

use super::breaker::{Admission, Breaker, BreakerConfig, Circuit, Ended, Permit};
use super::{CallError, Patience, Unserved};

/// One breaker, and who waits for it.
pub(super) struct Gate {
    dependency: String,
    state: Mutex<(Breaker, u64)>,
    /// Something has changed for those who wait.
    changed: Notify,
    circuit: Gauge,
    answered: Counter,
    failed: Counter,
}

impl std::fmt::Debug for Gate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gate")
            .field("dependency", &self.dependency)
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

impl Gate {
    pub(super) fn new(dependency: &str, config: BreakerConfig) -> Arc<Self> {
        let calls = |outcome: &'static str| counter!("tollgate_dependency_calls_total", "dependency" => dependency.to_owned(), "outcome" => outcome);
        let circuit = gauge!("tollgate_dependency_circuit", "dependency" => dependency.to_owned());
        circuit.set(0.0);
        Arc::new(Self {
            answered: calls("answered"),
            failed: calls("failed"),
            dependency: dependency.to_owned(),
            state: Mutex::new((Breaker::new(config), 0)),
            changed: Notify::new(),
            circuit,
        })
    }

    fn lock(&self) -> MutexGuard<'_, (Breaker, u64)> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn circuit(&self) -> Circuit {
        self.lock().0.circuit()
    }

    /// Calls that were served so far, anybody's.
    pub(super) fn served(&self) -> u64 {
        self.lock().1
    }

    /// Waits until calls go through again after they did not.
    pub(super) async fn recovered(&self) {
        // Nothing changes while the circuit is closed.
        loop {
            self.changed.notified().await;
            if self.circuit() == Circuit::Closed {
                return;
            }
        }
    }

    fn admit(&self) -> Admission {
        let mut state = self.lock();
        let before = state.0.circuit();
        let admission = state.0.admit(now());
        let after = state.0.circuit();
        drop(state);
        self.note(before, after, None);
        admission
    }

    fn settle(&self, permit: &Permit, ended: Ended, error: Option<&dyn std::error::Error>) {
        let mut state = self.lock();
        let before = state.0.circuit();
        state.0.settle(permit, ended, now());
        if ended == Ended::Answered && error.is_none() {
            state.1 += 1;
        }
        let after = state.0.circuit();
        drop(state);
        match ended {
            Ended::Answered => self.answered.increment(1),
            Ended::Failed => self.failed.increment(1),
            Ended::Abandoned => {}
        }
        self.note(before, after, error);
        if before != Circuit::Closed {
            self.changed.notify_waiters();
        }
    }

    fn note(&self, before: Circuit, after: Circuit, error: Option<&dyn std::error::Error>) {
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
                        "the dependency is down; it is tried until it answers"
                    );
                }
            }
        }
    }

    /// Waits until a call may go through. None: the caller waits no longer.
    async fn pass(self: Arc<Self>, patience: Patience) -> Option<Passed> {
        loop {
            // Listened to before it is asked, so that no change is missed.
            let changed = self.changed.notified();
            let admission = self.admit();
            let until = match admission {
                Admission::Go(permit) => return Some(Passed::new(&self, permit)),
                Admission::NotBefore(until) => Some(until),
                Admission::Probing => None,
            };
            let time = async {
                match until {
                    Some(until) => tokio::time::sleep_until(until.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = patience.over() => return None,
                () = changed => {}
                () = time => {}
            }
        }
    }
}

/// By the runtime's clock, which a test can move.
fn now() -> std::time::Instant {
    tokio::time::Instant::now().into_std()
}

/// A call that went through. Dropped before its end, it counts for nothing.
struct Passed {
    gate: Arc<Gate>,
    permit: Option<Permit>,
}

impl Passed {
    fn new(gate: &Arc<Gate>, permit: Permit) -> Self {
        Self {
            gate: Arc::clone(gate),
            permit: Some(permit),
        }
    }

    fn settle(&mut self, ended: Ended, error: Option<&dyn std::error::Error>) {
        if let Some(permit) = self.permit.take() {
            self.gate.settle(&permit, ended, error);
        }
    }
}

impl Drop for Passed {
    fn drop(&mut self) {
        self.settle(Ended::Abandoned, None);
    }
}

/// Puts a breaker before a service with a timeout, and reads its errors as `E`.
#[derive(Debug)]
pub(super) struct BreakerLayer<E> {
    gate: Arc<Gate>,
    timeout: Duration,
    error: PhantomData<fn() -> E>,
}

impl<E> BreakerLayer<E> {
    pub(super) fn new(gate: &Arc<Gate>, timeout: Duration) -> Self {
        Self {
            gate: Arc::clone(gate),
            timeout,
            error: PhantomData,
        }
    }
}

impl<E> Clone for BreakerLayer<E> {
    fn clone(&self) -> Self {
        Self::new(&self.gate, self.timeout)
    }
}

impl<S, E> Layer<S> for BreakerLayer<E> {
    type Service = Guarded<S, E>;

    fn layer(&self, inner: S) -> Guarded<S, E> {
        Guarded {
            inner,
            breaker: self.clone(),
        }
    }
}

/// A service behind a breaker.
#[derive(Debug)]
pub(super) struct Guarded<S, E> {
    inner: S,
    breaker: BreakerLayer<E>,
}

impl<S: Clone, E> Clone for Guarded<S, E> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            breaker: self.breaker.clone(),
        }
    }
}

impl<S, E> Service<Patience> for Guarded<S, E>
where
    S: Service<Patience, Error = BoxError> + Clone,
    E: CallError,
{
    type Response = S::Response;
    type Error = Unserved<E>;
    type Future = GuardedCall<S, E>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        let timeout = self.breaker.timeout;
        let ready = self.inner.poll_ready(cx);
        ready.map_err(|error| Unserved::Failed(unboxed(error, timeout)))
    }

    fn call(&mut self, patience: Patience) -> Self::Future {
        // The clone is not ready, the one that was asked is.
        let clone = self.inner.clone();
        let inner = std::mem::replace(&mut self.inner, clone);
        let breaker = self.breaker.clone();
        GuardedCall {
            pass: Box::pin(Arc::clone(&breaker.gate).pass(patience.clone())),
            breaker,
            inner,
            patience,
            call: None,
            passed: None,
        }
    }
}

type Pass = Pin<Box<dyn Future<Output = Option<Passed>> + Send>>;

pin_project! {
    /// A call that waits for the breaker, then for the service.
    pub(super) struct GuardedCall<S: Service<Patience>, E> {
        pass: Pass,
        breaker: BreakerLayer<E>,
        inner: S,
        patience: Patience,
        #[pin]
        call: Option<S::Future>,
        passed: Option<Passed>,
    }
}

impl<S, E> Future for GuardedCall<S, E>
where
    S: Service<Patience, Error = BoxError>,
    E: CallError,
{
    type Output = Result<S::Response, Unserved<E>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        if this.call.is_none() {
            let passed = ready!(this.pass.as_mut().poll(cx));
            if passed.is_none() || this.patience.is_pointless() {
                return Poll::Ready(Err(Unserved::GivenUp(None)));
            }
            *this.passed = passed;
            let call = this.inner.call(this.patience.clone());
            this.call.set(Some(call));
        }
        let Some(call) = this.call.as_mut().as_pin_mut() else {
            return Poll::Pending;
        };
        let timeout = this.breaker.timeout;
        let result = ready!(call.poll(cx)).map_err(|error| unboxed::<E>(error, timeout));
        if let Some(passed) = this.passed {
            match &result {
                Ok(_) => passed.settle(Ended::Answered, None),
                Err(error) if error.is_outage() => passed.settle(Ended::Failed, Some(error)),
                Err(error) => passed.settle(Ended::Answered, Some(error)),
            }
        }
        Poll::Ready(result.map_err(Unserved::Failed))
    }
}

fn unboxed<E: CallError>(error: BoxError, limit: Duration) -> E {
    match error.downcast::<E>() {
        Ok(error) => *error,
        // The timeout is the only layer with an error of its own.
        Err(_) => E::timed_out(limit),
    }
}
