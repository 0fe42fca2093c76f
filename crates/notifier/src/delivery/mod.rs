//! One sink's bulkhead: its queue, its concurrency, its retries. What happens here delays no other sink.
//!
//! Invariant: an alert's ticket is resolved only after the ledger knows that the sink has it, or after its record was
//! handed to the dead letters. A sink that is down is no reason to give an alert up: it is tried until the shutdown.
//! An alert that fails again and again, while the sink takes others, is.

mod claims;
mod sink_metrics;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Instant;

use anyhow::Context as _;
use claims::Claims;
use sink_metrics::SinkMetrics;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tollgate_runtime::Shutdown;
use tollgate_runtime::database::DatabaseError;
use tollgate_runtime::resilience::{Dependency, Limits, Patience, Unserved};

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
    metrics: SinkMetrics,
    dependency: Dependency,
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
    pub(crate) fn new(spec: SinkSpec, sink: Sink, limits: &Limits, means: Means) -> Self {
        let dependency = format!("sink {}", spec.name);
        Self {
            metrics: SinkMetrics::new(&spec.name),
            dependency: Dependency::new(&dependency, limits, None),
            name: spec.name,
            concurrency: limits.concurrency,
            sink,
            means,
            claims: Claims::default(),
        }
    }

    /// Counts the alerts that wait in the queue.
    pub(crate) fn queued(&self) -> metrics::Gauge {
        self.metrics.queued.clone()
    }

    /// Works until the queue is closed and empty.
    pub(crate) async fn run(
        self: Arc<Self>,
        mut queue: mpsc::Receiver<Load>,
    ) -> anyhow::Result<()> {
        // In the order of the log, and held until the ledger knows: what a crash may send twice is bounded by it.
        let places = Arc::new(Semaphore::new(self.concurrency));
        let mut deliveries = JoinSet::new();
        loop {
            tokio::select! {
                load = queue.recv() => match load {
                    Some(load) => self.take(load, &places, &mut deliveries).await?,
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
        places: &Arc<Semaphore>,
        deliveries: &mut JoinSet<()>,
    ) -> Result<(), DatabaseError> {
        let claimed: Vec<(Arc<Alert>, Ticket)> = load
            .into_iter()
            .filter_map(|ticket| {
                let alert = Arc::clone(ticket.alert()?);
                let first = self.claims.claim(&alert.key, ticket);
                if first.is_none() {
                    self.metrics.queued.decrement(1.0);
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
                    self.metrics.known.increment(1);
                    self.resolve(&alert.key, ticket);
                }
                Some(_) => {
                    let place = Arc::clone(places).acquire_owned().await;
                    let Ok(place) = place else { continue };
                    deliveries.spawn(Arc::clone(self).settle(alert, ticket, place));
                }
            }
            self.metrics.queued.decrement(1.0);
        }
        Ok(())
    }

    async fn settle(
        self: Arc<Self>,
        alert: Arc<Alert>,
        mut ticket: Ticket,
        _place: OwnedSemaphorePermit,
    ) {
        loop {
            let (attempts, fate) = self.deliver(&alert, &ticket).await;
            match fate {
                Fate::Delivered => {
                    // Where the ledger's writer has died, the service goes down, and the ticket with it.
                    if self.means.ledger.record(&self.name, &alert.key).await {
                        self.resolve(&alert.key, ticket);
                    }
                    return;
                }
                Fate::Refused { reason } => {
                    self.metrics.refused.increment(1);
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

    /// Tries until the sink has the alert or refuses it. The attempts, and what came of them.
    async fn deliver(&self, alert: &Arc<Alert>, ticket: &Ticket) -> (u32, Fate) {
        let begun = Instant::now();
        let Drain { stop, late } = &self.means.drain;
        let patience = Patience::endless()
            .pointless_with(ticket.revoked().clone())
            .pointless_with(late.clone())
            .over_with(stop.token());
        let call = self.dependency.call(patience, || self.sink.deliver(alert));
        let (attempts, result) = call.await;
        let fate = match result {
            Ok(()) => {
                self.metrics.delivered_after(begun.elapsed());
                Fate::Delivered
            }
            Err(Unserved::Failed(Failure::Refuse { reason })) => Fate::Refused { reason },
            Err(Unserved::Failed(Failure::Retry { reason, .. })) => Fate::Refused {
                reason: format!("it fails while others are taken: {reason}"),
            },
            Err(Unserved::GivenUp(_)) if ticket.revoked().is_cancelled() => Fate::Revoked,
            Err(Unserved::GivenUp(_)) => Fate::Abandoned,
        };
        (attempts, fate)
    }

    /// The alert is where it belongs, and so is whatever followed it.
    fn resolve(&self, key: &AlertKey, ticket: Ticket) {
        ticket.resolve();
        for follower in self.claims.settle(key) {
            self.metrics.known.increment(1);
            follower.resolve();
        }
    }
}
