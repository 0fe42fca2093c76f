//! A record as the embedded log stores it: one sequence of bytes, the same in memory and in the journal.
//!
//! Layout, numbers little-endian: length of the rest (u32), timestamp in milliseconds (i64), length of the key (u32,
//! `ABSENT` where there is none), length of the payload (u32), number of headers (u32), key, payload, then each header as
//! length of its name (u32), length of its value (u32, `ABSENT` where there is none), name, value.

use std::sync::Arc;

/// Stands for the length of a key or value that is not there.
const ABSENT: u32 = u32::MAX;
/// Length of everything before the key.
const FIXED: usize = 4 + 8 + 4 + 4 + 4;
/// Largest record in bytes, encoded: that of a Kafka broker by default.
pub(crate) const MAX_BYTES: usize = 1_000_000;

/// A header: its name, and its value where there is one.
pub(super) type HeaderView<'a> = (&'a str, Option<&'a [u8]>);

/// A record that is being read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::embedded) struct RecordView<'a> {
    /// Milliseconds since 1970.
    pub(in crate::embedded) timestamp_ms: i64,
    pub(in crate::embedded) key: Option<&'a [u8]>,
    pub(in crate::embedded) payload: &'a [u8],
    headers: &'a [u8],
}

impl<'a> RecordView<'a> {
    /// The headers, in order.
    pub(in crate::embedded) fn headers(&self) -> impl Iterator<Item = HeaderView<'a>> + use<'a> {
        let mut rest = self.headers;
        std::iter::from_fn(move || take_header(&mut rest))
    }
}

/// The record in bytes.
pub(super) fn encode(
    timestamp_ms: i64,
    key: Option<&[u8]>,
    payload: &[u8],
    headers: &[HeaderView<'_>],
) -> Vec<u8> {
    let of_headers: usize = headers
        .iter()
        .map(|(name, value)| 8 + name.len() + value.map_or(0, <[u8]>::len))
        .sum();
    let size = FIXED + key.map_or(0, <[u8]>::len) + payload.len() + of_headers;
    let mut out = Vec::with_capacity(size);
    out.extend_from_slice(&length(size - 4).to_le_bytes());
    out.extend_from_slice(&timestamp_ms.to_le_bytes());
    let key_length = key.map_or(ABSENT, |key| length(key.len()));
    for number in [key_length, length(payload.len()), length(headers.len())] {
        out.extend_from_slice(&number.to_le_bytes());
    }
    out.extend_from_slice(key.unwrap_or_default());
    out.extend_from_slice(payload);
    for (name, value) in headers {
        let value_length = value.map_or(ABSENT, |value| length(value.len()));
        out.extend_from_slice(&length(name.len()).to_le_bytes());
        out.extend_from_slice(&value_length.to_le_bytes());
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(value.unwrap_or_default());
    }
    out
}

/// Lengths are far below 4 GiB: see [`MAX_BYTES`].
fn length(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(ABSENT - 1)
}

/// The record that these bytes are, if they are one and nothing else.
pub(super) fn decode(bytes: &[u8]) -> Option<RecordView<'_>> {
    let mut rest = bytes;
    let size = take_length(&mut rest)? as usize;
    if size != rest.len() {
        return None;
    }
    let timestamp_ms = i64::from_le_bytes(*rest.split_off(..8)?.as_array()?);
    let key_length = take_length(&mut rest)?;
    let payload_length = take_length(&mut rest)?;
    let headers = take_length(&mut rest)?;
    let key = take_optional(&mut rest, key_length)?;
    let payload = rest.split_off(..payload_length as usize)?;
    let mut left = rest;
    for _ in 0..headers {
        take_header(&mut left)?;
    }
    left.is_empty().then_some(RecordView {
        timestamp_ms,
        key,
        payload,
        headers: rest,
    })
}

fn take_length(rest: &mut &[u8]) -> Option<u32> {
    Some(u32::from_le_bytes(*rest.split_off(..4)?.as_array()?))
}

fn take_optional<'a>(rest: &mut &'a [u8], length: u32) -> Option<Option<&'a [u8]>> {
    match length {
        ABSENT => Some(None),
        length => rest.split_off(..length as usize).map(Some),
    }
}

fn take_header<'a>(rest: &mut &'a [u8]) -> Option<HeaderView<'a>> {
    let name_length = take_length(rest)?;
    let value_length = take_length(rest)?;
    let name = std::str::from_utf8(rest.split_off(..name_length as usize)?).ok()?;
    Some((name, take_optional(rest, value_length)?))
}

/// Records one behind the other, as they are written together.
#[derive(Debug, Default)]
pub(super) struct Run {
    bytes: Vec<u8>,
    /// Where each record ends.
    ends: Vec<u32>,
}

impl Run {
    /// Adds an encoded record.
    pub(super) fn push(&mut self, record: &[u8]) {
        self.bytes.extend_from_slice(record);
        self.ends.push(length(self.bytes.len()));
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(super) fn into_records(self, appended_ms: i64) -> Vec<StoredRecord> {
        let run = Arc::new(self.bytes);
        let mut start = 0;
        let record = |end| {
            let record = StoredRecord {
                run: Arc::clone(&run),
                start,
                end,
                appended_ms,
            };
            start = end;
            record
        };
        self.ends.into_iter().map(record).collect()
    }
}

/// A record inside a run of several that share their memory.
#[derive(Debug, Clone)]
pub(in crate::embedded) struct StoredRecord {
    run: Arc<Vec<u8>>,
    start: u32,
    end: u32,
    /// When it was appended, milliseconds since 1970; never less than that of the record before it.
    pub(super) appended_ms: i64,
}

impl StoredRecord {
    /// A record that is a run of its own.
    pub(super) fn alone(bytes: Vec<u8>, appended_ms: i64) -> Self {
        let end = length(bytes.len());
        Self {
            run: Arc::new(bytes),
            start: 0,
            end,
            appended_ms,
        }
    }

    /// The records of a run. None where it is not made of records.
    pub(super) fn of_run(run: Vec<u8>, appended_ms: i64) -> Option<Vec<Self>> {
        let run = Arc::new(run);
        let mut records = Vec::new();
        let mut start = 0;
        while start < run.len() {
            let mut rest = run.get(start..)?;
            let end = start + 4 + take_length(&mut rest)? as usize;
            decode(run.get(start..end)?)?;
            records.push(Self {
                run: Arc::clone(&run),
                start: u32::try_from(start).ok()?,
                end: u32::try_from(end).ok()?,
                appended_ms,
            });
            start = end;
        }
        Some(records)
    }

    /// What is in it.
    pub(in crate::embedded) fn view(&self) -> RecordView<'_> {
        // Every record was encoded here or decoded once when its run was read.
        decode(self.bytes()).unwrap_or(RecordView {
            timestamp_ms: 0,
            key: None,
            payload: &[],
            headers: &[],
        })
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.run[self.start as usize..self.end as usize]
    }

    pub(super) const fn size(&self) -> usize {
        (self.end - self.start) as usize
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Parts = (
        i64,
        Option<Vec<u8>>,
        Vec<u8>,
        Vec<(String, Option<Vec<u8>>)>,
    );

    fn parts() -> impl Strategy<Value = Parts> {
        let bytes = || proptest::collection::vec(any::<u8>(), 0..20);
        let header = ("[a-zé]{0,6}", proptest::option::of(bytes()));
        (
            any::<i64>(),
            proptest::option::of(bytes()),
            bytes(),
            proptest::collection::vec(header, 0..4),
        )
    }

    fn encoded((timestamp, key, payload, headers): &Parts) -> Vec<u8> {
        let headers: Vec<HeaderView<'_>> = headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_deref()))
            .collect();
        encode(*timestamp, key.as_deref(), payload, &headers)
    }

    proptest! {
        #[test]
        fn a_run_of_records_is_read_as_it_was_written(all in proptest::collection::vec(parts(), 0..5)) {
            let run: Vec<u8> = all.iter().flat_map(encoded).collect();
            let read = StoredRecord::of_run(run, 7).unwrap();
            prop_assert_eq!(read.len(), all.len());
            for (record, (timestamp, key, payload, headers)) in read.iter().zip(&all) {
                let view = record.view();
                prop_assert_eq!(view.timestamp_ms, *timestamp);
                prop_assert_eq!(view.key, key.as_deref());
                prop_assert_eq!(view.payload, payload);
                let found: Vec<_> = view.headers().map(|(name, value)| (name.to_owned(), value.map(<[u8]>::to_vec))).collect();
                prop_assert_eq!(&found, headers);
            }
        }

        #[test]
        fn bytes_that_are_no_record_are_refused_without_a_panic(
            record in parts(),
            damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
            keep in any::<prop::sample::Index>(),
        ) {
            let mut bytes = encoded(&record);
            for (at, value) in damage {
                let at = at.index(bytes.len());
                bytes[at] = value;
            }
            // A damaged byte of a payload cannot be noticed; the lengths still have to fit.
            if let Some(records) = StoredRecord::of_run(bytes.clone(), 0) {
                prop_assert_eq!(records.iter().map(StoredRecord::size).sum::<usize>(), bytes.len());
            }
            bytes.truncate(keep.index(bytes.len()));
            if !bytes.is_empty() {
                let _ = StoredRecord::of_run(bytes, 0);
            }
        }
    }
}
