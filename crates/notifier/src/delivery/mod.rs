//! One sink's bulkhead: its queue, its concurrency, its retries. What happens here delays no other sink.
//!
//! Invariant: an alert's ticket is resolved only after the ledger knows that the sink has it, or after its record was
//! handed to the dead letters. A sink that is down is no reason to give an alert up: it is tried until the shutdown.

mod claims;
mod retry;
mod state;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Instant;

use anyhow::Context as _;
use claims::Claims;
pub use retry::RetryConfig;
use state::SinkState;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tollgate_runtime::Shutdown;
use tollgate_runtime::database::DatabaseError;

use crate::alert::{Alert, AlertKey};
use crate::config::SinkSpec;
use crate::dead_letters::{DeadLetters, Letter};
use crate::ledger::Ledger;
use crate::parcel::Ticket;
use crate::sinks::{Failure, Sink};

/// Tickets of one batch for one sink.
pub(crate) type Load = Vec<Ticket>;

/// How far a shutdown has come.
#[derive(Debug, Clone)]
pub(crate) struct Drain {
    /// Nothing is tried again from here on.
    pub(crate) stop: Shutdown,
    /// Nothing is begun from here on.
    pub(crate) late: CancellationToken,
}

/// What the workers of all sinks share.
#[derive(Debug, Clone)]
pub(crate) struct Means {
    pub(crate) retry: RetryConfig,
    pub(crate) ledger: Ledger,
    pub(crate) letters: DeadLetters,
    pub(crate) drain: Drain,
}

/// Delivers to one sink.
pub(crate) struct SinkWorker {
    name: String,
    concurrency: usize,
    sink: Sink,
    means: Means,
    claims: Claims,
    state: SinkState,
}

/// What became of an attempt to settle an alert.
enum Fate {
    Delivered,
    Refused {
        reason: String,
    },
    /// The shutdown came first.
    Abandoned,
    /// The partition went, and the alert with it.
    Revoked,
}

impl SinkWorker {
    pub(crate) fn new(spec: SinkSpec, sink: Sink, means: Means) -> Self {
        let state = SinkState::new(&spec.name, means.retry.attempts_before_down);
        Self {
            name: spec.name,
            concurrency: spec.concurrency,
            sink,
            means,
            claims: Claims::default(),
            state,
        }
    }

    /// Counts the alerts that wait in the queue.
    pub(crate) fn queued(&self) -> metrics::Gauge {
        self.state.queued.clone()
    }

    /// Works until the queue is closed and empty.
    pub(crate) async fn run(
        self: Arc<Self>,
        mut queue: mpsc::Receiver<Load>,
    ) -> anyhow::Result<()> {
        let permits = Arc::new(Semaphore::new(self.concurrency));
        let mut deliveries = JoinSet::new();
        loop {
            tokio::select! {
                load = queue.recv() => match load {
                    Some(load) => self.take(load, &permits, &mut deliveries).await?,
                    None => break,
                },
                Some(ended) = deliveries.join_next() => ended.context("a delivery has panicked")?,
            }
        }
        while let Some(ended) = deliveries.join_next().await {
            ended.context("a delivery has panicked")?;
        }
        Ok(())
    }

    /// Starts the deliveries of a batch, as far as the sink does not have its alerts.
    async fn take(
        self: &Arc<Self>,
        load: Load,
        permits: &Arc<Semaphore>,
        deliveries: &mut JoinSet<()>,
    ) -> Result<(), DatabaseError> {
        let claimed: Vec<(Arc<Alert>, Ticket)> = load
            .into_iter()
            .filter_map(|ticket| {
                let alert = Arc::clone(ticket.alert()?);
                let first = self.claims.claim(&alert.key, ticket);
                if first.is_none() {
                    self.state.queued.decrement(1.0);
                }
                Some((alert, first?))
            })
            .collect();
        let keys: Vec<&AlertKey> = claimed.iter().map(|(alert, _)| &alert.key).collect();
        let known = self.means.ledger.known(&self.name, &keys).await?;
        for (index, (alert, ticket)) in claimed.into_iter().enumerate() {
            match &known {
                // The shutdown came before the ledger's answer.
                None => drop(self.claims.settle(&alert.key)),
                Some(known) if known.contains(&index) => {
                    self.state.known.increment(1);
                    self.resolve(&alert.key, ticket);
                }
                Some(_) => {
                    let permit = Arc::clone(permits).acquire_owned().await;
                    let Ok(permit) = permit else { continue };
                    deliveries.spawn(Arc::clone(self).settle(alert, ticket, permit));
                }
            }
            self.state.queued.decrement(1.0);
        }
        Ok(())
    }

    async fn settle(
        self: Arc<Self>,
        alert: Arc<Alert>,
        mut ticket: Ticket,
        _permit: OwnedSemaphorePermit,
    ) {
        loop {
            let mut attempts = 0;
            match self.attempt(&alert, &ticket, &mut attempts).await {
                Fate::Delivered => {
                    // Where the ledger's writer has died, the service goes down, and the ticket with it.
                    if self.means.ledger.record(&self.name, &alert.key).await {
                        self.resolve(&alert.key, ticket);
                    }
                    return;
                }
                Fate::Refused { reason } => {
                    self.state.refused.increment(1);
                    let letter = Letter {
                        ticket,
                        kind: "refused",
                        reason: format!("sink {}: {reason}", self.name),
                        attempts,
                    };
                    self.means.letters.send(letter).await;
                    for follower in self.claims.settle(&alert.key) {
                        follower.resolve();
                    }
                    return;
                }
                Fate::Abandoned => return drop(self.claims.settle(&alert.key)),
                Fate::Revoked => match self.claims.pass_on(&alert.key) {
                    Some(next) => ticket = next,
                    None => return,
                },
            }
        }
    }

    /// Tries until the sink has the alert or refuses it.
    async fn attempt(&self, alert: &Arc<Alert>, ticket: &Ticket, attempts: &mut u32) -> Fate {
        let begun = Instant::now();
        let Drain { stop, late } = &self.means.drain;
        loop {
            if ticket.revoked().is_cancelled() {
                return Fate::Revoked;
            }
            let hopeless = stop.is_begun() && (*attempts > 0 || self.state.is_down());
            if hopeless || late.is_cancelled() {
                return Fate::Abandoned;
            }
            *attempts = attempts.saturating_add(1);
            match self.sink.deliver(alert).await {
                Ok(()) => {
                    self.state.answered();
                    self.state.delivered_after(begun.elapsed());
                    return Fate::Delivered;
                }
                Err(Failure::Refuse { reason }) => {
                    self.state.answered();
                    return Fate::Refused { reason };
                }
                Err(Failure::Retry { reason, after }) => {
                    self.state.failed(&reason);
                    let wait = self.means.retry.wait(*attempts, rand::random(), after);
                    tokio::select! {
                        () = tokio::time::sleep(wait) => {}
                        // Another alert got through, so this one may. Who was told when to come keeps to it.
                        () = self.state.recovered(), if after.is_none() => {}
                        () = ticket.revoked().cancelled() => {}
                        () = stop.begun() => {}
                    }
                }
            }
        }
    }

    /// The alert is where it belongs, and so is whatever followed it.
    fn resolve(&self, key: &AlertKey, ticket: Ticket) {
        ticket.resolve();
        for follower in self.claims.settle(key) {
            self.state.known.increment(1);
            follower.resolve();
        }
    }
}
