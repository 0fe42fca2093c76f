//! How long a caller waits for a dependency that is down.

use futures_util::future::select_all;
use tokio_util::sync::CancellationToken;

/// Ends the waits of a call. One that is under way is never cut short by it: nobody would know what it did.
#[derive(Debug, Clone, Default)]
pub struct Patience {
    pointless: Vec<CancellationToken>,
    over: Vec<CancellationToken>,
}

impl Patience {
    /// Waits until there is an answer.
    #[must_use]
    pub fn endless() -> Self {
        Self::default()
    }

    /// Waits for nothing but a place among the others: one attempt, and none while the circuit is open.
    #[must_use]
    pub fn none() -> Self {
        let now = CancellationToken::new();
        now.cancel();
        Self::endless().over_with(now)
    }

    /// Once this is cancelled nothing is begun, not even a first attempt.
    #[must_use]
    pub fn pointless_with(mut self, token: CancellationToken) -> Self {
        self.pointless.push(token);
        self
    }

    /// Once this is cancelled nothing is waited for. A first attempt is still made, where it may go through.
    #[must_use]
    pub fn over_with(mut self, token: CancellationToken) -> Self {
        self.over.push(token);
        self
    }

    /// From here on nothing is begun once nothing is waited for.
    pub(super) fn end_with_waiting(&mut self) {
        self.pointless.append(&mut self.over);
    }

    /// Whether nothing is begun any more.
    #[must_use]
    pub fn is_pointless(&self) -> bool {
        self.pointless.iter().any(CancellationToken::is_cancelled)
    }

    /// Whether nothing is waited for any more.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.is_pointless() || self.over.iter().any(CancellationToken::is_cancelled)
    }

    pub(super) async fn pointless(&self) {
        any(self.pointless.iter()).await;
    }

    pub(super) async fn over(&self) {
        any(self.pointless.iter().chain(&self.over)).await;
    }
}

async fn any(tokens: impl Iterator<Item = &CancellationToken>) {
    let waits: Vec<_> = tokens.map(|token| Box::pin(token.cancelled())).collect();
    if waits.is_empty() {
        return std::future::pending().await;
    }
    select_all(waits).await;
}
