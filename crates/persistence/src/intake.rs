//! What one database transaction is made of: batches from the log, as many as are at hand and fit.

use tollgate_log::{Batch, Event, WorkerQueue};

/// Batches as they come from the log, as many together as one transaction may hold.
#[derive(Debug)]
pub(crate) struct Intake {
    lane: WorkerQueue,
    /// Came when there was no room for it any more.
    carried: Option<Batch>,
    batch_max: usize,
    batch_max_bytes: usize,
}

impl Intake {
    pub(crate) const fn new(lane: WorkerQueue, batch_max: usize, batch_max_bytes: usize) -> Self {
        Self {
            lane,
            carried: None,
            batch_max,
            batch_max_bytes,
        }
    }

    /// Waits for records, then takes what is at hand. None: the log's reader has ended. Loses nothing where it is
    /// dropped while it waits.
    pub(crate) async fn next(&mut self) -> Option<Vec<Batch>> {
        let first = match self.carried.take() {
            Some(batch) => batch,
            None => loop {
                // What was in hand for partitions that have gone is written all the same; its offsets count no more.
                if let Event::Batch(batch) = self.lane.recv().await? {
                    break batch;
                }
            },
        };
        let (mut records, mut bytes) = (first.len(), first.bytes());
        let mut batches = vec![first];
        while let Ok(event) = self.lane.try_recv() {
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
