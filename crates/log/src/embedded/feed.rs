//! Reads the embedded log: its implementation of [`Feed`] for the consumer loop and the readers.
//!
//! Other processes cannot read it, so a group has no members to share partitions with: a subscriber gets all of them.

use std::time::Duration;

use super::EmbeddedLog;
use super::cursor::{Cursor, Step};
use super::record::RecordView;
use super::topic::Committed;
use crate::consumer::feed::{
    CommitOffset, CommittedOffset, Feed, FeedEvent, FeedOptions, OffsetCommitter, OutOfRange,
    Polled, StartOffset,
};
use crate::error::LogError;
use crate::record::{HeaderList, RawRecord, TopicPartition};

impl HeaderList for RecordView<'_> {
    fn for_each(&self, each: &mut dyn FnMut(&str, Option<&[u8]>)) {
        self.headers().for_each(|(name, value)| each(name, value));
    }
}

/// A reader of the embedded log.
pub(super) struct EmbeddedFeed {
    log: EmbeddedLog,
    cursor: Cursor,
    options: FeedOptions,
    /// The log's index of each topic of the feed; none where it does not exist.
    topics: Vec<Option<usize>>,
    /// The next poll reports that all partitions are assigned.
    subscribed: bool,
}

impl EmbeddedFeed {
    pub(super) fn new(log: EmbeddedLog, options: FeedOptions) -> Self {
        let topics = options.topics.iter().map(|name| log.topic(name)).collect();
        Self {
            cursor: log.cursor(),
            log,
            options,
            topics,
            subscribed: false,
        }
    }

    /// The log's index of a topic of this feed.
    fn index(&self, topic: usize) -> Result<usize, LogError> {
        let name = || self.options.topics.get(topic).cloned().unwrap_or_default();
        let index = self.topics.get(topic).copied().flatten();
        index.ok_or_else(|| LogError::NoTopic(name()))
    }

    /// Where to read from.
    fn start(&self, at: TopicPartition, start: StartOffset) -> Result<i64, LogError> {
        let index = self.index(at.topic)?;
        let (oldest, next) = self.extent(index, at.partition)?;
        match start {
            StartOffset::Oldest => Ok(oldest),
            StartOffset::At(offset) if (oldest..=next).contains(&offset) => Ok(offset),
            StartOffset::At(offset) => match self.options.out_of_range {
                OutOfRange::Oldest => Ok(oldest),
                OutOfRange::Newest => Ok(next),
                OutOfRange::Fail => Err(LogError::Refused(format!(
                    "topic {} has no record at offset {offset} of partition {}, with which group {} has to go on; \
                     it has those from {oldest} to {next}",
                    self.log.name(index),
                    at.partition,
                    self.options.group
                ))),
            },
        }
    }

    fn extent(&self, index: usize, partition: i32) -> Result<(i64, i64), LogError> {
        self.log.watermarks(index, partition).ok_or_else(|| {
            let topic = self.log.name(index);
            LogError::Refused(format!("topic {topic} has no partition {partition}"))
        })
    }

    /// Every partition of every topic.
    fn all(&self) -> Vec<TopicPartition> {
        let partitions = i32::from(self.log.partitions());
        let topics = 0..self.topics.len();
        topics
            .flat_map(|topic| {
                (0..partitions).map(move |partition| TopicPartition::new(topic, partition))
            })
            .collect()
    }
}

impl Feed for EmbeddedFeed {
    fn subscribe(&mut self) -> Result<(), LogError> {
        self.subscribed = true;
        Ok(())
    }

    fn poll(&mut self, timeout: Duration, take: &mut dyn FnMut(Polled<'_>)) {
        if std::mem::take(&mut self.subscribed) {
            return take(Polled::Event(FeedEvent::Assigned(self.all())));
        }
        let own = |index: usize| {
            let mut topics = self.topics.iter();
            topics.position(|topic| *topic == Some(index)).unwrap_or(0)
        };
        match self.cursor.next(timeout) {
            Ok(Step::Record {
                topic,
                partition,
                offset,
                record,
            }) => {
                let view = record.view();
                take(Polled::Record(RawRecord {
                    at: TopicPartition::new(own(topic), partition),
                    offset,
                    timestamp_ms: Some(view.timestamp_ms),
                    key: view.key,
                    payload: view.payload,
                    headers: &view,
                }));
            }
            Ok(Step::End { topic, partition }) => {
                let at = TopicPartition::new(own(topic), partition);
                take(Polled::Event(FeedEvent::EndOfPartition(at)));
            }
            Ok(Step::Nothing) => take(Polled::Nothing),
            // The journal's file is damaged or gone: another attempt would meet the same.
            Err(error) => take(Polled::Event(FeedEvent::Error(LogError::Refused(
                error.to_string(),
            )))),
        }
    }

    fn assign(&mut self, starts: &[(TopicPartition, StartOffset)]) -> Result<(), LogError> {
        let places = starts
            .iter()
            .map(|(at, start)| {
                Ok((
                    self.index(at.topic)?,
                    at.partition,
                    self.start(*at, *start)?,
                ))
            })
            .collect::<Result<Vec<_>, LogError>>()?;
        self.cursor.assign(places);
        Ok(())
    }

    fn unassign(&mut self) -> Result<(), LogError> {
        self.cursor.unassign();
        Ok(())
    }

    fn pause(&mut self) -> Result<(), LogError> {
        self.cursor.set_paused(true);
        Ok(())
    }

    fn resume(&mut self) -> Result<(), LogError> {
        self.cursor.set_paused(false);
        Ok(())
    }

    fn partition_count(&mut self, topic: usize) -> Result<i32, LogError> {
        self.index(topic)?;
        Ok(i32::from(self.log.partitions()))
    }

    fn committed(
        &mut self,
        partitions: &[TopicPartition],
    ) -> Result<Vec<CommittedOffset>, LogError> {
        let committed = |at: &TopicPartition| {
            let index = self.index(at.topic)?;
            let found = self.log.committed(&self.options.group, index, at.partition);
            Ok(CommittedOffset {
                partition: *at,
                offset: found.as_ref().map(|found| found.next),
                note: found.and_then(|found| found.note).unwrap_or_default(),
            })
        };
        partitions.iter().map(committed).collect()
    }

    fn watermarks(&mut self, partition: TopicPartition) -> Result<(i64, i64), LogError> {
        let index = self.index(partition.topic)?;
        self.extent(index, partition.partition)
    }

    fn offsets_for_time(
        &mut self,
        partitions: &[TopicPartition],
        since_ms: i64,
    ) -> Result<Vec<Option<i64>>, LogError> {
        let first = |at: &TopicPartition| {
            let index = self.index(at.topic)?;
            self.log
                .appended_since(index, at.partition, since_ms)
                .map_err(LogError::client("cannot find where the history begins"))
        };
        partitions.iter().map(first).collect()
    }

    fn committer(&self) -> Box<dyn OffsetCommitter> {
        Box::new(EmbeddedCommitter {
            log: self.log.clone(),
            group: self.options.group.clone(),
            topics: self.topics.clone(),
        })
    }
}

struct EmbeddedCommitter {
    log: EmbeddedLog,
    group: String,
    topics: Vec<Option<usize>>,
}

impl OffsetCommitter for EmbeddedCommitter {
    fn commit(&mut self, offsets: &[CommitOffset]) -> Result<(), LogError> {
        for (feed_topic, index) in self.topics.iter().enumerate() {
            let of_topic: Vec<(i32, Committed)> = offsets
                .iter()
                .filter(|commit| commit.partition.topic == feed_topic)
                .map(|commit| {
                    let committed = Committed {
                        next: commit.offset,
                        note: commit.note.clone(),
                    };
                    (commit.partition.partition, committed)
                })
                .collect();
            if let Some(index) = index
                && !of_topic.is_empty()
                && !self.log.commit(&self.group, *index, of_topic)
            {
                return Err(LogError::Refused("the journal was closed".to_owned()));
            }
        }
        Ok(())
    }
}
