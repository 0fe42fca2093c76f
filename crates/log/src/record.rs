//! A record as it is read, borrowed from the log or from a batch.

use tollgate_types::{TraceContext, headers};

use crate::batch::Headers;

/// A partition of one of the topics that are read together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicPartition {
    /// Index of the topic among those that are read.
    pub topic: usize,
    /// Number of the partition.
    pub partition: i32,
}

impl TopicPartition {
    /// A partition of the topic at this index.
    #[must_use]
    pub const fn new(topic: usize, partition: i32) -> Self {
        Self { topic, partition }
    }
}

/// One record of a batch.
#[derive(Debug, Clone, Copy)]
pub struct Record<'a> {
    /// Index of the topic that it was read from, among those that the consumer reads.
    pub topic: usize,
    /// Partition it was read from.
    pub partition: i32,
    /// Offset it was read from.
    pub offset: i64,
    /// The record's own time, milliseconds since 1970, if the producer or the broker set one.
    pub timestamp_ms: Option<i64>,
    /// Stands before the committed offset: it is read to rebuild a history, and causes nothing.
    pub replayed: bool,
    /// The key, if any.
    pub key: Option<&'a [u8]>,
    /// The payload; a record without one reads as empty.
    pub payload: &'a [u8],
    /// The headers.
    pub headers: Headers<'a>,
}

impl Record<'_> {
    /// The trace that the record's writer made it part of. Foreign producers may give the header no value, a wrong one,
    /// or several: the last valid one counts.
    #[must_use]
    pub fn trace(&self) -> Option<TraceContext> {
        if self.headers.is_empty() {
            return None;
        }
        self.headers
            .iter()
            .filter(|(name, _)| *name == headers::TRACEPARENT)
            .filter_map(|(_, value)| TraceContext::parse(value?))
            .last()
    }
}

/// A record that is still in the memory of the log's client.
#[derive(Clone, Copy)]
pub struct RawRecord<'a> {
    /// Where it was read from.
    pub at: TopicPartition,
    /// Its offset there.
    pub offset: i64,
    /// The record's own time, milliseconds since 1970.
    pub timestamp_ms: Option<i64>,
    /// The key, if any.
    pub key: Option<&'a [u8]>,
    /// The payload; a record without one reads as empty.
    pub payload: &'a [u8],
    /// The headers, in order.
    pub headers: &'a dyn HeaderList,
}

impl std::fmt::Debug for RawRecord<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // No payload: it holds what must not be logged.
        f.debug_struct("RawRecord")
            .field("at", &self.at)
            .field("offset", &self.offset)
            .finish_non_exhaustive()
    }
}

/// Headers of a record, wherever they are kept.
pub trait HeaderList {
    /// Calls `each` with name and value of every header, in order.
    fn for_each(&self, each: &mut dyn FnMut(&str, Option<&[u8]>));
}

impl HeaderList for [(String, Option<Vec<u8>>)] {
    fn for_each(&self, each: &mut dyn FnMut(&str, Option<&[u8]>)) {
        for (name, value) in self {
            each(name, value.as_deref());
        }
    }
}

impl HeaderList for Vec<(String, Option<Vec<u8>>)> {
    fn for_each(&self, each: &mut dyn FnMut(&str, Option<&[u8]>)) {
        self.as_slice().for_each(each);
    }
}

impl RawRecord<'_> {
    /// As [`Record::trace`].
    #[must_use]
    pub fn trace(&self) -> Option<TraceContext> {
        let mut found = None;
        self.headers.for_each(&mut |name, value| {
            if name == headers::TRACEPARENT {
                found = value.and_then(TraceContext::parse).or(found);
            }
        });
        found
    }

    /// A copy that outlives the poll.
    #[must_use]
    pub fn to_owned(&self, topic: &str) -> LogRecord {
        let mut headers = Vec::new();
        self.headers.for_each(&mut |name, value| {
            headers.push((name.to_owned(), value.map(<[u8]>::to_vec)));
        });
        LogRecord {
            topic: topic.to_owned(),
            partition: self.at.partition,
            offset: self.offset,
            timestamp_ms: self.timestamp_ms,
            key: self.key.map(<[u8]>::to_vec),
            payload: self.payload.to_vec(),
            headers,
        }
    }
}

/// One record, as it stands in the log, in memory of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogRecord {
    /// Topic it stands in.
    pub topic: String,
    /// Partition it stands in.
    pub partition: i32,
    /// Offset it stands at.
    pub offset: i64,
    /// The record's own time, milliseconds since 1970.
    pub timestamp_ms: Option<i64>,
    /// The key.
    pub key: Option<Vec<u8>>,
    /// The payload; a record without one reads as empty.
    pub payload: Vec<u8>,
    /// The headers, in order.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
}

impl LogRecord {
    /// The last header of this name that has a value which is text.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self
            .headers
            .iter()
            .rev()
            .find(|(found, value)| found == name && value.is_some());
        found.and_then(|(_, value)| std::str::from_utf8(value.as_deref()?).ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_several_trace_headers_the_last_valid_one_counts() {
        let good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let traced = |values: &[Option<&str>]| {
            let headers: Vec<(String, Option<Vec<u8>>)> = values
                .iter()
                .map(|value| ("traceparent".to_owned(), value.map(Into::into)))
                .collect();
            let record = RawRecord {
                at: TopicPartition::new(0, 0),
                offset: 0,
                timestamp_ms: None,
                key: None,
                payload: b"",
                headers: &headers,
            };
            record.trace()
        };
        assert!(traced(&[None, Some(good), Some("wrong"), None]).is_some());
        assert_eq!(traced(&[Some("wrong")]), None);
    }
}
