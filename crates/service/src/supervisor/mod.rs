//! Runs the parts of a service side by side and stops them in order.
//!
//! A part that ends before the shutdown, fails or panics stops the whole service. During the shutdown the service
//! is not ready, its parts drain within the drain timeout, and health checks are answered until all of them have ended.
//! Invariant: a service never goes on without one of its parts. The first error is its outcome, with the part's name.

mod parts;
mod running;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use parts::Parts;
pub use running::RunningService;
use tokio_util::sync::CancellationToken;

use crate::Shutdown;
use crate::health::Health;
use crate::http::{Bound, serve_admin};

/// The reason for not being ready during a shutdown, and its component.
const DRAINING: (&str, &str) = ("shutdown", "draining");
/// How long the admin port and the other support parts may take to stop.
const SUPPORT_GRACE: Duration = Duration::from_secs(1);
/// Parts end by themselves within the grace period. One that is still running this long after it is aborted, unless
/// [`Supervisor::set_drain_timeout`] was called.
const ABORT_DELAY: Duration = Duration::from_secs(2);

/// Collects the parts of a service, then watches them.
#[derive(Debug)]
pub struct Supervisor {
    service: &'static str,
    health: Health,
    shutdown: Shutdown,
    drained: Shutdown,
    address: Option<SocketAddr>,
    scheme: &'static str,
    admin_address: SocketAddr,
    admin_scheme: &'static str,
    /// They stop at the shutdown.
    parts: Parts,
    /// They may run until the parts have ended.
    support: Parts,
    drain_timeout: Duration,
    /// Cancelled this long after the beginning of the shutdown.
    second_phase: Option<(Duration, CancellationToken)>,
}

impl Supervisor {
    /// A service that begins its shutdown with `shutdown`, or when one of its parts ends. Health checks are answered on
    /// `admin` from here on, to the end.
    #[must_use]
    pub fn new(service: &'static str, health: Health, shutdown: &Shutdown, admin: Bound) -> Self {
        Self::with_admin_routes(service, health, shutdown, admin, Router::new())
    }

    /// As [`Supervisor::new`], with the service's own `routes` on the admin port.
    #[must_use]
    pub fn with_admin_routes(
        service: &'static str,
        health: Health,
        shutdown: &Shutdown,
        admin: Bound,
        routes: Router,
    ) -> Self {
        let mut supervisor = Self {
            service,
            health: health.clone(),
            shutdown: shutdown.child(),
            drained: Shutdown::new(SUPPORT_GRACE),
            address: None,
            scheme: "http",
            admin_address: admin.address(),
            admin_scheme: admin.scheme(),
            parts: Parts::default(),
            support: Parts::default(),
            drain_timeout: shutdown.grace() + ABORT_DELAY,
            second_phase: None,
        };
        let probes = serve_admin(admin, routes, health, supervisor.drained.clone());
        supervisor.spawn_support("the admin listener", probes);
        supervisor
    }

    /// The signal to the parts. It is also given when one of them ends, without stopping what else the process runs.
    #[must_use]
    pub const fn shutdown(&self) -> &Shutdown {
        &self.shutdown
    }

    /// The signal that all parts have ended.
    #[must_use]
    pub const fn drained(&self) -> &Shutdown {
        &self.drained
    }

    /// Starts a part. It ends at the shutdown, within the grace period.
    pub fn spawn(
        &mut self,
        name: impl Into<String>,
        part: impl Future<Output = anyhow::Result<()>> + Send + 'static,
    ) {
        self.parts.spawn(name.into(), part);
    }

    /// Starts a part on which the others depend while they drain, or that ends after them. It ends at
    /// [`Supervisor::drained`] at the latest.
    pub fn spawn_support(
        &mut self,
        name: impl Into<String>,
        part: impl Future<Output = anyhow::Result<()>> + Send + 'static,
    ) {
        self.support.spawn(name.into(), part);
    }

    /// Starts the API of the service: a part that answers requests until the shutdown.
    pub fn serve(&mut self, bound: Bound, routes: Router) {
        self.address = Some(bound.address());
        self.scheme = bound.scheme();
        let serving = bound.serve(routes, self.shutdown.clone());
        self.parts.spawn("the listener".to_owned(), serving);
    }

    /// Cancels `token` when the shutdown has lasted for `after`: the parts then start nothing new.
    pub fn begin_second_phase(&mut self, after: Duration, token: CancellationToken) {
        self.second_phase = Some((after, token));
    }

    /// Aborts the parts that have not ended `timeout` after the beginning of the shutdown. Unless set, that is shortly
    /// after the grace period.
    pub const fn set_drain_timeout(&mut self, timeout: Duration) {
        self.drain_timeout = timeout;
    }

    /// Watches the parts from here on. `close` is called after the last of them has ended, with what is left of the grace
    /// period: it flushes and closes what they shared.
    pub fn start<C>(self, close: impl FnOnce(Duration) -> C + Send + 'static) -> RunningService
    where
        C: Future<Output = anyhow::Result<()>> + Send,
    {
        let (address, admin_address) = (self.address, self.admin_address);
        let (scheme, admin_scheme) = (self.scheme, self.admin_scheme);
        let ended = CancellationToken::new();
        let (service, health, guard) = (
            self.service,
            self.health.clone(),
            ended.clone().drop_guard(),
        );
        let task = tokio::spawn(async move {
            let outcome = self.run(close).await;
            drop(guard);
            outcome
        });
        RunningService {
            name: service,
            address,
            scheme,
            admin_address,
            admin_scheme,
            health,
            ended,
            task,
        }
    }

    async fn run<C>(mut self, close: impl FnOnce(Duration) -> C) -> anyhow::Result<()>
    where
        C: Future<Output = anyhow::Result<()>>,
    {
        let mut outcome = tokio::select! {
            // First: the shutdown ends the parts too, and then their end is not early.
            biased;
            () = self.shutdown.begun() => Ok(()),
            // The end of a support part is the cause where a part ends with it.
            Some(ended) = self.support.next() => ended.early(),
            Some(ended) = self.parts.next() => ended.early(),
        };
        if let Err(error) = &outcome {
            let error = format!("{error:#}");
            tracing::error!(service = self.service, error, "the service stops");
        }
        let (component, reason) = DRAINING;
        self.health.not_ready(component, reason);
        self.shutdown.begin();
        let begun = tokio::time::Instant::now();
        outcome = outcome.and(self.drain().await);
        let left = self.shutdown.grace().saturating_sub(begun.elapsed());
        outcome = outcome.and(close(left).await);
        self.drained.begin();
        outcome.and(self.end_support().await)
    }

    /// Waits until all parts have ended, at most for the drain timeout.
    async fn drain(&mut self) -> anyhow::Result<()> {
        let mut outcome = Ok(());
        let begun = tokio::time::Instant::now();
        let timeout = tokio::time::sleep_until(begun + self.drain_timeout);
        let second_phase = self.second_phase.take();
        let second_phase = async {
            match second_phase {
                Some((after, token)) => {
                    tokio::time::sleep_until(begun + after).await;
                    token.cancel();
                }
                None => std::future::pending().await,
            }
        };
        tokio::pin!(timeout, second_phase);
        let mut in_second_phase = false;
        loop {
            tokio::select! {
                ended = self.parts.next() => match ended {
                    Some(ended) => outcome = outcome.and(ended.result()),
                    None => return outcome,
                },
                () = &mut second_phase, if !in_second_phase => in_second_phase = true,
                () = &mut timeout => {
                    let parts = self.parts.names().join(", ");
                    tracing::warn!(
                        service = self.service,
                        parts,
                        "parts that did not end in time were aborted"
                    );
                    self.parts.abort().await;
                    return outcome;
                }
            }
        }
    }

    async fn end_support(&mut self) -> anyhow::Result<()> {
        let mut outcome = Ok(());
        let ending = async {
            while let Some(ended) = self.support.next().await {
                outcome = std::mem::replace(&mut outcome, Ok(())).and(ended.result());
            }
        };
        if tokio::time::timeout(2 * SUPPORT_GRACE, ending)
            .await
            .is_err()
        {
            let parts = self.support.names().join(", ");
            let service = self.service;
            tracing::warn!(
                service,
                parts,
                "parts that did not end in time were aborted"
            );
            self.support.abort().await;
        }
        outcome
    }
}
