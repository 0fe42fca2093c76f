//! The worker of one sink: its queue, its pace, its concurrency, its retries. It delays no other sink.
//!
//! Invariant: the guard of an alert is resolved only after its delivery was recorded in the delivery log, or passed on with
//! its record to the dead-letter writer. While a sink is down its alerts are retried until the shutdown; an alert that
//! keeps failing while the sink accepts others is dead-lettered.

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
use crate::members::SentMembers;
use crate::sinks::{Failure, Sink};

/// The guards of one batch for one sink.
pub(crate) type DeliveryGuards = Vec<DeliveryGuard>;
/// One of the `concurrency` slots for messages in flight.
type Slot = Option<OwnedSemaphorePermit>;

/// The phases of a shutdown.
#[derive(Debug, Clone)]
pub(crate) struct Drain {
    /// From here on there are no retries.
    pub(crate) stop: Shutdown,
    /// From here on no attempt is started.
    pub(crate) late: CancellationToken,
}

/// Shared by the workers of all sinks.
#[derive(Debug, Clone)]
pub(crate) struct Shared {
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
    members: SentMembers,
    shared: Shared,
    claims: Claims,
    metrics: SinkMetrics,
    dependency: Dependency,
}

/// An alert, and the guard that is resolved once it is delivered.
type PendingAlert = (Arc<Alert>, DeliveryGuard);

/// The outcome of a message.
enum MessageOutcome {
    Delivered,
    Refused {
        reason: String,
    },
    /// The shutdown came first.
    Abandoned,
    /// A partition of its alerts was revoked.
    Revoked,
}

impl SinkWorker {
    pub(crate) fn new(
        spec: SinkSpec,
        sink: Sink,
        limits: &DependencyConfig,
        shared: Shared,
    ) -> Self {
        let dependency = format!("sink {}", spec.name);
        Self {
            metrics: SinkMetrics::new(&spec.name),
            dependency: Dependency::new(&dependency, limits, None),
            pace: Pace::a_minute(spec.messages_per_minute),
            name: spec.name,
            members: spec.members,
            concurrency: limits.concurrency,
            sink,
            shared,
            claims: Claims::default(),
        }
    }

    /// The gauge of the alerts in the queue.
    pub(crate) fn queued(&self) -> metrics::Gauge {
        self.metrics.queued.clone()
    }

    /// Works until the queue is closed and empty.
    pub(crate) async fn run(
        self: Arc<Self>,
        mut queue: mpsc::Receiver<DeliveryGuards>,
    ) -> anyhow::Result<()> {
        // Taken in the order of the log, and held until the delivery is recorded: it bounds what a crash may send twice.
        let slots = Arc::new(Semaphore::new(self.concurrency));
        let mut deliveries = JoinSet::new();
        let mut waiting: VecDeque<PendingAlert> = VecDeque::new();
        let mut open = true;
        while open || !waiting.is_empty() || !deliveries.is_empty() {
            tokio::select! {
                guards = queue.recv(), if open && waiting.len() < self.pace.room() => match guards {
                    Some(guards) => self.take(guards, &mut waiting).await?,
                    None => open = false,
                },
                (slot, number) = self.turn(&slots, waiting.len()), if !waiting.is_empty() => {
                    let message: Vec<PendingAlert> = waiting.drain(..number.min(waiting.len())).collect();
                    let number = u32::try_from(message.len()).map_or(f64::MAX, f64::from);
                    self.metrics.queued.decrement(number);
                    deliveries.spawn(Arc::clone(&self).complete(message, slot));
                }
                Some(ended) = deliveries.join_next() => ended.context("a delivery has panicked")?,
            }
        }
        Ok(())
    }

    /// Claims the alerts of a batch that were not delivered to the sink yet.
    async fn take(
        &self,
        guards: DeliveryGuards,
        waiting: &mut VecDeque<PendingAlert>,
    ) -> Result<(), DatabaseError> {
        let claimed: Vec<PendingAlert> = guards
            .into_iter()
            .filter_map(|guard| {
                let alert = Arc::clone(guard.alert()?);
                let first = self.claims.claim(&alert.key, guard);
                if first.is_none() {
                    self.metrics.queued.decrement(1.0);
                }
                Some((alert, first?))
            })
            .collect();
        let keys: Vec<&AlertKey> = claimed.iter().map(|(alert, _)| &alert.key).collect();
        let delivered = self
            .shared
            .delivery_log
            .delivered(&self.name, &keys)
            .await?;
        for (index, (alert, guard)) in claimed.into_iter().enumerate() {
            match &delivered {
                // The shutdown came before the answer of the delivery log.
                None => drop(self.claims.release(&alert.key)),
                Some(delivered) if delivered.contains(&index) => {
                    self.metrics.known.increment(1);
                    self.resolve(&alert.key, guard);
                }
                Some(_) => {
                    waiting.push_back((alert, guard));
                    continue;
                }
            }
            self.metrics.queued.decrement(1.0);
        }
        Ok(())
    }

    /// Waits until a message may be sent. Returns its slot, and the number of alerts that go with it.
    async fn turn(&self, slots: &Arc<Semaphore>, waiting: usize) -> (Slot, usize) {
        // It is never closed.
        let slot = Arc::clone(slots).acquire_owned().await.ok();
        tokio::select! {
            number = self.pace.next(waiting) => (slot, number),
            // No message is sent any more.
            () = self.shared.drain.late.cancelled() => (slot, waiting),
        }
    }

    /// Completes a message: each alert in it is delivered, dead-lettered, or left to the next owner of its partition.
    async fn complete(self: Arc<Self>, message: Vec<PendingAlert>, _slot: Slot) {
        let mut open = vec![message];
        // `turn` has waited for the pace of the first attempt.
        let mut paced = true;
        while let Some(mut message) = open.pop() {
            let (attempts, outcome) = self.deliver(&message, std::mem::take(&mut paced)).await;
            match outcome {
                MessageOutcome::Delivered => {
                    let keys = message.iter().map(|(alert, _)| &alert.key);
                    // If the writer of the delivery log has ended, the service stops and the guards are dropped.
                    if self.shared.delivery_log.record(&self.name, keys).await {
                        for (alert, guard) in message {
                            self.resolve(&alert.key, guard);
                        }
                    }
                }
                // One of them is at fault: it is found by halving the message.
                MessageOutcome::Refused { .. } if message.len() > 1 => {
                    let second = message.split_off(message.len() / 2);
                    open.extend([second, message]);
                }
                MessageOutcome::Refused { reason } => {
                    for pending in message {
                        self.dead_letter(pending, attempts, &reason).await;
                    }
                }
                MessageOutcome::Abandoned => {
                    for (alert, _) in message {
                        drop(self.claims.release(&alert.key));
                    }
                }
                MessageOutcome::Revoked => {
                    let left: Vec<PendingAlert> = message
                        .into_iter()
                        .filter_map(|(alert, guard)| {
                            if !guard.revoked().is_cancelled() {
                                return Some((alert, guard));
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

    /// Sends an alert to the dead-letter writer, and resolves its followers.
    async fn dead_letter(&self, (alert, guard): PendingAlert, attempts: u32, reason: &str) {
        self.metrics.refused.increment(1);
        if let Some(trace) = guard.trace() {
            trace.fail("refused", reason);
        }
        let letter = Letter {
            guard,
            kind: "refused",
            reason: format!("sink {}: {reason}", self.name),
            attempts,
        };
        self.shared.letters.send(letter).await;
        for follower in self.claims.release(&alert.key) {
            follower.resolve();
        }
    }

    /// Makes attempts until the sink accepts or rejects the message. Returns their number and the outcome.
    async fn deliver(&self, message: &[PendingAlert], paced: bool) -> (u32, MessageOutcome) {
        let begun = Instant::now();
        let spans = Deliveries::begin(&self.name, self.sink.kind(), message);
        let Drain { stop, late } = &self.shared.drain;
        let alerts = message.iter().map(|(alert, _)| self.members.of(alert));
        let alerts: Vec<Arc<Alert>> = alerts.collect();
        let revoked = revocations(message);
        let policy = CallPolicy::unlimited()
            .cancelled_by(late.clone())
            .retry_until(stop.token());
        let policy = revoked
            .iter()
            .fold(policy, |policy, token| policy.cancelled_by(token.clone()));
        let paced = AtomicBool::new(paced);
        let call = self.dependency.call(policy, || async {
            // Each retry is a message of its own.
            if !paced.swap(false, Ordering::Relaxed) {
                self.pace.wait().await;
                if late.is_cancelled() || revoked.iter().any(CancellationToken::is_cancelled) {
                    return Err(Failure::retry(
                        "the shutdown or a rebalance came before its turn",
                    ));
                }
            }
            self.sink.deliver(&alerts).await
        });
        // The message is part of the first span; the spans of the other alerts link to it.
        let (attempts, result) = match spans.context() {
            Some(context) => call.with_context(within(context)).await,
            None => call.await,
        };
        spans.end(attempts, &result);
        let outcome = match result {
            Ok(()) => {
                let alerts = message.iter().map(|(alert, _)| &**alert);
                self.metrics.delivered_after(begun.elapsed(), alerts);
                MessageOutcome::Delivered
            }
            Err(CallFailure::Rejected(Failure::Refuse { reason })) => {
                MessageOutcome::Refused { reason }
            }
            Err(CallFailure::Rejected(Failure::Retry { reason, .. })) => MessageOutcome::Refused {
                reason: format!("it fails while others are accepted: {reason}"),
            },
            Err(CallFailure::Unavailable(_))
                if revoked.iter().any(CancellationToken::is_cancelled) =>
            {
                MessageOutcome::Revoked
            }
            Err(CallFailure::Unavailable(_)) => MessageOutcome::Abandoned,
        };
        (attempts, outcome)
    }

    /// Resolves a delivered alert and its followers.
    fn resolve(&self, key: &AlertKey, guard: DeliveryGuard) {
        guard.resolve();
        for follower in self.claims.release(key) {
            self.metrics.known.increment(1);
            follower.resolve();
        }
    }
}

/// The revocation tokens of the assignments that the alerts belong to: usually one.
fn revocations(message: &[PendingAlert]) -> Vec<CancellationToken> {
    let mut tokens: Vec<CancellationToken> = Vec::new();
    for (_, guard) in message {
        if !tokens.iter().any(|token| token == guard.revoked()) {
            tokens.push(guard.revoked().clone());
        }
    }
    tokens
}
