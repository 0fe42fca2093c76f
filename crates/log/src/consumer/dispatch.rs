//! Fills the batches of the workers, one for each worker queue, and sends them.
//!
//! Invariant: before a batch is sent, every record read so far is entered in the ledgers. Otherwise an offset could be
//! committed beyond a record that still waits in another batch.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::mpsc;
use tollgate_types::Stage;

use super::{Batching, Event};
use crate::batch::Batch;
use crate::error::LogError;
use crate::in_flight::{InFlight, ReadRecord};
use crate::record::RawRecord;

/// A batch that is being filled, and the time at which it is due.
#[derive(Debug)]
struct Filling {
    batch: Batch,
    due: Instant,
}

/// The worker queues, and the batch that is being filled for each.
#[derive(Debug)]
pub(super) struct Dispatch {
    stage: Stage,
    queues: Vec<mpsc::UnboundedSender<Event>>,
    /// The batch of each queue, in the order of `queues`.
    filling: Vec<Option<Filling>>,
    /// Records that were read and are not in the ledgers yet.
    read: Vec<ReadRecord>,
    batching: Batching,
    in_flight: Arc<InFlight>,
}

impl Dispatch {
    pub(super) fn new(
        stage: Stage,
        queues: Vec<mpsc::UnboundedSender<Event>>,
        batching: Batching,
        in_flight: Arc<InFlight>,
    ) -> Self {
        Self {
            stage,
            filling: queues.iter().map(|_| None).collect(),
            queues,
            read: Vec::new(),
            batching,
            in_flight,
        }
    }

    /// Adds a record to the batch of a queue, and sends the batch if it is full.
    pub(super) fn push(
        &mut self,
        queue: usize,
        record: &RawRecord<'_>,
        replayed: bool,
    ) -> Result<(), LogError> {
        let Some(slot) = self.filling.get_mut(queue) else {
            return Err(stopped(self.stage));
        };
        let filling = slot.get_or_insert_with(|| Filling {
            batch: Batch::new(&self.in_flight),
            due: Instant::now() + self.batching.max_wait,
        });
        let bytes = filling.batch.push(record, replayed);
        self.read.push(ReadRecord {
            at: record.at,
            offset: record.offset,
            replayed,
            bytes,
        });
        let full = filling.batch.len() >= self.batching.max_records
            || filling.batch.bytes() >= self.batching.max_bytes;
        match slot.take_if(|_| full) {
            Some(full) => {
                self.in_flight.begin(&mut self.read);
                self.send(queue, Event::Batch(full.batch))
            }
            None => Ok(()),
        }
    }

    /// True if no record waits in a batch.
    pub(super) fn is_empty(&self) -> bool {
        self.filling.iter().all(Option::is_none)
    }

    /// When the oldest batch that may wait is due; none where batches do not wait.
    pub(super) fn next_due(&self) -> Option<Instant> {
        if self.batching.max_wait.is_zero() {
            return None;
        }
        self.filling
            .iter()
            .flatten()
            .map(|filling| filling.due)
            .min()
    }

    /// Sends the batches that are due. `idle`: nothing more is ready to be read, so that a batch that does not wait is
    /// sent as it is.
    pub(super) fn send_due(&mut self, now: Instant, idle: bool) -> Result<(), LogError> {
        let waits = !self.batching.max_wait.is_zero();
        self.send_where(|filling| if waits { filling.due <= now } else { idle })
    }

    /// Sends every batch.
    pub(super) fn send_all(&mut self) -> Result<(), LogError> {
        self.send_where(|_| true)
    }

    fn send_where(&mut self, goes: impl Fn(&Filling) -> bool) -> Result<(), LogError> {
        self.in_flight.begin(&mut self.read);
        for queue in 0..self.filling.len() {
            let filling = self.filling.get_mut(queue);
            if let Some(filling) = filling.and_then(|slot| slot.take_if(|filling| goes(filling))) {
                self.send(queue, Event::Batch(filling.batch))?;
            }
        }
        Ok(())
    }

    fn send(&self, queue: usize, event: Event) -> Result<(), LogError> {
        match self.queues.get(queue).map(|queue| queue.send(event)) {
            Some(Ok(())) => Ok(()),
            Some(Err(_)) | None => Err(stopped(self.stage)),
        }
    }

    /// Drops the batches being filled. Their records are read again by the next owner.
    pub(super) fn discard(&mut self) {
        // Count the records first: dropping the batches releases them from the budget.
        self.in_flight.begin(&mut self.read);
        self.filling.iter_mut().for_each(|slot| *slot = None);
    }

    /// Sends an event to every worker, behind the batches that were sent to it.
    pub(super) fn broadcast(&self, event: impl Fn() -> Event) {
        for queue in &self.queues {
            // A worker that has stopped is noticed when a batch is sent to it.
            let _ = queue.send(event());
        }
    }

    /// Ends the queues. The workers still receive the events that are in them.
    pub(super) fn close(&mut self) {
        self.discard();
        self.queues.clear();
    }
}

fn stopped(stage: Stage) -> LogError {
    LogError::Refused(format!("a worker of {stage} has stopped"))
}
