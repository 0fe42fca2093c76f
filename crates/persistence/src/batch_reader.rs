//! Collects the batches of one database transaction: as many as are waiting and fit.

use tollgate_log::{Batch, Event, WorkerQueue};

/// Reads batches from the worker queue, up to the limits of a database transaction.
#[derive(Debug)]
pub(crate) struct BatchReader {
    queue: WorkerQueue,
    /// A batch that did not fit any more: the first of the next transaction.
    carried: Option<Batch>,
    batch_max: usize,
    batch_max_bytes: usize,
}

impl BatchReader {
    pub(crate) const fn new(queue: WorkerQueue, batch_max: usize, batch_max_bytes: usize) -> Self {
        Self {
            queue,
            carried: None,
            batch_max,
            batch_max_bytes,
        }
    }

    /// Waits for a batch, then takes those that are waiting. `None`: the consumer has ended. Cancel safe.
    pub(crate) async fn next(&mut self) -> Option<Vec<Batch>> {
        let first = match self.carried.take() {
            Some(batch) => batch,
            None => loop {
                // Records of revoked partitions are written too; their offsets are not committed.
                if let Event::Batch(batch) = self.queue.recv().await? {
                    break batch;
                }
            },
        };
        let (mut records, mut bytes) = (first.len(), first.bytes());
        let mut batches = vec![first];
        while let Ok(event) = self.queue.try_recv() {
            let Event::Batch(batch) = event else { continue };
            records += batch.len();
            bytes += batch.bytes();
            if records > self.batch_max || bytes > self.batch_max_bytes {
                self.carried = Some(batch);
                break;
            }
            batches.push(batch);
        }
        Some(batches)
    }
}
