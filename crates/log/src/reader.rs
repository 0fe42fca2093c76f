//! Reading topics outside the consumer loop: replies from their end, imports and dead letters from their beginning.
//!
//! Nothing is ever committed here. Invariant: [`ReaderEvent::Revoked`] is delivered before another member of the
//! group gets the partitions.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::Log;
use crate::consumer::feed::{
    Feed, FeedEvent, FeedOptions, Membership, OutOfRange, Polled, StartOffset,
};
use crate::error::LogError;
use crate::record::{LogRecord, RawRecord, TopicPartition};

/// What a reader has found.
#[derive(Debug)]
pub enum ReaderEvent<'a> {
    /// The next record.
    Record(RawRecord<'a>),
    /// Everything that this partition holds now was read.
    CaughtUp(TopicPartition),
    /// The group has given these partitions, which are read from their beginning.
    Assigned(&'a [TopicPartition]),
    /// The group has taken these partitions away.
    Revoked(&'a [TopicPartition]),
}

/// Reads partitions of some topics.
pub struct TopicReader {
    feed: Box<dyn Feed>,
    topics: Vec<String>,
    /// What the first poll assigns. Only then, so that [`TopicReader::read_all`] looks up the ends before anything is
    /// read: a partition that is reported as caught up has then been read up to its end.
    unassigned: Vec<(TopicPartition, StartOffset)>,
}

impl std::fmt::Debug for TopicReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TopicReader")
            .field("topics", &self.topics)
            .finish_non_exhaustive()
    }
}

impl Log {
    /// A reader of all partitions of these topics, from their beginning.
    ///
    /// # Errors
    /// Where a topic does not exist, or no broker answers.
    pub fn reader(&self, topics: &[&str]) -> Result<TopicReader, LogError> {
        let mut reader =
            self.open_reader("reader", Membership::Outside, OutOfRange::Oldest, topics)?;
        for topic in 0..topics.len() {
            for partition in 0..reader.feed.partition_count(topic)? {
                let partition = TopicPartition::new(topic, partition);
                reader.unassigned.push((partition, StartOffset::Oldest));
            }
        }
        Ok(reader)
    }

    /// A reader of one partition of this topic, from its end: it reads nothing before [`TopicReader::start_at_end`].
    ///
    /// # Errors
    /// Where the client cannot be made of the settings.
    pub fn tail_reader(&self, topic: &str) -> Result<TopicReader, LogError> {
        self.open_reader("reader", Membership::Outside, OutOfRange::Newest, &[topic])
    }

    /// A reader that shares the partitions of these topics with the other readers of this group. Each partition is read
    /// from its beginning by whoever gets it.
    ///
    /// # Errors
    /// Where the client cannot be made of the settings.
    pub fn shared_reader(&self, group: &str, topics: &[&str]) -> Result<TopicReader, LogError> {
        let mut reader = self.open_reader(group, Membership::Member, OutOfRange::Oldest, topics)?;
        reader.feed.subscribe()?;
        Ok(reader)
    }

    /// The consumer group of readers of that name.
    pub(crate) fn reader_group(&self, name: &str) -> String {
        format!("{}tollgate-{name}", self.config().topic_prefix)
    }

    fn open_reader(
        &self,
        group: &str,
        membership: Membership,
        out_of_range: OutOfRange,
        topics: &[&str],
    ) -> Result<TopicReader, LogError> {
        let topics: Vec<String> = topics.iter().map(|topic| (*topic).to_owned()).collect();
        let feed = self.backend().feed(FeedOptions {
            stage: None,
            group: self.reader_group(group),
            membership,
            out_of_range,
            topics: topics.clone(),
        })?;
        Ok(TopicReader {
            feed,
            topics,
            unassigned: Vec::new(),
        })
    }
}

impl TopicReader {
    /// How many partitions the topic at this index has.
    ///
    /// # Errors
    /// Where the topic does not exist, or no broker answers.
    pub fn partition_count(&mut self, topic: usize) -> Result<i32, LogError> {
        self.feed.partition_count(topic)
    }

    /// Reads this partition of the first topic, and no other, from its end: whatever is written from now on is read,
    /// however late the first poll is.
    ///
    /// # Errors
    /// Where no broker answers.
    pub fn start_at_end(&mut self, partition: i32) -> Result<(), LogError> {
        let partition = TopicPartition::new(0, partition);
        // An offset and not "the end", which would be looked up by the first poll.
        let (_, end) = self.feed.watermarks(partition)?;
        self.feed.assign(&[(partition, StartOffset::At(end))])
    }

    /// Waits for the next event, at most `timeout`, and passes it to `each`.
    ///
    /// # Errors
    /// What the client reports. It was logged and counted already, and unless it is [`LogError::Refused`] the next poll
    /// may succeed.
    pub fn poll(
        &mut self,
        timeout: Duration,
        each: &mut dyn FnMut(ReaderEvent<'_>),
    ) -> Result<(), LogError> {
        if !self.unassigned.is_empty() {
            self.feed.assign(&self.unassigned)?;
            self.unassigned.clear();
        }
        let mut event = None;
        self.feed.poll(timeout, &mut |polled| match polled {
            Polled::Record(record) => each(ReaderEvent::Record(record)),
            Polled::Event(other) => event = Some(other),
            Polled::Nothing => {}
        });
        match event {
            None => Ok(()),
            Some(FeedEvent::EndOfPartition(partition)) => {
                each(ReaderEvent::CaughtUp(partition));
                Ok(())
            }
            Some(FeedEvent::Revoked { partitions, .. }) => {
                each(ReaderEvent::Revoked(&partitions));
                self.feed.unassign()
            }
            Some(FeedEvent::Assigned(partitions)) => {
                each(ReaderEvent::Assigned(&partitions));
                let starts: Vec<_> = partitions
                    .into_iter()
                    .map(|partition| (partition, StartOffset::Oldest))
                    .collect();
                self.feed.assign(&starts)
            }
            Some(FeedEvent::Error(error)) => Err(error),
        }
    }

    /// The next record, waited for at most `timeout`.
    ///
    /// # Errors
    /// Where the log cannot be read.
    pub fn next(&mut self, timeout: Duration) -> Result<Option<LogRecord>, LogError> {
        let deadline = Instant::now() + timeout;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let topics = std::mem::take(&mut self.topics);
            let mut found = None;
            let polled = self.poll(left, &mut |event| {
                if let ReaderEvent::Record(record) = event {
                    let topic = topics.get(record.at.topic).map_or("", String::as_str);
                    found = Some(record.to_owned(topic));
                }
            });
            self.topics = topics;
            polled?;
            if found.is_some() || left.is_zero() {
                return Ok(found);
            }
        }
    }

    /// Reads from the beginning everything that is there now, and stops where `each` fails. For a reader of
    /// [`Log::reader`] that has read nothing yet.
    ///
    /// # Errors
    /// Where the log cannot be read, or what `each` returns.
    pub fn read_all<E: From<LogError>>(
        &mut self,
        mut each: impl FnMut(LogRecord) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut open = HashMap::new();
        for (partition, _) in &self.unassigned {
            let (oldest, end) = self.feed.watermarks(*partition)?;
            if oldest < end {
                open.insert(*partition, end);
            }
        }
        while !open.is_empty() {
            let topics = std::mem::take(&mut self.topics);
            let mut result = Ok(());
            let polled = self.poll(Duration::from_millis(100), &mut |event| match event {
                ReaderEvent::Record(record) => {
                    let Some(end) = open.get(&record.at).copied() else {
                        return;
                    };
                    if record.offset + 1 >= end {
                        open.remove(&record.at);
                    }
                    if record.offset < end {
                        let topic = topics.get(record.at.topic).map_or("", String::as_str);
                        result = each(record.to_owned(topic));
                    }
                }
                // The last offsets may be of no record: a broker keeps some for itself.
                ReaderEvent::CaughtUp(partition) => drop(open.remove(&partition)),
                ReaderEvent::Assigned(_) | ReaderEvent::Revoked(_) => {}
            });
            self.topics = topics;
            polled?;
            result?;
        }
        Ok(())
    }

    /// Where the log of a topic of this reader ends now, over all partitions: how many records there are if none was
    /// deleted.
    ///
    /// # Errors
    /// Where the topic is not one of this reader's, or no broker answers.
    pub fn end(&mut self, topic: &str) -> Result<i64, LogError> {
        let index = self.topics.iter().position(|known| known == topic);
        let index = index.ok_or_else(|| LogError::NoTopic(topic.to_owned()))?;
        (0..self.feed.partition_count(index)?)
            .map(|partition| self.feed.watermarks(TopicPartition::new(index, partition)))
            .map(|watermarks| watermarks.map(|(_, end)| end))
            .sum()
    }
}
