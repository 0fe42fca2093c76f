//! Whether a service can do its work right now, and if not, why.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use metrics::{Gauge, gauge};

/// Reasons for not being ready, one a component. Ready when there is none. Clones share the state.
#[derive(Debug, Clone, Default)]
pub struct Health(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    reasons: BTreeMap<&'static str, String>,
    warnings: BTreeMap<&'static str, String>,
}

/// How many services of this process wait for this component.
fn unready(component: &'static str) -> Gauge {
    gauge!("tollgate_unready_services", "component" => component)
}

impl Health {
    /// Not ready until `component` says otherwise.
    #[must_use]
    pub fn starting(components: &[&'static str]) -> Self {
        let health = Self::default();
        for component in components {
            health.not_ready(component, "starting");
        }
        health
    }

    /// The component works.
    pub fn ready(&self, component: &'static str) {
        if self.lock().reasons.remove(component).is_some() {
            unready(component).decrement(1.0);
            tracing::info!(component, "ready");
        }
    }

    /// The component does not work, for this reason.
    pub fn not_ready(&self, component: &'static str, reason: impl Into<String>) {
        let reason = reason.into();
        let before = self.lock().reasons.insert(component, reason.clone());
        if before.is_none() {
            unready(component).increment(1.0);
        }
        if before.as_deref() != Some(reason.as_str()) {
            tracing::info!(component, reason, "not ready");
        }
    }

    /// The reasons for not being ready, by component.
    #[must_use]
    pub fn reasons(&self) -> BTreeMap<&'static str, String> {
        self.lock().reasons.clone()
    }

    /// The component works, but whoever looks should know this; none takes it back.
    pub fn warn(&self, component: &'static str, warning: Option<String>) {
        let mut state = self.lock();
        match warning {
            Some(warning) => {
                let before = state.warnings.insert(component, warning.clone());
                if before.as_deref() != Some(warning.as_str()) {
                    tracing::warn!(component, warning, "ready with a warning");
                }
            }
            None => drop(state.warnings.remove(component)),
        }
    }

    /// What whoever looks should know, by component.
    #[must_use]
    pub fn warnings(&self) -> BTreeMap<&'static str, String> {
        self.lock().warnings.clone()
    }

    /// Whether every component works.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.lock().reasons.is_empty()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
