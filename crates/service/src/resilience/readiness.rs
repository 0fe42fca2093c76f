//! What failing calls mean for the service's readiness.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::health::Health;

/// The readiness of one dependency. Clones share the count of failing calls.
#[derive(Clone)]
pub(super) struct Readiness {
    failing: Arc<AtomicUsize>,
    health: Option<(Health, &'static str)>,
}

/// A call that failed at least once and has no answer yet. Dropping it ends the count.
pub(super) struct FailingCall(Arc<AtomicUsize>);

impl Readiness {
    pub(super) fn new(health: Option<(Health, &'static str)>) -> Self {
        Self {
            failing: Arc::default(),
            health,
        }
    }

    /// Counts a call as failing until the guard is dropped.
    pub(super) fn failing_call(&self) -> FailingCall {
        self.failing.fetch_add(1, Ordering::AcqRel);
        FailingCall(Arc::clone(&self.failing))
    }

    /// An attempt failed: the service is not ready.
    pub(super) fn attempt_failed(&self, error: &dyn std::error::Error) {
        if let Some((health, component)) = &self.health {
            health.not_ready(component, error.to_string());
        }
    }

    /// An attempt was answered. The service is ready again if no other call is still failing.
    pub(super) fn attempt_answered(&self) {
        if let Some((health, component)) = &self.health
            && self.failing.load(Ordering::Acquire) == 0
        {
            health.ready(component);
        }
    }
}

impl Drop for FailingCall {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}
