//! One sink's bulkhead: its queue, its pace, its concurrency, its retries. What happens here delays no other sink.
//!
//! Invariant: an alert's ticket is resolved only after the delivery log knows that the sink has it, or after its record was
//! handed to the dead letters. A sink that is down is no reason to give an alert up: it is tried until the shutdown.
//! An alert that fails again and again, while the sink takes others, is.

mod claims;
mod deliveries;
mod pace;
mod sink_metrics;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use anyhow::Context as _;
use claims::Claims;
use deliveries::Deliveries;
use opentelemetry::context::FutureExt as _;
use pace::Pace;
use sink_metrics::SinkMetrics;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tollgate_service::Shutdown;
use tollgate_service::database::DatabaseError;
use tollgate_service::resilience::{CallFailure, CallPolicy, Dependency, DependencyConfig};
use tollgate_service::telemetry::trace::within;

use crate::alert::{Alert, AlertKey};
use crate::config::SinkSpec;
use crate::dead_letters::{DeadLetters, Letter};
use crate::delivery_log::DeliveryLog;
use crate::in_flight_batch::DeliveryGuard;
use crate::sinks::{Failure, Sink};

/// Tickets of one batch for one sink.
pub(crate) type Load = Vec<DeliveryGuard>;
/// A place among the messages that are under way.
type Place = Option<OwnedSemaphorePermit>;

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
    pub(crate) delivery_log: DeliveryLog,
    pub(crate) letters: DeadLetters,
    pub(crate) drain: Drain,
}

/// Delivers to one sink.
pub(crate) struct SinkWorker {
    name: String,
    concurrency: usize,
    pace: Pace,
    sink: Sink,
    means: Means,
    claims: Claims,
    metrics: SinkMetrics,
    dependency: Dependency,
}

/// An alert, and the ticket that is resolved when the sink has it.
type PendingAlert = (Arc<Alert>, DeliveryGuard);

/// What became of an attempt to settle a message.
enum Fate {
    Delivered,
    Refused {
        reason: String,
    },
    /// The shutdown came first.
    Abandoned,
    /// A partition went, and its alerts with it.
    Revoked,
}

impl SinkWorker {
    pub(crate) fn new(spec: SinkSpec, sink: Sink, limits: &DependencyConfig, means: Means) -> Self {
        let dependency = format!("sink {}", spec.name);
        Self {
            metrics: SinkMetrics::new(&spec.name),
            dependency: Dependency::new(&dependency, limits, None),
            pace: Pace::a_minute(spec.messages_per_minute),
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
        // In the order of the log, and held until the delivery log knows: what a crash may send twice is bounded by it.
        let places = Arc::new(Semaphore::new(self.concurrency));
        let mut deliveries = JoinSet::new();
        let mut waiting: VecDeque<PendingAlert> = VecDeque::new();
        let mut open = true;
        while open || !waiting.is_empty() || !deliveries.is_empty() {
            tokio::select! {
                load = queue.recv(), if open && waiting.len() < self.pace.room() => match load {
                    Some(load) => self.take(load, &mut waiting).await?,
                    None => open = false,
                },
                (place, number) = self.turn(&places, waiting.len()), if !waiting.is_empty() => {
                    let message: Vec<PendingAlert> = waiting.drain(..number.min(waiting.len())).collect();
                    let number = u32::try_from(message.len()).map_or(f64::MAX, f64::from);
                    self.metrics.queued.decrement(number);
                    deliveries.spawn(Arc::clone(&self).settle(message, place));
                }
                Some(ended) = deliveries.join_next() => ended.context("a delivery has panicked")?,
            }
        }
        Ok(())
    }

    /// Claims the alerts of a batch, as far as the sink does not have them.
    async fn take(
        &self,
        load: Load,
        waiting: &mut VecDeque<PendingAlert>,
    ) -> Result<(), DatabaseError> {
        let claimed: Vec<PendingAlert> = load
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
        let known = self.means.delivery_log.known(&self.name, &keys).await?;
        for (index, (alert, ticket)) in claimed.into_iter().enumerate() {
            match &known {
                // The shutdown came before the delivery log's answer.
                None => drop(self.claims.settle(&alert.key)),
                Some(known) if known.contains(&index) => {
                    self.metrics.known.increment(1);
                    self.resolve(&alert.key, ticket);
                }
                Some(_) => {
                    waiting.push_back((alert, ticket));
                    continue;
                }
            }
            self.metrics.queued.decrement(1.0);
        }
        Ok(())
    }

    /// Waits until a message may be sent. Its place, and how many of those that wait go with it.
    async fn turn(&self, places: &Arc<Semaphore>, waiting: usize) -> (Place, usize) {
        // It is never closed.
        let place = Arc::clone(places).acquire_owned().await.ok();
        tokio::select! {
            number = self.pace.next(waiting) => (place, number),
            // Nothing is sent any more, so nothing is waited for.
            () = self.means.drain.late.cancelled() => (place, waiting),
        }
    }

    /// Settles a message: every alert in it is delivered, dead-lettered, or no longer this process's.
    async fn settle(self: Arc<Self>, message: Vec<PendingAlert>, _place: Place) {
        let mut open = vec![message];
        // The first one's turn was waited for.
        let mut paid = true;
        while let Some(mut message) = open.pop() {
            let (attempts, fate) = self.deliver(&message, std::mem::take(&mut paid)).await;
            match fate {
                Fate::Delivered => {
                    let keys = message.iter().map(|(alert, _)| &alert.key);
                    // Where the delivery log's writer has died, the service goes down, and the tickets with it.
                    if self.means.delivery_log.record(&self.name, keys).await {
                        for (alert, ticket) in message {
                            self.resolve(&alert.key, ticket);
                        }
                    }
                }
                // One of them is at fault: the halves tell which.
                Fate::Refused { .. } if message.len() > 1 => {
                    let second = message.split_off(message.len() / 2);
                    open.extend([second, message]);
                }
                Fate::Refused { reason } => {
                    for owed in message {
                        self.give_up(owed, attempts, &reason).await;
                    }
                }
                Fate::Abandoned => {
                    for (alert, _) in message {
                        drop(self.claims.settle(&alert.key));
                    }
                }
                Fate::Revoked => {
                    let left: Vec<PendingAlert> = message
                        .into_iter()
                        .filter_map(|(alert, ticket)| {
                            if !ticket.revoked().is_cancelled() {
                                return Some((alert, ticket));
                            }
                            let next = self.claims.pass_on(&alert.key)?;
                            Some((alert, next))
                        })
                        .collect();
                    if !left.is_empty() {
                        open.push(left);
                    }
                }
            }
        }
    }

    /// To the dead letters.
    async fn give_up(&self, (alert, ticket): PendingAlert, attempts: u32, reason: &str) {
        self.metrics.refused.increment(1);
        if let Some(trace) = ticket.trace() {
            trace.fail("refused", reason);
        }
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
    }

    /// Tries until the sink has the message or refuses it. The attempts, and what came of them.
    async fn deliver(&self, message: &[PendingAlert], paid: bool) -> (u32, Fate) {
        let begun = Instant::now();
        let spans = Deliveries::begin(&self.name, self.sink.kind(), message);
        let Drain { stop, late } = &self.means.drain;
        let alerts: Vec<Arc<Alert>> = message.iter().map(|(alert, _)| Arc::clone(alert)).collect();
        let revoked = revocations(message);
        let policy = CallPolicy::unlimited()
            .cancelled_by(late.clone())
            .retry_until(stop.token());
        let policy = revoked
            .iter()
            .fold(policy, |policy, token| policy.cancelled_by(token.clone()));
        let paid = AtomicBool::new(paid);
        let call = self.dependency.call(policy, || async {
            // Each attempt is a message too.
            if !paid.swap(false, Ordering::Relaxed) {
                self.pace.wait().await;
                if late.is_cancelled() || revoked.iter().any(CancellationToken::is_cancelled) {
                    return Err(Failure::retry("its turn came too late"));
                }
            }
            self.sink.deliver(&alerts).await
        });
        // What is sent belongs to the first one's delivery; those of the others link to it.
        let (attempts, result) = match spans.context() {
            Some(context) => call.with_context(within(context)).await,
            None => call.await,
        };
        spans.end(attempts, &result);
        let fate = match result {
            Ok(()) => {
                let alerts = message.iter().map(|(alert, _)| &**alert);
                self.metrics.delivered_after(begun.elapsed(), alerts);
                Fate::Delivered
            }
            Err(CallFailure::Rejected(Failure::Refuse { reason })) => Fate::Refused { reason },
            Err(CallFailure::Rejected(Failure::Retry { reason, .. })) => Fate::Refused {
                reason: format!("it fails while others are taken: {reason}"),
            },
            Err(CallFailure::Unavailable(_))
                if revoked.iter().any(CancellationToken::is_cancelled) =>
            {
                Fate::Revoked
            }
            Err(CallFailure::Unavailable(_)) => Fate::Abandoned,
        };
        (attempts, fate)
    }

    /// The alert is where it belongs, and so is whatever followed it.
    fn resolve(&self, key: &AlertKey, ticket: DeliveryGuard) {
        ticket.resolve();
        for follower in self.claims.settle(key) {
            self.metrics.known.increment(1);
            follower.resolve();
        }
    }
}

/// What tells that a partition went, for each assignment that the alerts are of: mostly there is one.
fn revocations(message: &[PendingAlert]) -> Vec<CancellationToken> {
    let mut tokens: Vec<CancellationToken> = Vec::new();
    for (_, ticket) in message {
        if !tokens.iter().any(|token| token == ticket.revoked()) {
            tokens.push(ticket.revoked().clone());
        }
    }
    tokens
}
