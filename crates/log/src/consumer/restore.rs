//! Restoring histories from snapshots, on a thread of its own, while the loop goes on polling.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};
use std::thread::JoinHandle;

use super::partition::Start;
use crate::error::LogError;
use crate::histories::{Histories, SnapshotRequirements};

/// A restore that is under way.
#[derive(Debug)]
pub(super) struct Restore {
    starts: Receiver<Vec<Start>>,
    thread: JoinHandle<()>,
}

impl Restore {
    /// Begins to restore the histories of these partitions. `before` is a restore of an earlier assignment that may
    /// still run: it ends first, so that what it finds is never taken for the history of this assignment.
    pub(super) fn begin(
        before: Option<JoinHandle<()>>,
        histories: Arc<dyn Histories>,
        starts: Vec<Start>,
        required: Vec<SnapshotRequirements>,
    ) -> Result<Self, LogError> {
        let (done, arrived) = sync_channel(1);
        let restore = move || {
            if let Some(before) = before {
                // An earlier restore that has panicked has restored nothing.
                let _ = before.join();
                histories.forget();
            }
            let standing = histories.restore(&required);
            // Sending fails where the partitions were revoked meanwhile.
            let _ = done.send(with_histories(starts, &standing, &required));
        };
        let thread = std::thread::Builder::new()
            .name("restore".to_owned())
            .spawn(restore)
            .map_err(|error| LogError::Refused(format!("cannot start a thread: {error}")))?;
        Ok(Self {
            starts: arrived,
            thread,
        })
    }

    /// The starts of the partitions, once their histories are restored. None while the restore runs.
    ///
    /// # Errors
    /// [`LogError::Refused`] where the thread has panicked.
    pub(super) fn take(&self) -> Result<Option<Vec<Start>>, LogError> {
        match self.starts.try_recv() {
            Ok(starts) => Ok(Some(starts)),
            Err(TryRecvError::Empty) => Ok(None),
            Err(TryRecvError::Disconnected) => Err(LogError::Refused(
                "the thread that restores histories has panicked".to_owned(),
            )),
        }
    }

    /// Discards the result. Returns the thread, for which the next restore waits.
    pub(super) fn abandon(self) -> JoinHandle<()> {
        self.thread
    }
}

/// Starts with the histories that were restored; `standing` is the offset of each by the number of its partition.
fn with_histories(
    starts: Vec<Start>,
    standing: &HashMap<i32, i64>,
    required: &[SnapshotRequirements],
) -> Vec<Start> {
    let restored = |start: Start| {
        let partition = start.at.partition;
        let committed = required
            .iter()
            .find(|required| required.committed.partition == partition)
            .map(|required| required.committed.offset);
        match (standing.get(&partition), committed) {
            // Only the first topic has histories.
            (Some(offset), Some(committed)) if start.at.topic == 0 => {
                start.restored_at(*offset, committed)
            }
            _ => start,
        }
    };
    starts.into_iter().map(restored).collect()
}
