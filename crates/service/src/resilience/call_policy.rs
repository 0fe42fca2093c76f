//! How long a call keeps trying while its dependency is down.

use futures_util::future::select_all;
use tokio_util::sync::CancellationToken;

/// Ends the waits and the retries of a call. An attempt that has been started is never aborted by it: its effect would
/// be unknown.
#[derive(Debug, Clone, Default)]
pub struct CallPolicy {
    cancelled: Vec<CancellationToken>,
    expired: Vec<CancellationToken>,
}

impl CallPolicy {
    /// Retries until there is an answer.
    #[must_use]
    pub fn unlimited() -> Self {
        Self::default()
    }

    /// One attempt, and none while the circuit is open. Only the wait for a free slot of the bulkhead remains.
    #[must_use]
    pub fn no_retry() -> Self {
        let expired = CancellationToken::new();
        expired.cancel();
        Self::unlimited().retry_until(expired)
    }

    /// Once `token` is cancelled no attempt is started, not even the first.
    #[must_use]
    pub fn cancelled_by(mut self, token: CancellationToken) -> Self {
        self.cancelled.push(token);
        self
    }

    /// Once `token` is cancelled there are no waits and no retries. A first attempt is still made if the circuit lets
    /// it through.
    #[must_use]
    pub fn retry_until(mut self, token: CancellationToken) -> Self {
        self.expired.push(token);
        self
    }

    /// From here on the end of the retries cancels the call: its first attempt has been made.
    pub(super) fn cancel_once_expired(&mut self) {
        self.cancelled.append(&mut self.expired);
    }

    /// Whether no further attempt may be started.
    pub(super) fn is_cancelled(&self) -> bool {
        self.cancelled.iter().any(CancellationToken::is_cancelled)
    }

    /// Whether the call may no longer wait.
    pub(super) fn is_expired(&self) -> bool {
        self.is_cancelled() || self.expired.iter().any(CancellationToken::is_cancelled)
    }

    /// Waits until no further attempt may be started.
    pub(super) async fn cancelled(&self) {
        any(self.cancelled.iter()).await;
    }

    /// Waits until the call may no longer wait.
    pub(super) async fn expired(&self) {
        any(self.cancelled.iter().chain(&self.expired)).await;
    }
}

async fn any(tokens: impl Iterator<Item = &CancellationToken>) {
    let waits: Vec<_> = tokens.map(|token| Box::pin(token.cancelled())).collect();
    if waits.is_empty() {
        return std::future::pending().await;
    }
    select_all(waits).await;
}
