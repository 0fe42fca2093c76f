//! Which calls wait for a dependency that has failed them, and what that means for readiness.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::health::Health;

/// Calls that were failed and are not answered yet. Clones share the count.
#[derive(Clone)]
pub(super) struct WaitingCalls {
    count: Arc<AtomicUsize>,
    health: Option<(Health, &'static str)>,
}

/// One of them, until it is dropped.
pub(super) struct Waiting(Arc<AtomicUsize>);

impl WaitingCalls {
    pub(super) fn new(health: Option<(Health, &'static str)>) -> Self {
        Self {
            count: Arc::default(),
            health,
        }
    }

    pub(super) fn begin(&self) -> Waiting {
        self.count.fetch_add(1, Ordering::AcqRel);
        Waiting(Arc::clone(&self.count))
    }

    /// An attempt has failed.
    pub(super) fn failed(&self, error: &dyn std::error::Error) {
        if let Some((health, component)) = &self.health {
            health.not_ready(component, error.to_string());
        }
    }

    /// An attempt was answered. A dependency that answers one call and not another does not work.
    pub(super) fn answered(&self) {
        if let Some((health, component)) = &self.health
            && self.count.load(Ordering::Acquire) == 0
        {
            health.ready(component);
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}
