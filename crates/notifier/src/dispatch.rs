//! From the log to the sinks: every alert of a batch goes into the queue of every sink.
//!
//! The queues hold more than the consumer's budget, so that handing out never waits for a slow sink: what a sink that
//! stands still holds up is bounded by the budget alone. Invariant: every ticket of a parcel is made before the first
//! is handed out, so that a parcel cannot be complete too early.

use metrics::Gauge;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tollgate_log::{Batch, Event, Reads, WorkerQueue};
use tollgate_service::Shutdown;

use crate::dead_letters::{DeadLetters, Letter};
use crate::delivery::Load;
use crate::in_flight_batch::InFlightBatch;

/// The way to one sink.
#[derive(Debug)]
pub(crate) struct SinkQueue {
    pub(crate) loads: mpsc::Sender<Load>,
    pub(crate) queued: Gauge,
}

/// Hands alerts out.
#[derive(Debug)]
pub(crate) struct Dispatcher {
    pub(crate) lane: WorkerQueue,
    pub(crate) queues: Vec<SinkQueue>,
    pub(crate) letters: DeadLetters,
    pub(crate) reads: Reads,
    pub(crate) stop: Shutdown,
}

impl Dispatcher {
    /// Works until the shutdown, then gives back what comes until the lane is closed.
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        let Self {
            mut lane,
            queues,
            letters,
            reads,
            stop,
        } = self;
        let mut assigned = CancellationToken::new();
        loop {
            let event = tokio::select! {
                biased;
                () = stop.begun() => break,
                event = lane.recv() => event,
            };
            match event {
                None => break,
                Some(Event::Assigned(_) | Event::Barrier(_)) => {}
                Some(Event::Revoked(_)) => {
                    // What is under way ends; what waits is the next owner's.
                    assigned.cancel();
                    assigned = CancellationToken::new();
                }
                Some(Event::Batch(batch)) => {
                    hand_out(batch, &reads, &assigned, &queues, &letters).await;
                }
            }
        }
        // The sinks see the ends of their queues; the reader must find its worker there until it has ended.
        drop((queues, letters));
        while lane.recv().await.is_some() {}
        Ok(())
    }
}

async fn hand_out(
    batch: Batch,
    reads: &Reads,
    assigned: &CancellationToken,
    queues: &[SinkQueue],
    letters: &DeadLetters,
) {
    let (parcel, malformed) = InFlightBatch::open(batch, reads, assigned.clone());
    let dead: Vec<Letter> = malformed
        .into_iter()
        .map(|(record, reason)| Letter {
            ticket: parcel.ticket(record, None),
            kind: "malformed",
            reason,
            attempts: 1,
        })
        .collect();
    let loads: Vec<Load> = queues.iter().map(|_| parcel.tickets()).collect();
    let alerts = u32::try_from(parcel.len()).map_or(f64::MAX, f64::from);
    drop(parcel);
    for (queue, load) in queues.iter().zip(loads) {
        if load.is_empty() {
            continue;
        }
        queue.queued.increment(alerts);
        // The worker is gone only where it has died, and the service with it; the tickets stay unresolved then.
        let _ = queue.loads.send(load).await;
    }
    for letter in dead {
        letters.send(letter).await;
    }
}
