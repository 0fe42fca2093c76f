//! Runs the parts of a service side by side and stops them in order.
//!
//! A part that ends before the shutdown, fails or panics stops the whole service. During the shutdown the service
//! is not ready, its parts drain within the grace period, and the probes are answered until all of them have ended.
//! Invariant: a service never goes on without one of its parts. The first error is its outcome, with the part's name.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use axum::Router;
use tokio::task::{Id, JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::Shutdown;
use crate::health::Health;
use crate::http::{Bound, serve_admin};

/// The reason for not being ready during a shutdown, and its component.
const DRAINING: (&str, &str) = ("shutdown", "draining");
/// How long the probes and the other support parts may take to stop.
const SUPPORT_GRACE: Duration = Duration::from_secs(1);
/// Parts end by themselves within the grace period; one that has not this long after it is aborted.
const ABORT_DELAY: Duration = Duration::from_secs(2);

/// Collects the parts of a service, then watches them.
#[derive(Debug)]
pub struct Supervisor {
    service: &'static str,
    health: Health,
    shutdown: Shutdown,
    drained: Shutdown,
    address: Option<SocketAddr>,
    admin_address: SocketAddr,
    /// They stop at the shutdown.
    parts: Parts,
    /// They may run until the parts have ended.
    support: Parts,
    drain_timeout: Duration,
    /// Cancelled this long after the beginning of the shutdown.
    second_phase: Option<(Duration, CancellationToken)>,
}

impl Supervisor {
    /// A service that begins its shutdown with `shutdown`, or when one of its parts ends. Probes are answered on `admin`
    /// from here on, to the end.
    #[must_use]
    pub fn new(service: &'static str, health: Health, shutdown: &Shutdown, admin: Bound) -> Self {
        let mut supervisor = Self {
            service,
            health: health.clone(),
            shutdown: shutdown.child(),
            drained: Shutdown::new(SUPPORT_GRACE),
            address: None,
            admin_address: admin.address(),
            parts: Parts::default(),
            support: Parts::default(),
            drain_timeout: shutdown.grace() + ABORT_DELAY,
            second_phase: None,
        };
        let probes = serve_admin(admin, health, supervisor.drained.clone());
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
            admin_address,
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

/// Tasks with their names.
#[derive(Debug, Default)]
struct Parts {
    tasks: JoinSet<anyhow::Result<()>>,
    names: HashMap<Id, String>,
}

/// How a part ended.
struct Ended {
    part: String,
    result: anyhow::Result<()>,
}

impl Parts {
    fn spawn(
        &mut self,
        name: String,
        part: impl Future<Output = anyhow::Result<()>> + Send + 'static,
    ) {
        let id = self.tasks.spawn(part).id();
        self.names.insert(id, name);
    }

    /// Waits until the next part ends. `None` if there is none left. Loses nothing if it is dropped while it waits.
    async fn next(&mut self) -> Option<Ended> {
        let (id, result) = match self.tasks.join_next_with_id().await? {
            Ok(ended) => ended,
            Err(error) if error.is_panic() => (error.id(), Err(anyhow!("it panicked"))),
            Err(error) => (error.id(), Err(error.into())),
        };
        let part = self.names.remove(&id).unwrap_or_default();
        Some(Ended { part, result })
    }

    /// The parts that still run.
    fn names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.names.values().map(String::as_str).collect();
        names.sort_unstable();
        names
    }

    async fn abort(&mut self) {
        self.tasks.shutdown().await;
        self.names.clear();
    }
}

impl Ended {
    /// The outcome of an end before the shutdown: an error in any case.
    fn early(self) -> anyhow::Result<()> {
        match self.result {
            Ok(()) => Err(anyhow!("{} has ended by itself", self.part)),
            Err(_) => self.result(),
        }
    }

    fn result(self) -> anyhow::Result<()> {
        self.result
            .with_context(|| format!("{} has failed", self.part))
    }
}

/// A service that runs.
#[derive(Debug)]
pub struct RunningService {
    /// The name of the service.
    pub name: &'static str,
    /// Where its API is served, if it has one.
    pub address: Option<SocketAddr>,
    /// Where probes and scrapes are answered.
    pub admin_address: SocketAddr,
    /// Whether it is ready, and if not, why.
    pub health: Health,
    ended: CancellationToken,
    task: JoinHandle<anyhow::Result<()>>,
}

impl RunningService {
    /// Whether it has ended. Before the shutdown that means an error.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.ended.is_cancelled()
    }

    /// Waits until it is ready. False: it ended before that.
    pub async fn ready(&self) -> bool {
        tokio::select! {
            () = self.health.until_ready() => true,
            () = self.ended.cancelled() => false,
        }
    }

    /// Waits until it has ended: after the shutdown, or by an error.
    ///
    /// # Errors
    /// The first error of its parts.
    pub async fn join(self) -> anyhow::Result<()> {
        self.task
            .await
            .with_context(|| format!("{} has panicked", self.name))?
    }

    /// Prints the admin address on standard output, the address of the API once the service is ready, and waits until it
    /// has ended.
    ///
    /// # Errors
    /// The first error of its parts.
    #[expect(
        clippy::print_stdout,
        reason = "the caller of the process reads the addresses here"
    )]
    pub async fn announce_and_join(self) -> anyhow::Result<()> {
        // Before the service is ready: the admin port reports what it waits for.
        println!("{} admin: http://{}", self.name, self.admin_address);
        if let Some(address) = self.address
            && self.ready().await
        {
            println!("{}: http://{address}", self.name);
        }
        self.join().await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;
    use crate::http::bind;

    async fn supervisor(shutdown: &Shutdown) -> Supervisor {
        let admin = bind("test.admin_listen", SocketAddr::from(([127, 0, 0, 1], 0)))
            .await
            .unwrap();
        Supervisor::new("test", Health::default(), shutdown, admin)
    }

    /// A part that ends at the shutdown.
    async fn until(shutdown: Shutdown) -> anyhow::Result<()> {
        shutdown.begun().await;
        Ok(())
    }

    async fn nothing(_: Duration) -> anyhow::Result<()> {
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn after_the_shutdown_the_parts_end_then_the_close_runs_and_the_outcome_is_good() {
        let shutdown = Shutdown::new(Duration::from_secs(20));
        let mut supervisor = supervisor(&shutdown).await;
        let part_ended = Arc::new(AtomicBool::new(false));
        let (inner, ended) = (supervisor.shutdown().clone(), Arc::clone(&part_ended));
        supervisor.spawn("a slow part", async move {
            inner.begun().await;
            tokio::time::sleep(Duration::from_secs(5)).await;
            ended.store(true, Ordering::Relaxed);
            Ok(())
        });
        let drained = supervisor.drained().clone();
        supervisor.spawn_support("a support part", until(drained.clone()));
        let seen = Arc::clone(&part_ended);
        let service = supervisor.start(async move |left| {
            assert!(seen.load(Ordering::Relaxed) && !drained.is_begun());
            assert_eq!(left, Duration::from_secs(15));
            Ok(())
        });
        assert!(service.ready().await);
        assert!(!service.is_finished());
        shutdown.begin();
        service.join().await.unwrap();
        assert!(part_ended.load(Ordering::Relaxed));
    }

    #[tokio::test(start_paused = true)]
    async fn a_part_that_ends_fails_or_panics_takes_the_service_down_under_its_name() {
        type Part = fn() -> anyhow::Result<()>;
        let cases: [(Part, &str); 3] = [
            (|| Ok(()), "the odd one has ended by itself"),
            (
                || Err(anyhow!("disk full")),
                "the odd one has failed: disk full",
            ),
            (|| panic!("oh"), "the odd one has failed: it panicked"),
        ];
        for (part, expected) in cases {
            let shutdown = Shutdown::new(Duration::from_secs(20));
            let mut supervisor = supervisor(&shutdown).await;
            let inner = supervisor.shutdown().clone();
            supervisor.spawn("the other", until(inner.clone()));
            supervisor.spawn("the odd one", async move { part() });
            let service = supervisor.start(nothing);
            let error = service.join().await.unwrap_err();
            assert_eq!(format!("{error:#}"), expected);
            assert!(inner.is_begun() && !shutdown.is_begun());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_part_that_fails_while_the_service_drains_is_the_outcome() {
        let shutdown = Shutdown::new(Duration::from_secs(20));
        let mut supervisor = supervisor(&shutdown).await;
        let inner = supervisor.shutdown().clone();
        supervisor.spawn("the writer", async move {
            inner.begun().await;
            Err(anyhow!("disk full"))
        });
        let service = supervisor.start(async |_| Err(anyhow!("too late")));
        shutdown.begin();
        let error = service.join().await.unwrap_err();
        assert_eq!(format!("{error:#}"), "the writer has failed: disk full");
    }

    #[tokio::test(start_paused = true)]
    async fn a_part_that_does_not_end_is_aborted_after_the_grace_period() {
        let shutdown = Shutdown::new(Duration::from_secs(20));
        let mut supervisor = supervisor(&shutdown).await;
        supervisor.spawn("the endless one", std::future::pending());
        let service = supervisor.start(nothing);
        shutdown.begin();
        let begun = tokio::time::Instant::now();
        service.join().await.unwrap();
        assert_eq!(begun.elapsed(), Duration::from_secs(20) + ABORT_DELAY);
    }

    #[tokio::test(start_paused = true)]
    async fn the_second_phase_begins_at_its_time() {
        let shutdown = Shutdown::new(Duration::from_secs(20));
        let mut supervisor = supervisor(&shutdown).await;
        let late = CancellationToken::new();
        supervisor.begin_second_phase(Duration::from_secs(10), late.clone());
        supervisor.spawn("a part", async move {
            late.cancelled().await;
            Ok(())
        });
        let service = supervisor.start(nothing);
        tokio::time::sleep(Duration::from_secs(100)).await;
        shutdown.begin();
        let begun = tokio::time::Instant::now();
        service.join().await.unwrap();
        assert_eq!(begun.elapsed().as_secs(), 10);
    }

    #[tokio::test]
    async fn probes_are_answered_while_the_service_drains_and_it_is_not_ready() {
        let shutdown = Shutdown::new(Duration::from_secs(20));
        let mut supervisor = supervisor(&shutdown).await;
        let let_go = CancellationToken::new();
        let held = let_go.clone();
        supervisor.spawn("a part", async move {
            held.cancelled().await;
            Ok(())
        });
        let service = supervisor.start(nothing);
        let address = service.admin_address;
        shutdown.begin();
        let client = reqwest::Client::new();
        let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
        loop {
            let answer = client.get(format!("http://{address}/readyz")).send().await;
            let text = answer.unwrap().text().await.unwrap();
            if text.contains("draining") {
                break;
            }
            assert!(tokio::time::Instant::now() < deadline, "{text}");
            tokio::task::yield_now().await;
        }
        let alive = client.get(format!("http://{address}/livez")).send().await;
        assert!(alive.unwrap().status().is_success());
        let_go.cancel();
        service.join().await.unwrap();
        assert!(
            client
                .get(format!("http://{address}/livez"))
                .send()
                .await
                .is_err()
        );
    }
}
