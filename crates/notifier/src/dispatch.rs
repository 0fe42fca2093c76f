//! From the log to the sinks: every alert of a batch goes into the queue of every sink.
//!
//! The queues hold more than the consumer's budget, so that the dispatcher never waits for a slow sink: the budget alone
//! bounds the records that a sink delays. Invariant: every guard of a batch is made before the first
//! is sent to a worker, so that a batch cannot be completed too early.

use metrics::Gauge;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tollgate_log::{Batch, Event, Log, Reads, WorkerQueue};
use tollgate_service::Shutdown;

use crate::dead_letters::{DeadLetters, Letter};
use crate::delivery::DeliveryGuards;
use crate::in_flight_batch::InFlightBatch;

/// The queue of one sink.
#[derive(Debug)]
pub(crate) struct SinkQueue {
    pub(crate) guards: mpsc::Sender<DeliveryGuards>,
    pub(crate) queued: Gauge,
}

/// Puts alerts into the queues of the sinks.
#[derive(Debug)]
pub(crate) struct Dispatcher {
    pub(crate) queue: WorkerQueue,
    pub(crate) queues: Vec<SinkQueue>,
    pub(crate) letters: DeadLetters,
    pub(crate) log: Log,
    pub(crate) reads: Reads,
    pub(crate) stop: Shutdown,
}

impl Dispatcher {
    /// Works until the shutdown. Batches that arrive after it are dropped until the queue is closed: their records are read
    /// again.
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        let Self {
            mut queue,
            queues,
            letters,
            log,
            reads,
            stop,
        } = self;
        let mut assigned = CancellationToken::new();
        loop {
            let event = tokio::select! {
                biased;
                () = stop.begun() => break,
                event = queue.recv() => event,
            };
            match event {
                None => break,
                Some(Event::Assigned(_) | Event::Barrier(_)) => {}
                Some(Event::Revoked(_)) => {
                    // Attempts in flight end; the alerts that wait belong to the next owner.
                    assigned.cancel();
                    assigned = CancellationToken::new();
                }
                Some(Event::Batch(batch)) => {
                    dispatch(batch, &log, &reads, &assigned, &queues, &letters).await;
                }
            }
        }
        // This closes the queues of the sinks. The consumer needs its worker queue until it has ended.
        drop((queues, letters));
        while queue.recv().await.is_some() {}
        Ok(())
    }
}

async fn dispatch(
    batch: Batch,
    log: &Log,
    reads: &Reads,
    assigned: &CancellationToken,
    queues: &[SinkQueue],
    letters: &DeadLetters,
) {
    let (batch, refused) = InFlightBatch::open(batch, log, reads, assigned.clone());
    let dead: Vec<Letter> = refused
        .into_iter()
        .map(|refused| Letter {
            guard: batch.guard(refused.record, None),
            kind: refused.kind,
            reason: refused.reason,
            attempts: 1,
        })
        .collect();
    let guards: Vec<DeliveryGuards> = queues.iter().map(|_| batch.guards()).collect();
    let alerts = u32::try_from(batch.len()).map_or(f64::MAX, f64::from);
    drop(batch);
    for (queue, guards) in queues.iter().zip(guards) {
        if guards.is_empty() {
            continue;
        }
        queue.queued.increment(alerts);
        // It fails only if the worker has ended, and the service stops with it: the guards stay unresolved.
        let _ = queue.guards.send(guards).await;
    }
    for letter in dead {
        letters.send(letter).await;
    }
}
