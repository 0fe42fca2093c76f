//! The embedded log: topics inside this process, with a journal that keeps what was acknowledged, or in memory only.
//!
//! It has no listener: other processes cannot reach it. Invariant: with a journal, a record is acknowledged and readable
//! only when it is on disk, and a commit has succeeded only then.

mod backend;
mod cursor;
mod feed;
mod journal;
mod partition;
mod record;
mod topic;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, mpsc};
use std::time::Duration;

pub(crate) use backend::{EmbeddedBackend, open};
use cursor::Cursor;
use journal::{
    Appended, CommittedOffset, Entry, Expired, Host, Journal, OpenJournal, Place, ReadError,
};
pub(crate) use record::MAX_BYTES as MAX_RECORD_BYTES;
use topic::{Committed, Refusal, Retention, Topic};

use crate::acks::Acks;

/// A topic to be made.
#[derive(Debug, Clone)]
struct TopicSettings {
    name: String,
    retention: Retention,
}

/// Why a record was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
enum AppendError {
    /// Readers are too far behind, or too much waits to be written: try again soon.
    #[error("the embedded log is full")]
    Full,
    /// It is larger than the log takes.
    #[error("the record is larger than the log takes")]
    TooLarge,
    /// There is no such topic or partition.
    #[error("there is no partition {1} of topic {0}")]
    NoPartition(String, i32),
}

/// A record to append.
#[derive(Debug, Clone, Copy)]
struct NewRecord<'a> {
    timestamp_ms: Option<i64>,
    key: Option<&'a [u8]>,
    payload: &'a [u8],
    headers: &'a [(&'a str, Option<&'a [u8]>)],
}

/// The state that all handles share.
struct Shared {
    topics: Arc<Vec<Topic>>,
    by_name: HashMap<String, usize>,
    partitions: u16,
    journal: Option<Journal>,
}

/// A log inside this process. Clones share it; it is closed with the last of them.
#[derive(Clone)]
pub struct EmbeddedLog(Arc<Shared>);

impl std::fmt::Debug for EmbeddedLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EmbeddedLog")
            .field("journal", &self.0.journal.is_some())
            .finish_non_exhaustive()
    }
}

/// The log as its journal sees it.
struct JournalHost {
    topics: Arc<Vec<Topic>>,
    by_number: HashMap<i64, usize>,
}

impl JournalHost {
    fn topic(&self, place: Place) -> Option<&Topic> {
        self.topics.get(*self.by_number.get(&place.topic)?)
    }
}

impl Host for JournalHost {
    fn written(&self, appended: Vec<Appended>, committed: Vec<CommittedOffset>) {
        for batch in appended {
            if let Some(topic) = self.topic(batch.place) {
                topic.written(batch.place.partition, batch.records);
            }
        }
        for offset in committed {
            note(self.topic(offset.place), offset);
        }
    }

    fn topic_name(&self, place: Place) -> String {
        self.topic(place)
            .map_or_else(String::new, |topic| topic.name.clone())
    }

    fn expired(&self) -> Vec<Expired> {
        let of_topic = |topic: &Topic| {
            let number = topic.journal?;
            let of_partition = |partition| {
                let (before, before_ms) = topic.expired(partition)?;
                let place = Place {
                    topic: number,
                    partition,
                };
                Some(Expired {
                    place,
                    before,
                    before_ms,
                })
            };
            Some(
                (0..topic.partition_count())
                    .filter_map(of_partition)
                    .collect::<Vec<_>>(),
            )
        };
        self.topics.iter().filter_map(of_topic).flatten().collect()
    }

    fn shortened(&self, place: Place, oldest: i64) {
        if let Some(topic) = self.topic(place) {
            topic.set_oldest(place.partition, oldest);
        }
    }
}

fn note(topic: Option<&Topic>, offset: CommittedOffset) {
    let CommittedOffset {
        group,
        place,
        next,
        note,
    } = offset;
    if let Some(topic) = topic {
        topic.commit(place.partition, &group, Committed { next, note });
    }
}

impl EmbeddedLog {
    /// Opens a log with these topics. With the path of a journal, what that holds is there again.
    ///
    /// # Errors
    /// Where the journal cannot be read, or is that of a log with another number of partitions.
    fn open(
        topics: &[TopicSettings],
        partitions: u16,
        journal: Option<&Path>,
    ) -> anyhow::Result<Self> {
        let is_durable = |topic: &TopicSettings| topic.retention != Retention::Newest;
        let opened = match journal {
            None => None,
            Some(path) => {
                let durable = topics.iter().filter(|topic| is_durable(topic));
                let durable: Vec<(&str, i32)> = durable
                    .map(|topic| (topic.name.as_str(), i32::from(partitions)))
                    .collect();
                Some((path, OpenJournal::open(path, &durable)?))
            }
        };
        let mut numbers = opened
            .iter()
            .flat_map(|(_, journal)| journal.topics.iter().copied());
        let topics: Vec<Topic> = topics
            .iter()
            .map(|settings| {
                let number = if is_durable(settings) {
                    numbers.next()
                } else {
                    None
                };
                Topic::new(
                    &settings.name,
                    settings.retention.clone(),
                    partitions,
                    number,
                )
            })
            .collect();
        drop(numbers);
        let topics = Arc::new(topics);
        let journal = match opened {
            None => None,
            Some((path, opened)) => Some(start(path, opened, &topics)?),
        };
        let names = topics.iter().enumerate();
        let by_name = names
            .map(|(index, topic)| (topic.name.clone(), index))
            .collect();
        Ok(Self(Arc::new(Shared {
            topics,
            by_name,
            partitions,
            journal,
        })))
    }

    /// Partitions of each topic.
    fn partitions(&self) -> u16 {
        self.0.partitions
    }

    /// The index of a topic, by which everything else names it.
    fn topic(&self, name: &str) -> Option<usize> {
        self.0.by_name.get(name).copied()
    }

    /// The name of a topic.
    fn name(&self, topic: usize) -> &str {
        self.0.topics.get(topic).map_or("", |topic| &topic.name)
    }

    /// Appends a record; it ends in `acks` when it is readable, and on disk where it is to be. `urgent` ones are taken
    /// however far readers are behind.
    fn append(
        &self,
        topic: &str,
        partition: i32,
        record: &NewRecord<'_>,
        urgent: bool,
        acks: &Arc<Acks>,
    ) -> Result<(), AppendError> {
        let missing = || AppendError::NoPartition(topic.to_owned(), partition);
        let of = self.topic(topic).and_then(|index| self.0.topics.get(index));
        let of = of.ok_or_else(missing)?;
        let timestamp_ms = record.timestamp_ms.unwrap_or_else(journal::now_ms);
        let encoded = record::encode(timestamp_ms, record.key, record.payload, record.headers);
        let size = encoded.len();
        if size > MAX_RECORD_BYTES {
            return Err(AppendError::TooLarge);
        }
        let refused = |refusal| match refusal {
            Refusal::Full => AppendError::Full,
            Refusal::NoPartition => missing(),
        };
        let (Some(journal), Some(number)) = (&self.0.journal, of.journal) else {
            of.append(partition, encoded, urgent).map_err(refused)?;
            acks.begin();
            acks.end(None);
            return Ok(());
        };
        of.reserve(partition, size, urgent).map_err(refused)?;
        acks.begin();
        let entry = Entry::Record {
            place: Place {
                topic: number,
                partition,
            },
            record: encoded,
            acks: Arc::clone(acks),
        };
        if journal.write(entry, urgent) {
            return Ok(());
        }
        acks.undo();
        of.release(partition, size);
        Err(AppendError::Full)
    }

    /// Commits offsets of a group in a topic: partition, offset to go on from, note. Waits until they are on disk, where
    /// there is one. Whether they are.
    fn commit(&self, group: &str, topic: usize, offsets: Vec<(i32, Committed)>) -> bool {
        let Some(of) = self.0.topics.get(topic) else {
            return false;
        };
        let (Some(journal), Some(number)) = (&self.0.journal, of.journal) else {
            for (partition, committed) in offsets {
                of.commit(partition, group, committed);
            }
            return true;
        };
        let offset = |(partition, committed): (i32, Committed)| CommittedOffset {
            group: group.to_owned(),
            place: Place {
                topic: number,
                partition,
            },
            next: committed.next,
            note: committed.note,
        };
        let (done, written) = mpsc::sync_channel(1);
        let entry = Entry::Offsets {
            offsets: offsets.into_iter().map(offset).collect(),
            done,
        };
        journal.write(entry, true) && written.recv().is_ok()
    }

    /// What a group has committed in a partition.
    fn committed(&self, group: &str, topic: usize, partition: i32) -> Option<Committed> {
        self.0.topics.get(topic)?.committed(partition, group)
    }

    /// The oldest offset of a partition, and the one that the next record gets.
    fn watermarks(&self, topic: usize, partition: i32) -> Option<(i64, i64)> {
        self.0.topics.get(topic)?.extent(partition)
    }

    /// The first offset of a partition that was appended at this time or later, in milliseconds since 1970.
    fn appended_since(
        &self,
        topic: usize,
        partition: i32,
        time_ms: i64,
    ) -> Result<Option<i64>, ReadError> {
        let Some(of) = self.0.topics.get(topic) else {
            return Ok(None);
        };
        match (&self.0.journal, of.journal) {
            (Some(journal), Some(number)) => {
                let place = Place {
                    topic: number,
                    partition,
                };
                journal.appended_since(place, time_ms)
            }
            _ => Ok(of.appended_since(partition, time_ms)),
        }
    }

    /// A reader of this log.
    fn cursor(&self) -> Cursor {
        Cursor::new(Arc::clone(&self.0))
    }

    /// Waits until everything that was appended is on disk, at most `timeout`. Whether it is.
    fn flush(&self, timeout: Duration) -> bool {
        let journal = self.0.journal.as_ref();
        journal.is_none_or(|journal| journal.flush(timeout))
    }

    /// Why the journal cannot be written at present, if so.
    fn failure(&self) -> Option<String> {
        self.0.journal.as_ref()?.failure()
    }

    /// Whether it outlives the process.
    #[must_use]
    pub fn is_durable(&self) -> bool {
        self.0.journal.is_some()
    }

    /// The offset of a partition from which a group outside the consumer loop goes on, if it has committed one.
    #[must_use]
    pub fn committed_offset(&self, group: &str, topic: &str, partition: i32) -> Option<i64> {
        let committed = self.committed(group, self.topic(topic)?, partition)?;
        Some(committed.next)
    }

    /// Commits an offset of a group outside the consumer loop, and waits until it is on disk, where there is a journal.
    /// Whether it is.
    pub fn commit_offset(&self, group: &str, topic: &str, partition: i32, next: i64) -> bool {
        let committed = Committed { next, note: None };
        let topic = self.topic(topic);
        topic.is_some_and(|topic| self.commit(group, topic, vec![(partition, committed)]))
    }

    /// Records of a topic that its group has not committed, over all partitions.
    #[must_use]
    pub fn uncommitted(&self, topic: &str) -> usize {
        let of = self.topic(topic).and_then(|index| self.0.topics.get(index));
        of.map_or(0, Topic::uncommitted)
    }
}

/// Puts back what the journal holds, and starts it.
fn start(path: &Path, opened: OpenJournal, topics: &Arc<Vec<Topic>>) -> anyhow::Result<Journal> {
    let by_number: HashMap<i64, usize> = topics
        .iter()
        .enumerate()
        .filter_map(|(index, topic)| Some((topic.journal?, index)))
        .collect();
    let host = JournalHost {
        topics: Arc::clone(topics),
        by_number,
    };
    for extent in &opened.extents {
        if let Some(topic) = host.topic(extent.place) {
            topic.resume(extent);
        }
    }
    for offset in opened.committed.iter().cloned() {
        note(host.topic(offset.place), offset);
    }
    opened.start(path, host)
}
