//! For the fuzz targets in `tests/fuzz` only: what a service does with a record of any producer, without a log.

use std::sync::Arc;

use crate::batch::Batch;
use crate::in_flight::InFlight;
use crate::record::{RawRecord, Record, TopicPartition};

/// Copies a record into a batch, as the consumer does, and shows `read` what a service then reads.
pub fn copied<T>(
    headers: &Vec<(String, Option<Vec<u8>>)>,
    key: Option<&[u8]>,
    payload: &[u8],
    read: impl FnOnce(&Record<'_>) -> T,
) -> Option<T> {
    let mut batch = Batch::new(&Arc::new(InFlight::default()));
    let record = RawRecord {
        at: TopicPartition::new(0, 0),
        offset: 0,
        timestamp_ms: None,
        key,
        payload,
        headers,
    };
    batch.push(&record, false);
    batch.iter().next().as_ref().map(read)
}
