//! Sends commits on a thread of its own, so that the loop does not wait for the answer. The loop decides when.
//!
//! Invariant: one commit at a time, so that an older offset never arrives after a newer one, and an offset counts as
//! committed only when its commit has succeeded. After a failed commit the ledgers offer the same offsets again.

use std::collections::HashMap;
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::thread::JoinHandle;
use std::time::SystemTime;

use super::feed::{CommitOffset, OffsetCommitter};
use crate::error::LogError;
use crate::in_flight::Committable;
use crate::record::TopicPartition;

/// A commit that has begun and has no answer yet.
#[derive(Debug)]
struct Requested {
    offsets: Committable,
    began: SystemTime,
}

/// The end of a commit, with its result.
#[derive(Debug)]
pub(super) struct CommitEnd {
    pub(super) offsets: Committable,
    pub(super) began: SystemTime,
    pub(super) result: Result<(), LogError>,
}

/// The committing thread, and the one commit that it may be at.
#[derive(Debug)]
pub(super) struct Commits {
    requests: Option<Sender<Vec<CommitOffset>>>,
    answers: Receiver<Result<(), LogError>>,
    thread: Option<JoinHandle<()>>,
    requested: Option<Requested>,
}

impl Commits {
    /// Starts the thread.
    pub(super) fn start(
        name: &str,
        mut committer: Box<dyn OffsetCommitter>,
    ) -> Result<Self, LogError> {
        let (requests, requested) = channel::<Vec<CommitOffset>>();
        let (answer, answers) = channel();
        let thread = std::thread::Builder::new()
            .name(format!("{name}-committer"))
            .spawn(move || {
                while let Ok(offsets) = requested.recv() {
                    // The receiver is there as long as the sender of requests.
                    let _ = answer.send(committer.commit(&offsets));
                }
            })
            .map_err(|error| LogError::Refused(format!("cannot start a thread: {error}")))?;
        Ok(Self {
            requests: Some(requests),
            answers,
            thread: Some(thread),
            requested: None,
        })
    }

    /// True from the begin of a commit until its end is taken.
    pub(super) const fn is_busy(&self) -> bool {
        self.requested.is_some()
    }

    /// Begins to commit these offsets, each with its note, unless there are none. Not while another commit is busy.
    pub(super) fn begin(
        &mut self,
        offsets: Committable,
        note: impl Fn(TopicPartition) -> Option<String>,
    ) -> Result<(), LogError> {
        if offsets.offsets.is_empty() || self.is_busy() {
            return Ok(());
        }
        let list = offsets
            .offsets
            .iter()
            .map(|(partition, offset)| CommitOffset {
                partition: *partition,
                offset: *offset,
                note: note(*partition),
            });
        let sent = self
            .requests
            .as_ref()
            .is_some_and(|requests| requests.send(list.collect()).is_ok());
        if !sent {
            return Err(panicked());
        }
        self.requested = Some(Requested {
            offsets,
            began: SystemTime::now(),
        });
        Ok(())
    }

    /// Takes the end of the commit, if it has ended.
    pub(super) fn take_end(&mut self) -> Option<CommitEnd> {
        self.requested.as_ref()?;
        let result = match self.answers.try_recv() {
            Ok(result) => result,
            Err(TryRecvError::Empty) => return None,
            Err(TryRecvError::Disconnected) => Err(panicked()),
        };
        self.end(result)
    }

    /// Waits for the end of the commit, if one has begun.
    pub(super) fn wait(&mut self) -> Option<CommitEnd> {
        self.requested.as_ref()?;
        let result = self.answers.recv().unwrap_or_else(|_| Err(panicked()));
        self.end(result)
    }

    fn end(&mut self, result: Result<(), LogError>) -> Option<CommitEnd> {
        let Requested { offsets, began } = self.requested.take()?;
        Some(CommitEnd {
            offsets,
            began,
            result,
        })
    }
}

impl Drop for Commits {
    /// Waits for the thread, which holds the client. The last reference that is dropped leaves the group, and that must
    /// be the one of the feed.
    fn drop(&mut self) {
        drop(self.requests.take());
        if let Some(thread) = self.thread.take() {
            // After a panic the uncommitted records are read again.
            let _ = thread.join();
        }
    }
}

fn panicked() -> LogError {
    LogError::Refused("the thread that commits has panicked".to_owned())
}

/// The committed offsets by partition.
pub(super) fn by_partition(committed: &Committable) -> HashMap<TopicPartition, i64> {
    committed.offsets.iter().copied().collect()
}
