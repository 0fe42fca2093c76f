//! Records as a service gets them: copied once into one buffer, which is reused when the batch is done.
//!
//! Invariant: a batch takes part of the in-flight budget until it is completed or dropped, and only completing it lets
//! its offsets be committed.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use tollgate_types::TraceContext;

use crate::Reads;
use crate::in_flight::{InFlight, Usage};
use crate::record::{RawRecord, Record, TopicPartition};

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

    /// Bytes of all names and values.
    #[must_use]
    pub fn size(&self) -> usize {
        let sizes = self.entries.iter().map(|entry| {
            let value = entry.value.as_ref().map_or(0, Range::len);
            entry.name.len() + value
        });
        sizes.sum()
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
    at: TopicPartition,
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

/// Buffers of batches that are done, to be reused.
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
/// Whoever has caused all their effects calls [`Batch::complete`]. Dropping a batch instead releases its records from
/// the in-flight budget, but leaves them uncommitted: they are read again by the next owner of the partition.
#[derive(Debug)]
pub struct Batch {
    buffers: Buffers,
    epoch: u64,
    in_flight: Arc<InFlight>,
    /// When its first record was read.
    opened: SystemTime,
    /// The span of the poll, where a trace that is kept is in it.
    poll: Option<Box<TraceContext>>,
}

impl Batch {
    pub(crate) fn new(in_flight: &Arc<InFlight>) -> Self {
        Self {
            buffers: in_flight.pool().take(),
            epoch: in_flight.epoch(),
            in_flight: Arc::clone(in_flight),
            opened: SystemTime::now(),
            poll: None,
        }
    }

    /// Copies a record into the batch. The memory that it takes.
    pub(crate) fn push(&mut self, record: &RawRecord<'_>, replayed: bool) -> usize {
        let Buffers {
            bytes,
            records,
            headers: entries,
        } = &mut self.buffers;
        let (before, first) = (bytes.len(), entries.len());
        record.headers.for_each(&mut |name, value| {
            let name = append(bytes, name.as_bytes());
            entries.push(HeaderMeta {
                name,
                value: value.map(|value| append(bytes, value)),
            });
        });
        let key = record.key.map(|key| append(bytes, key));
        let payload = append(bytes, record.payload);
        records.push(RecordMeta {
            at: record.at,
            offset: record.offset,
            timestamp_ms: record.timestamp_ms,
            replayed,
            key,
            payload,
            headers: first..entries.len(),
        });
        bytes.len() - before
    }

    /// The records, in order.
    pub fn iter(&self) -> impl Iterator<Item = Record<'_>> {
        let Buffers {
            bytes,
            records,
            headers,
        } = &self.buffers;
        records.iter().map(move |meta| Record {
            topic: meta.at.topic,
            partition: meta.at.partition,
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

    /// Records the poll as a span that links to the traces that are kept of those in it.
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
        let released = self.usage();
        let buffers = std::mem::take(&mut self.buffers);
        if let Some(poll) = self.poll.as_deref() {
            let last = buffers.records.iter().filter(|meta| !meta.replayed);
            let ends = last.map(|meta| (meta.at, meta.offset + 1)).collect();
            self.in_flight.finish_poll(*poll, ends);
        }
        let done = buffers
            .records
            .iter()
            .filter(|meta| !meta.replayed)
            .map(|meta| (meta.at, meta.offset));
        self.in_flight.complete(self.epoch, done, released);
        self.in_flight.pool().give(buffers);
    }

    fn usage(&self) -> Usage {
        Usage {
            records: self.len(),
            bytes: self.bytes(),
        }
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        self.in_flight.release(self.usage());
    }
}

fn append(bytes: &mut Vec<u8>, part: &[u8]) -> Range<usize> {
    let start = bytes.len();
    bytes.extend_from_slice(part);
    start..bytes.len()
}
