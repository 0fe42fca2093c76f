//! The journal of the embedded log: a SQLite file with every acknowledged record, which is read again after a crash.
//!
//! One thread writes. It takes all entries that wait, commits them as one group, then makes the records readable and
//! acknowledges them. Invariant: nothing is readable or acknowledged before its group is on disk.

mod store;
mod writer;

use std::path::Path;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context as _;

pub(super) use store::{CommittedOffset, Expired, Extent, Place};
use store::{Store, StoredBatch};
pub(super) use writer::now_ms;
use writer::{Queue, Writer};

use super::record::StoredRecord;
use crate::acks::Acks;

/// How long entries that wait are tried to be written after the log was closed.
const CLOSE: Duration = Duration::from_secs(5);

/// An entry to be written.
pub(super) enum Entry {
    /// A record, encoded.
    Record {
        place: Place,
        record: Vec<u8>,
        acks: Arc<Acks>,
    },
    /// Committed offsets. The sender is dropped where they will never be on disk.
    Offsets {
        offsets: Vec<CommittedOffset>,
        done: mpsc::SyncSender<()>,
    },
}

/// Records that are on disk now, consecutive ones of one partition.
#[derive(Debug)]
pub(super) struct Appended {
    pub(super) place: Place,
    pub(super) records: Vec<StoredRecord>,
}

/// The log that the journal belongs to. Called on the journal's thread, before records are acknowledged.
pub(super) trait Host: Send {
    /// These records and offsets are on disk.
    fn written(&self, appended: Vec<Appended>, committed: Vec<CommittedOffset>);

    /// Name of a topic.
    fn topic_name(&self, place: Place) -> String;

    /// Records that need not be kept any more.
    fn expired(&self) -> Vec<Expired>;

    /// The oldest offset that the journal still holds of a partition.
    fn shortened(&self, place: Place, oldest: i64);
}

/// Why the journal cannot be read.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the journal cannot be read: {0}")]
pub(super) struct ReadError(String);

/// A batch of consecutive records that was read.
#[derive(Debug)]
pub(super) struct ReadBatch {
    pub(super) base: i64,
    pub(super) records: Vec<StoredRecord>,
}

/// A journal that was opened and is not written to yet.
pub(super) struct OpenJournal {
    store: Store,
    /// The number of each topic, in the order in which they were given.
    pub(super) topics: Vec<i64>,
    pub(super) extents: Vec<Extent>,
    pub(super) committed: Vec<CommittedOffset>,
}

impl OpenJournal {
    /// Opens the file, or makes it. On a thread of its own: the caller may run inside an asynchronous runtime.
    pub(super) fn open(path: &Path, topics: &[(&str, i32)]) -> anyhow::Result<Self> {
        std::thread::scope(|scope| {
            let opening = scope.spawn(|| Self::open_here(path, topics));
            opening
                .join()
                .unwrap_or_else(|_| Err(anyhow::anyhow!("opening the journal has panicked")))
        })
    }

    fn open_here(path: &Path, topics: &[(&str, i32)]) -> anyhow::Result<Self> {
        let unreadable = || format!("cannot read the journal {}", path.display());
        let mut store = Store::open(path)?;
        let mut numbers = Vec::with_capacity(topics.len());
        for (name, partitions) in topics {
            let (number, found) = store.topic(name, *partitions).with_context(unreadable)?;
            anyhow::ensure!(
                found == *partitions,
                "kafka.partitions: is {partitions}, and topic {name} has {found} in the journal {}: users would move to other \
                 partitions than their histories. Set it back to {found}, or begin anew without that file",
                path.display()
            );
            numbers.push(number);
        }
        Ok(Self {
            extents: store.extents().with_context(unreadable)?,
            committed: store.committed().with_context(unreadable)?,
            topics: numbers,
            store,
        })
    }

    /// Starts the threads that write and read.
    pub(super) fn start(self, path: &Path, host: impl Host + 'static) -> anyhow::Result<Journal> {
        let queue = Arc::new(Queue::default());
        let writer = Writer::new(self.store, self.extents, Arc::clone(&queue), host);
        let writer = std::thread::Builder::new()
            .name("journal-writer".to_owned())
            .spawn(move || writer.run())
            .context("cannot start a thread")?;
        let store = Store::open_existing(path)?;
        let (reads, requests) = mpsc::channel();
        std::thread::Builder::new()
            .name("journal-reader".to_owned())
            .spawn(move || serve_reads(store, &requests))
            .context("cannot start a thread")?;
        Ok(Journal {
            queue,
            writer: Some(writer),
            reads,
        })
    }
}

/// A running journal. Dropping it writes the queue and closes the file.
pub(super) struct Journal {
    queue: Arc<Queue>,
    writer: Option<JoinHandle<()>>,
    reads: mpsc::Sender<ReadRequest>,
}

impl Journal {
    /// Queues an entry for the next group. False where the queue is full, unless the entry is `urgent`, and once the log
    /// is closed.
    pub(super) fn write(&self, entry: Entry, urgent: bool) -> bool {
        self.queue.push(entry, urgent)
    }

    /// Waits until the queue is written to disk, at most `timeout`. Whether it is.
    pub(super) fn flush(&self, timeout: Duration) -> bool {
        self.queue.wait_until_empty(timeout)
    }

    /// Why the file cannot be written at present, if so.
    pub(super) fn failure(&self) -> Option<String> {
        self.queue.failure()
    }

    /// Records from the offset `from` on, those before `until`, some at a time, oldest first.
    pub(super) fn read(
        &self,
        place: Place,
        from: i64,
        until: i64,
    ) -> Result<Vec<ReadBatch>, ReadError> {
        self.request(|answer| ReadRequest::Records {
            place,
            from,
            until,
            answer,
        })
    }

    /// The first offset of the oldest batch that was appended at this time or later.
    pub(super) fn appended_since(
        &self,
        place: Place,
        time_ms: i64,
    ) -> Result<Option<i64>, ReadError> {
        self.request(|answer| ReadRequest::AppendedSince {
            place,
            time_ms,
            answer,
        })
    }

    fn request<T>(&self, make: impl FnOnce(Answer<T>) -> ReadRequest) -> Result<T, ReadError> {
        let (answer, answered) = mpsc::sync_channel(1);
        let ended = || ReadError("its thread has ended".to_owned());
        self.reads.send(make(answer)).map_err(|_| ended())?;
        answered.recv().map_err(|_| ended())?
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.queue.close();
        if let Some(writer) = self.writer.take() {
            // The last acknowledgement may drop the log on the thread that writes.
            if writer.thread().id() != std::thread::current().id() {
                // Where it has panicked, what was not acknowledged is not in the journal.
                let _ = writer.join();
            }
        }
    }
}

type Answer<T> = mpsc::SyncSender<Result<T, ReadError>>;

enum ReadRequest {
    Records {
        place: Place,
        from: i64,
        until: i64,
        answer: Answer<Vec<ReadBatch>>,
    },
    AppendedSince {
        place: Place,
        time_ms: i64,
        answer: Answer<Option<i64>>,
    },
}

/// Reads on a thread of its own, because a caller may run inside an asynchronous runtime.
fn serve_reads(mut store: Store, requests: &mpsc::Receiver<ReadRequest>) {
    while let Ok(request) = requests.recv() {
        // The caller may have ended.
        match request {
            ReadRequest::Records {
                place,
                from,
                until,
                answer,
            } => drop(answer.send(read_records(&mut store, place, from, until))),
            ReadRequest::AppendedSince {
                place,
                time_ms,
                answer,
            } => {
                let found = store.appended_since(place, time_ms);
                drop(answer.send(found.map_err(|error| ReadError(error.to_string()))));
            }
        }
    }
    // A connection that only reads leaves nothing behind.
    let _ = store.close();
}

fn read_records(
    store: &mut Store,
    place: Place,
    from: i64,
    until: i64,
) -> Result<Vec<ReadBatch>, ReadError> {
    let rows = store
        .read(place, from, until)
        .map_err(|error| ReadError(error.to_string()))?;
    rows.into_iter()
        .map(|batch| {
            let base = batch.base;
            let intact = Some(batch).filter(StoredBatch::is_intact);
            let records =
                intact.and_then(|batch| StoredRecord::of_run(batch.records, batch.appended_ms));
            let records = records.ok_or_else(|| {
                let Place { topic, partition } = place;
                ReadError(format!(
                    "the batch of topic {topic}, partition {partition}, offset {base} is damaged"
                ))
            })?;
            Ok(ReadBatch { base, records })
        })
        .collect()
}
