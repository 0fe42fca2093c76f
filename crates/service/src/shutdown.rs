//! The shutdown signal of a service, and the time it has to drain.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

/// The signal to stop, and the grace period to drain in. Clones share the signal.
#[derive(Debug, Clone)]
pub struct Shutdown {
    token: CancellationToken,
    grace: Duration,
}

/// The grace period unless another is set. Kubernetes kills after 30 s by default; `k8s/base/pods.yaml` allows 90 s, since
/// a service has further phases after this one (`crates/service/README.md`).
pub const DEFAULT_GRACE: Duration = Duration::from_secs(20);

impl Default for Shutdown {
    fn default() -> Self {
        Self::new(DEFAULT_GRACE)
    }
}

impl Shutdown {
    /// A signal that has not been given yet. Once it is, `grace` is left to drain.
    #[must_use]
    pub fn new(grace: Duration) -> Self {
        Self {
            token: CancellationToken::new(),
            grace,
        }
    }

    /// A signal that SIGTERM or SIGINT gives. A second one of them exits the process at once.
    #[must_use]
    pub fn on_signal() -> Self {
        let shutdown = Self::default();
        let trigger = shutdown.clone();
        tokio::spawn(async move {
            wait_for_signal().await;
            tracing::info!("shutdown: records and requests in flight are completed");
            trigger.begin();
            wait_for_signal().await;
            tracing::warn!("exit at once after a second signal");
            std::process::exit(130);
        });
        shutdown
    }

    /// A signal that is given together with this one, and can also be given alone.
    #[must_use]
    pub fn child(&self) -> Self {
        Self {
            token: self.token.child_token(),
            grace: self.grace,
        }
    }

    /// Gives the signal.
    pub fn begin(&self) {
        self.token.cancel();
    }

    /// Whether the signal was given.
    #[must_use]
    pub fn is_begun(&self) -> bool {
        self.token.is_cancelled()
    }

    /// The signal as a token, for waits on several signals.
    #[must_use]
    pub fn token(&self) -> CancellationToken {
        self.token.clone()
    }

    /// Waits for the signal.
    pub async fn begun(&self) {
        self.token.cancelled().await;
    }

    /// The time to drain in once the signal is given.
    #[must_use]
    pub const fn grace(&self) -> Duration {
        self.grace
    }
}

async fn wait_for_signal() {
    use tokio::signal::unix::{SignalKind, signal};
    match signal(SignalKind::terminate()) {
        Ok(mut terminate) => {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = tokio::signal::ctrl_c() => {}
            }
        }
        Err(error) => {
            tracing::warn!(%error, "cannot listen for SIGTERM, only for Ctrl-C");
            let _ = tokio::signal::ctrl_c().await;
        }
    }
}
