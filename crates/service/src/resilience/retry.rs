//! The policy of tower's retry: when, and how often, a call is made again.

use std::any::Any;
use std::pin::Pin;
use std::sync::Arc;

use metrics::{Counter, counter};
use tower::retry::Policy;

use super::gate::Gate;
use super::waiting::{Waiting, WaitingCalls};
use super::{CallError, Limits, Patience, RetryConfig, Unserved};

/// Retries of one call; each call has a clone of its own.
#[derive(Clone)]
pub(super) struct Retries {
    config: RetryConfig,
    gate: Arc<Gate>,
    waiting: WaitingCalls,
    retries: Counter,
    failed: u32,
    /// Failures after which the dependency had served somebody else since the one before.
    at_fault: u32,
    poison_after: Option<u32>,
    served: u64,
    waits: Option<Arc<Waiting>>,
    /// What the last attempt failed with.
    last: Option<Arc<dyn Any + Send + Sync>>,
}

impl Retries {
    pub(super) fn new(
        dependency: &str,
        limits: &Limits,
        gate: &Arc<Gate>,
        waiting: &WaitingCalls,
    ) -> Self {
        Self {
            config: limits.retry.clone(),
            poison_after: limits.poison_after,
            gate: Arc::clone(gate),
            waiting: waiting.clone(),
            retries: counter!("tollgate_dependency_retries_total", "dependency" => dependency.to_owned()),
            failed: 0,
            at_fault: 0,
            served: 0,
            waits: None,
            last: None,
        }
    }

    /// Whether the call is at fault rather than the dependency, which serves others.
    fn is_at_fault(&mut self) -> bool {
        let served = self.gate.served();
        if self.failed > 1 && served > self.served {
            self.at_fault += 1;
        }
        self.served = served;
        self.poison_after
            .is_some_and(|after| self.at_fault >= after)
    }
}

impl<T, E: CallError> Policy<Patience, T, Unserved<E>> for Retries {
    type Future = Pin<Box<dyn Future<Output = ()> + Send>>;

    fn retry(
        &mut self,
        patience: &mut Patience,
        result: &mut Result<T, Unserved<E>>,
    ) -> Option<Self::Future> {
        let error = match result {
            Err(Unserved::Failed(error)) if error.is_outage() => error,
            Ok(_) => {
                self.waits = None;
                self.waiting.answered();
                return None;
            }
            // An answer to this call alone says nothing of the others.
            Err(Unserved::Failed(_)) => return None,
            Err(Unserved::GivenUp(last)) => {
                // What failed it before it was given up.
                let kept = self.last.take().and_then(|kept| kept.downcast::<E>().ok());
                *last = last.take().or(kept.and_then(Arc::into_inner));
                return None;
            }
        };
        self.waits
            .get_or_insert_with(|| Arc::new(self.waiting.begin()));
        self.waiting.failed(error);
        self.failed = self.failed.saturating_add(1);
        let after = error.retry_after();
        // Who is told when to come again is not at fault.
        if after.is_none() && self.is_at_fault() {
            return None;
        }
        if patience.is_over() {
            give_up(result);
            return None;
        }
        self.retries.increment(1);
        let wait = self.config.wait(self.failed, rand::random(), after);
        tracing::debug!(error = %error, failed = self.failed, ?wait, "an attempt has failed");
        if let Err(Unserved::Failed(error)) =
            std::mem::replace(result, Err(Unserved::GivenUp(None)))
        {
            self.last = Some(Arc::new(error));
        }
        // Whoever waits no longer makes no further attempt either.
        patience.end_with_waiting();
        let (gate, patience) = (Arc::clone(&self.gate), patience.clone());
        Some(Box::pin(async move {
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                // Another call got through, so this one may. Who was told when to come keeps to it.
                () = gate.recovered(), if after.is_none() => {}
                () = patience.over() => {}
            }
        }))
    }

    fn clone_request(&mut self, patience: &Patience) -> Option<Patience> {
        Some(patience.clone())
    }
}

/// The caller waits no longer, and learns what failed it last.
fn give_up<T, E>(result: &mut Result<T, Unserved<E>>) {
    if let Err(Unserved::Failed(error)) = std::mem::replace(result, Err(Unserved::GivenUp(None))) {
        *result = Err(Unserved::GivenUp(Some(error)));
    }
}
