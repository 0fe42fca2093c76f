//! Whether a service can do its work right now, and if not, why.

use std::collections::BTreeMap;
use std::sync::Arc;

use metrics::{Gauge, gauge};
use tokio::sync::watch;

/// Reasons for not being ready, one for each component. Ready if there is none. Clones share the state.
#[derive(Debug, Clone, Default)]
pub struct Health(Arc<watch::Sender<State>>);

#[derive(Debug, Default)]
struct State {
    reasons: BTreeMap<&'static str, String>,
    warnings: BTreeMap<&'static str, String>,
}

/// Services of this process that are not ready because of this component.
fn unready(component: &'static str) -> Gauge {
    gauge!("tollgate_unready_services", "component" => component)
}

impl Health {
    /// Not ready until [`Health::ready`] was called for each of these components.
    #[must_use]
    pub fn starting(components: &[&'static str]) -> Self {
        let health = Self::default();
        for component in components {
            health.not_ready(component, "starting");
        }
        health
    }

    /// Removes the component's reason for not being ready.
    pub fn ready(&self, component: &'static str) {
        let changed = self
            .0
            .send_if_modified(|state| state.reasons.remove(component).is_some());
        if changed {
            unready(component).decrement(1.0);
            tracing::info!(component, "ready");
        }
    }

    /// Sets the component's reason for not being ready.
    pub fn not_ready(&self, component: &'static str, reason: impl Into<String>) {
        let reason = reason.into();
        let mut before = None;
        self.0.send_if_modified(|state| {
            before = state.reasons.insert(component, reason.clone());
            before.is_none()
        });
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
        self.0.borrow().reasons.clone()
    }

    /// Sets the component's warning: it works, but an operator should know this. `None` removes the warning.
    pub fn warn(&self, component: &'static str, warning: Option<String>) {
        let mut before = None;
        self.0.send_if_modified(|state| {
            before = match &warning {
                Some(warning) => state.warnings.insert(component, warning.clone()),
                None => state.warnings.remove(component),
            };
            false
        });
        if let Some(warning) = warning
            && before.as_ref() != Some(&warning)
        {
            tracing::warn!(component, warning, "ready with a warning");
        }
    }

    /// The warnings, by component.
    #[must_use]
    pub fn warnings(&self) -> BTreeMap<&'static str, String> {
        self.0.borrow().warnings.clone()
    }

    /// Whether there is no reason for not being ready.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.0.borrow().reasons.is_empty()
    }

    /// Waits until there is no reason for not being ready.
    pub async fn until_ready(&self) {
        let mut changes = self.0.subscribe();
        // It fails only once the sender is gone, which lives as long as `self`.
        let _ = changes.wait_for(|state| state.reasons.is_empty()).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_service_is_ready_once_every_component_is() {
        let health = Health::starting(&["log", "store"]);
        let waiting = tokio::spawn({
            let health = health.clone();
            async move { health.until_ready().await }
        });
        health.ready("log");
        assert!(!health.is_ready());
        assert_eq!(health.reasons().into_keys().collect::<Vec<_>>(), ["store"]);
        health.ready("store");
        waiting.await.unwrap();
        health.not_ready("store", "down");
        assert!(!health.is_ready());
    }

    #[test]
    fn a_warning_leaves_a_service_ready() {
        let health = Health::default();
        health.warn("log", Some("old".to_owned()));
        assert!(health.is_ready());
        assert_eq!(health.warnings()["log"], "old");
        health.warn("log", None);
        assert!(health.warnings().is_empty());
    }
}
