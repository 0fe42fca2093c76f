//! Records as a service gets them: copied once into one buffer, which is used again when the batch is done.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use tollgate_types::{TraceContext, headers};

use super::Reads;
use super::tracker::Tracker;

/// One record of a batch.
#[derive(Debug, Clone, Copy)]
pub struct Record<'a> {
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
    /// The trace that its writer says it is part of. Foreign producers may give the header no value, a wrong one, or
    /// several: the last that is one counts.
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

/// Headers of a record, in their order. Foreign producers may repeat names and leave values out.
#[derive(Debug, Clone, Copy)]
pub struct Headers<'a> {
    bytes: &'a [u8],
    entries: &'a [HeaderMeta],
}

impl<'a> Headers<'a> {
    /// Name and value of each.
    pub fn iter(&self) -> impl Iterator<Item = (&'a str, Option<&'a [u8]>)> + use<'a> {
        let bytes = self.bytes;
        self.entries.iter().map(move |entry| {
            let name = std::str::from_utf8(&bytes[entry.name.clone()]).unwrap_or_default();
            (name, entry.value.clone().map(|range| &bytes[range]))
        })
    }

    /// The last header of this name that has a value.
    #[must_use]
    pub fn last(&self, name: &str) -> Option<&'a [u8]> {
        self.iter()
            .filter(|(found, _)| *found == name)
            .filter_map(|(_, value)| value)
            .last()
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

#[derive(Debug)]
struct HeaderMeta {
    name: Range<usize>,
    value: Option<Range<usize>>,
}

#[derive(Debug)]
struct RecordMeta {
    partition: i32,
    offset: i64,
    timestamp_ms: Option<i64>,
    replayed: bool,
    key: Option<Range<usize>>,
    payload: Range<usize>,
    headers: Range<usize>,
}

/// The memory of a batch.
#[derive(Debug, Default)]
pub(crate) struct Buffers {
    bytes: Vec<u8>,
    records: Vec<RecordMeta>,
    headers: Vec<HeaderMeta>,
}

/// Buffers of batches that are done, to be used again.
#[derive(Debug, Default)]
pub(crate) struct Pool(Mutex<Vec<Buffers>>);

impl Pool {
    /// More than this is given back to the allocator.
    const KEPT: usize = 64;

    fn take(&self) -> Buffers {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop()
            .unwrap_or_default()
    }

    fn give(&self, mut buffers: Buffers) {
        buffers.bytes.clear();
        buffers.records.clear();
        buffers.headers.clear();
        let mut pool = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if pool.len() < Self::KEPT {
            pool.push(buffers);
        }
    }
}

/// Records in the order in which they stand in their partitions.
///
/// Whoever has caused all their effects calls [`Batch::complete`]; a batch that is dropped instead stays in hand,
/// and its records are read again by whoever gets the partition next.
#[derive(Debug)]
pub struct Batch {
    buffers: Buffers,
    epoch: u64,
    tracker: Arc<Tracker>,
    /// When its first record was read.
    opened: SystemTime,
    /// The span of having been read, where a trace that is kept is in it.
    poll: Option<Box<TraceContext>>,
}

impl Batch {
    pub(crate) fn new(epoch: u64, tracker: Arc<Tracker>) -> Self {
        Self {
            buffers: tracker.pool().take(),
            epoch,
            tracker,
            opened: SystemTime::now(),
            poll: None,
        }
    }

    pub(crate) fn push<'r>(
        &mut self,
        position: (i32, i64, Option<i64>),
        replayed: bool,
        key: Option<&[u8]>,
        payload: &[u8],
        headers: impl Iterator<Item = (&'r str, Option<&'r [u8]>)>,
    ) {
        let Buffers {
            bytes,
            records,
            headers: entries,
        } = &mut self.buffers;
        let first = entries.len();
        for (name, value) in headers {
            let name = append(bytes, name.as_bytes());
            entries.push(HeaderMeta {
                name,
                value: value.map(|value| append(bytes, value)),
            });
        }
        let (partition, offset, timestamp_ms) = position;
        let key = key.map(|key| append(bytes, key));
        let payload = append(bytes, payload);
        records.push(RecordMeta {
            partition,
            offset,
            timestamp_ms,
            replayed,
            key,
            payload,
            headers: first..entries.len(),
        });
    }

    /// The records, in order.
    pub fn iter(&self) -> impl Iterator<Item = Record<'_>> {
        let Buffers {
            bytes,
            records,
            headers,
        } = &self.buffers;
        records.iter().map(move |meta| Record {
            partition: meta.partition,
            offset: meta.offset,
            timestamp_ms: meta.timestamp_ms,
            replayed: meta.replayed,
            key: meta.key.clone().map(|range| &bytes[range]),
            payload: &bytes[meta.payload.clone()],
            headers: Headers {
                bytes,
                entries: &headers[meta.headers.clone()],
            },
        })
    }

    /// How many records.
    #[must_use]
    pub fn len(&self) -> usize {
        self.buffers.records.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.buffers.records.is_empty()
    }

    /// Keys, payloads and headers together.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.buffers.bytes.len()
    }

    /// Tells of having been read, in a span that joins the traces that are kept of those in it.
    pub fn joins(&mut self, reads: &Reads, traces: Vec<TraceContext>) {
        if traces.is_empty() || self.poll.is_some() {
            return;
        }
        if let Some(span) = reads.poll(traces, self.len()) {
            self.poll = Some(Box::new(span.context()));
            span.since(self.opened).end();
        }
    }

    /// Everything that these records caused is acknowledged: their offsets may be committed.
    pub fn complete(mut self) {
        let buffers = std::mem::take(&mut self.buffers);
        let bytes = buffers.bytes.len();
        if let Some(poll) = self.poll.as_deref() {
            let last = buffers.records.iter().filter(|meta| !meta.replayed);
            let ends = last.map(|meta| (meta.partition, meta.offset + 1)).collect();
            self.tracker.settle(*poll, ends);
        }
        let done = buffers
            .records
            .iter()
            .filter(|meta| !meta.replayed)
            .map(|meta| (meta.partition, meta.offset));
        self.tracker
            .complete(self.epoch, done, buffers.records.len(), bytes);
        self.tracker.pool().give(buffers);
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        self.tracker
            .put_down(self.buffers.records.len(), self.buffers.bytes.len());
    }
}

fn append(bytes: &mut Vec<u8>, part: &[u8]) -> Range<usize> {
    let start = bytes.len();
    bytes.extend_from_slice(part);
    start..bytes.len()
}
