//! Stopping in order: one signal, a bounded time to finish what is in hand.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

/// Tells every task of a service to stop, and how long it may take. Clones share the signal.
#[derive(Debug, Clone)]
pub struct Shutdown {
    token: CancellationToken,
    grace: Duration,
}

/// How long a service may take to drain, unless told otherwise. Kubernetes kills after 30 s.
pub const DEFAULT_GRACE: Duration = Duration::from_secs(20);

impl Default for Shutdown {
    fn default() -> Self {
        Self::new(DEFAULT_GRACE)
    }
}

impl Shutdown {
    /// A signal not yet given, with `grace` to finish once it is.
    #[must_use]
    pub fn new(grace: Duration) -> Self {
        Self {
            token: CancellationToken::new(),
            grace,
        }
    }

    /// A signal given by SIGTERM or SIGINT. A second one ends the process at once.
    #[must_use]
    pub fn on_signal() -> Self {
        let shutdown = Self::default();
        let trigger = shutdown.clone();
        tokio::spawn(async move {
            wait_for_signal().await;
            tracing::info!("stopping: finishing what is in hand");
            trigger.begin();
            wait_for_signal().await;
            tracing::warn!("stopped at once by a second signal");
            std::process::exit(130);
        });
        shutdown
    }

    /// A signal that comes with this one, and can also be given on its own.
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

    /// The signal, for what waits for several.
    #[must_use]
    pub fn token(&self) -> CancellationToken {
        self.token.clone()
    }

    /// Waits for the signal.
    pub async fn begun(&self) {
        self.token.cancelled().await;
    }

    /// Time to finish once the signal is given.
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
