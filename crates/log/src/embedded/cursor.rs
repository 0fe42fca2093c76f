//! The position of a reader in its partitions: what it reads next, from memory or from the journal, and when it waits.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::Shared;
use super::journal::{Place, ReadError};
use super::record::StoredRecord;
use super::topic::{Fetched, Signal, Topic};

static IDS: AtomicU64 = AtomicU64::new(0);

/// A partition that is read.
#[derive(Debug)]
struct Track {
    topic: usize,
    partition: i32,
    /// The offset that is fetched next.
    position: i64,
    /// That it stands at the end was reported.
    at_end: bool,
    fetched: VecDeque<StoredRecord>,
    /// The offset of the first of these.
    next: i64,
}

/// What comes next.
#[derive(Debug)]
pub(super) enum Step {
    /// A record.
    Record {
        topic: usize,
        partition: i32,
        offset: i64,
        record: StoredRecord,
    },
    /// Every record that the partition holds now was read. Comes once for each assignment.
    End { topic: usize, partition: i32 },
    /// Nothing came in time.
    Nothing,
}

/// See the module.
pub(super) struct Cursor {
    log: Arc<Shared>,
    id: u64,
    signal: Arc<Signal>,
    tracks: Vec<Track>,
    /// Index of the partition that is looked at next.
    turn: usize,
    paused: bool,
}

impl Cursor {
    /// One that reads nothing yet.
    pub(super) fn new(log: Arc<Shared>) -> Self {
        Self {
            log,
            id: IDS.fetch_add(1, Ordering::Relaxed),
            signal: Arc::default(),
            tracks: Vec::new(),
            turn: 0,
            paused: false,
        }
    }

    /// Reads these partitions from these offsets on, and no others: topic, partition, offset.
    pub(super) fn assign(&mut self, places: impl IntoIterator<Item = (usize, i32, i64)>) {
        self.unassign();
        for (topic, partition, position) in places {
            let Some(of) = self.log.topics.get(topic) else {
                continue;
            };
            of.attach(partition, self.id, position, &self.signal);
            self.tracks.push(Track {
                topic,
                partition,
                position,
                at_end: false,
                fetched: VecDeque::new(),
                next: position,
            });
        }
    }

    /// Reads nothing any more.
    pub(super) fn unassign(&mut self) {
        for track in self.tracks.drain(..) {
            if let Some(topic) = self.log.topics.get(track.topic) {
                topic.detach(self.id);
            }
        }
        self.turn = 0;
        self.paused = false;
    }

    /// Delivers no records of any partition, or delivers them again.
    pub(super) fn set_paused(&mut self, paused: bool) {
        self.paused = paused;
    }

    /// The next record, or end of a partition, waited for at most `timeout`.
    pub(super) fn next(&mut self, timeout: Duration) -> Result<Step, ReadError> {
        if let Some(step) = self.look()? {
            return Ok(step);
        }
        if timeout.is_zero() {
            return Ok(Step::Nothing);
        }
        let deadline = Instant::now() + timeout;
        loop {
            self.signal.arm();
            if let Some(step) = self.look()? {
                return Ok(step);
            }
            if Instant::now() >= deadline {
                return Ok(Step::Nothing);
            }
            self.signal.wait_until(deadline);
        }
    }

    /// What is there, each partition in its turn.
    fn look(&mut self) -> Result<Option<Step>, ReadError> {
        if self.paused {
            return Ok(None);
        }
        for _ in 0..self.tracks.len() {
            let track = &mut self.tracks[self.turn];
            let mut is_at_end = false;
            // What is missing in the journal is in memory.
            while track.fetched.is_empty() && !is_at_end {
                is_at_end = track.fetch(&self.log, self.id)?;
            }
            let step = track.step(is_at_end);
            // The others have their turn after each fetch, so that a long backlog does not hold them back.
            if track.fetched.is_empty() {
                self.turn = (self.turn + 1) % self.tracks.len();
            }
            if step.is_some() {
                return Ok(step);
            }
        }
        Ok(None)
    }
}

impl Drop for Cursor {
    fn drop(&mut self) {
        self.unassign();
    }
}

impl Track {
    /// Takes the next records. Whether there are none yet.
    fn fetch(&mut self, log: &Shared, id: u64) -> Result<bool, ReadError> {
        let Some(topic) = log.topics.get(self.topic) else {
            return Ok(true);
        };
        match topic.fetch(self.partition, id, self.position) {
            Fetched::End => return Ok(true),
            Fetched::Records(first, records) => self.take(first, records),
            Fetched::InJournal { until } => self.fetch_from_journal(log, topic, id, until)?,
        }
        Ok(false)
    }

    fn fetch_from_journal(
        &mut self,
        log: &Shared,
        topic: &Topic,
        id: u64,
        until: i64,
    ) -> Result<(), ReadError> {
        let (Some(journal), Some(number)) = (&log.journal, topic.journal) else {
            return Ok(());
        };
        let place = Place {
            topic: number,
            partition: self.partition,
        };
        let batches = journal.read(place, self.position, until)?;
        let mut first = None;
        let mut records = Vec::new();
        for batch in batches {
            // The first batch may begin before the offset that is wanted.
            let skip = usize::try_from(self.position - batch.base).unwrap_or(0);
            let from = batch.base.max(self.position);
            let mut wanted = batch.records.into_iter().skip(skip).peekable();
            if wanted.peek().is_some() {
                first.get_or_insert(from);
                records.extend(wanted);
            }
        }
        // Where nothing is left before it, what is in memory is next.
        self.take(first.unwrap_or(until), records);
        topic.advance(self.partition, id, self.position);
        Ok(())
    }

    fn take(&mut self, first: i64, records: Vec<StoredRecord>) {
        self.next = first;
        self.position = first + i64::try_from(records.len()).unwrap_or(0);
        self.fetched = records.into();
    }

    fn step(&mut self, is_at_end: bool) -> Option<Step> {
        let (topic, partition) = (self.topic, self.partition);
        if let Some(record) = self.fetched.pop_front() {
            let offset = self.next;
            self.next += 1;
            return Some(Step::Record {
                topic,
                partition,
                offset,
                record,
            });
        }
        if !is_at_end || std::mem::replace(&mut self.at_end, true) {
            return None;
        }
        Some(Step::End { topic, partition })
    }
}
