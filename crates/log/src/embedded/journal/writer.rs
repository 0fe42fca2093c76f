//! The thread that writes the journal, and the queue in front of it.

use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::{Duration, Instant};

use metrics::{counter, histogram};

use super::store::{Batch, CommittedOffset, Extent, Place, Store};
use super::{Appended, CLOSE, Entry, Host};
use crate::acks::{Acks, DeliveryFailure};
use crate::embedded::record::Run;

/// Most bytes that wait to be written.
const QUEUE_BYTES: usize = 64 * 1024 * 1024;
/// A row of the journal is complete when it has so many bytes: readers read whole rows.
const ROW_BYTES: usize = 256 * 1024;
/// Time between deletions of expired records.
const RETENTION_INTERVAL: Duration = Duration::from_secs(1);
/// Rows of one partition that are deleted at a time, so that no group waits long behind them.
const DELETED_ROWS: i64 = 500;
/// Before a group that could not be written is tried again, at first and at most.
const RETRY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

#[derive(Default)]
struct Waiting {
    entries: Vec<Entry>,
    bytes: usize,
    /// A group is being written.
    is_writing: bool,
    closed: Option<Instant>,
    failure: Option<String>,
}

/// The entries that wait to be written.
#[derive(Default)]
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    arrived: Condvar,
    emptied: Condvar,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn push(&self, entry: Entry, urgent: bool) -> bool {
        let size = match &entry {
            Entry::Record { record, .. } => record.len(),
            Entry::Offsets { .. } => 0,
        };
        let mut waiting = self.lock();
        if waiting.closed.is_some() || !urgent && size > 0 && waiting.bytes + size > QUEUE_BYTES {
            return false;
        }
        waiting.bytes += size;
        waiting.entries.push(entry);
        let first = waiting.entries.len() == 1;
        drop(waiting);
        if first {
            self.arrived.notify_one();
        }
        true
    }

    pub(super) fn wait_until_empty(&self, timeout: Duration) -> bool {
        let deadline = Instant::now() + timeout;
        let mut waiting = self.lock();
        while waiting.is_writing || !waiting.entries.is_empty() {
            let Some(left) = deadline.checked_duration_since(Instant::now()) else {
                return false;
            };
            let result = self.emptied.wait_timeout(waiting, left);
            waiting = result.unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    pub(super) fn failure(&self) -> Option<String> {
        self.lock().failure.clone()
    }

    pub(super) fn close(&self) {
        self.lock().closed = Some(Instant::now());
        self.arrived.notify_one();
    }

    /// All entries, waited for until the time `until`. None: the queue is closed and empty.
    fn take(&self, until: Instant) -> Option<Vec<Entry>> {
        let mut waiting = self.lock();
        loop {
            if !waiting.entries.is_empty() {
                waiting.bytes = 0;
                waiting.is_writing = true;
                return Some(std::mem::take(&mut waiting.entries));
            }
            if waiting.closed.is_some() {
                return None;
            }
            let Some(left) = until.checked_duration_since(Instant::now()) else {
                return Some(Vec::new());
            };
            let result = self.arrived.wait_timeout(waiting, left);
            waiting = result.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// The entries that were taken are written, or have failed.
    fn written(&self) {
        self.lock().is_writing = false;
        self.emptied.notify_all();
    }

    fn set_failure(&self, failure: Option<String>) {
        self.lock().failure = failure;
    }

    /// Waits before the next attempt. False where the log was closed too long ago to try again.
    fn wait_to_retry(&self, pause: Duration) -> bool {
        let deadline = Instant::now() + pause;
        let mut waiting = self.lock();
        loop {
            if waiting
                .closed
                .is_some_and(|closed| closed.elapsed() > CLOSE)
            {
                return false;
            }
            let Some(left) = deadline.checked_duration_since(Instant::now()) else {
                return true;
            };
            let result = self.arrived.wait_timeout(waiting, left);
            waiting = result.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// Entries that are written in one transaction.
#[derive(Default)]
struct Group {
    batches: Vec<Batch>,
    /// The batch of each partition that takes its next record.
    open: HashMap<Place, usize>,
    committed: Vec<CommittedOffset>,
    acks: Vec<(Place, Arc<Acks>)>,
    commits: Vec<mpsc::SyncSender<()>>,
}

/// Where a partition stands.
#[derive(Debug, Clone, Copy, Default)]
struct End {
    next: i64,
    appended_ms: i64,
}

pub(super) struct Writer<H> {
    store: Store,
    ends: HashMap<Place, End>,
    queue: Arc<Queue>,
    host: H,
}

impl<H: Host> Writer<H> {
    pub(super) fn new(store: Store, extents: Vec<Extent>, queue: Arc<Queue>, host: H) -> Self {
        let end = |extent: Extent| {
            let end = End {
                next: extent.next,
                appended_ms: extent.last_appended_ms,
            };
            (extent.place, end)
        };
        Self {
            store,
            ends: extents.into_iter().map(end).collect(),
            queue,
            host,
        }
    }

    /// Writes until the queue is closed and empty.
    pub(super) fn run(mut self) {
        let mut next_retention = Instant::now() + RETENTION_INTERVAL;
        while let Some(entries) = self.queue.take(next_retention) {
            if !entries.is_empty() {
                let group = self.group(entries);
                if self.write(&group) {
                    self.publish(group);
                } else {
                    self.fail(group);
                }
                self.queue.written();
            }
            if Instant::now() >= next_retention {
                self.delete_expired();
                next_retention = Instant::now() + RETENTION_INTERVAL;
            }
        }
        if let Err(error) = self.store.close() {
            tracing::warn!(%error, "closing the journal");
        }
    }

    /// Gives each record its offset.
    fn group(&mut self, entries: Vec<Entry>) -> Group {
        let now_ms = now_ms();
        let mut group = Group::default();
        for entry in entries {
            match entry {
                Entry::Record {
                    place,
                    record,
                    acks,
                } => {
                    let end = self.ends.entry(place).or_default();
                    end.appended_ms = end.appended_ms.max(now_ms);
                    group.add(place, *end, &record);
                    end.next += 1;
                    group.acks.push((place, acks));
                }
                Entry::Offsets { offsets, done } => {
                    group.committed.extend(offsets);
                    group.commits.push(done);
                }
            }
        }
        group
    }

    /// Tries until it is written. False where the log was closed meanwhile.
    fn write(&mut self, group: &Group) -> bool {
        let mut pause = RETRY.0;
        loop {
            let began = Instant::now();
            match self.store.append(&group.batches, &group.committed) {
                Ok(()) => {
                    histogram!("tollgate_log_journal_commit_seconds").record(began.elapsed());
                    counter!("tollgate_log_journal_records_total")
                        .increment(group.acks.len() as u64);
                    self.queue.set_failure(None);
                    return true;
                }
                Err(error) => {
                    counter!("tollgate_log_journal_failures_total").increment(1);
                    tracing::error!(%error, "the journal cannot be written; it is tried again");
                    self.queue.set_failure(Some(error.to_string()));
                }
            }
            if !self.queue.wait_to_retry(pause) {
                let records = group.acks.len();
                tracing::error!(records, "not written to the journal, and not acknowledged");
                return false;
            }
            pause = (pause * 2).min(RETRY.1);
        }
    }

    /// Makes the records of a group readable, then acknowledges them.
    fn publish(&self, group: Group) {
        let appended = group.batches.into_iter().map(|batch| Appended {
            place: batch.place,
            records: batch.records.into_records(batch.appended_ms),
        });
        self.host.written(appended.collect(), group.committed);
        group.acks.into_iter().for_each(|(_, acks)| acks.end(None));
        for done in group.commits {
            // The thread that commits waits for it, unless its service has ended.
            let _ = done.send(());
        }
    }

    /// The log was closed while its journal could not be written.
    fn fail(&self, group: Group) {
        for (place, acks) in group.acks {
            counter!("tollgate_log_delivery_failures_total").increment(1);
            acks.end(Some(DeliveryFailure {
                topic: self.host.topic_name(place),
                reason: "the journal could not be written".to_owned(),
            }));
        }
    }

    fn delete_expired(&mut self) {
        for expired in self.host.expired() {
            match self.store.delete(expired, DELETED_ROWS) {
                Ok((0, _)) => {}
                Ok((_, oldest)) => self.host.shortened(expired.place, oldest),
                // The next group meets the same error, and reports it.
                Err(error) => tracing::debug!(%error, "deleting from the journal"),
            }
        }
    }
}

impl Group {
    fn add(&mut self, place: Place, end: End, record: &[u8]) {
        let open = self.open.get(&place).copied();
        let index =
            match open.filter(|index| self.batches[*index].records.bytes().len() < ROW_BYTES) {
                Some(index) => index,
                None => {
                    self.batches.push(Batch {
                        place,
                        base: end.next,
                        next: end.next,
                        appended_ms: end.appended_ms,
                        records: Run::default(),
                    });
                    self.open.insert(place, self.batches.len() - 1);
                    self.batches.len() - 1
                }
            };
        let batch = &mut self.batches[index];
        batch.records.push(record);
        batch.next += 1;
    }
}

/// Milliseconds since 1970.
pub(in crate::embedded) fn now_ms() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    i64::try_from(now.unwrap_or_default().as_millis()).unwrap_or(i64::MAX)
}
