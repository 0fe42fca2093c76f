//! The layout of one user's history in memory: the drawing, and every constant of it.
//!
//! The rows of a block are columns in a single allocation, so that a row costs its bytes and nothing more. A history of up to
//! [`BLOCK_ROWS`] rows is one block; a longer one is many, with two indexes (`blocks.rs`). With room for n rows and places of
//! p bytes:
//!
//! ```text
//!  byte  0              2n              4n            10n            18n            24n         26n            26n + p·n
//!        ┌──────────────┬───────────────┬─────────────┬──────────────┬──────────────┬───────────┬──────────────┐
//!        │ fingerprints │ fingerprints  │ times       │ packed       │ rest of the  │ senders   │ places       │
//!        │ of ids       │ of amounts    │             │ records      │ ids          │           │              │
//!        └──────────────┴───────────────┴─────────────┴──────────────┴──────────────┴───────────┴──────────────┘
//!  a row   2 bytes        2               6             8              6              2           p = 0, 8 or 16
//! ```
//!
//! * **id**: 64 bits of a keyed hash of the transaction_id. Its first two bytes are the fingerprint; columns of
//!   fingerprints are searched a vector register at a time, and few rows share one with a row that is looked for.
//! * **fingerprint of an amount**: 16 bits of a product of the amount, see `packed_record.rs`.
//! * **time**: microseconds since the base of the block, an `i64` beside the columns.
//! * **sender**: 16 bits that identify who sent the transaction, 0 where that is not known.
//! * **place**: nothing, two `i32` of ten-millionths of a degree, or two `f64`. All rows have the width of the widest; the
//!   packed record has the form of the place of its row.
//!
//! All numbers are little-endian. A packed record is 64 bits:
//!
//! ```text
//!   63                                              10   9     8     7      6  5          2  1     0
//!  ┌──────────────────────────────────────────────────┬─────┬─────┬──────────┬─────────────┬────────┐
//!  │ amount in ten-thousandths: 54 bits               │ fur │ sco │ status:2 │ built-in    │ kind of│
//!  │ (the largest, 10^16, is below 2^54)              │ ther│ re  │          │ indicators:4│ place:2│
//!  └──────────────────────────────────────────────────┴─────┴─────┴──────────┴─────────────┴────────┘
//! ```
//!
//! Two queues beside the columns hold what few rows have, in the order of their rows. A row has an entry in one exactly if
//! its bit is set, so that its place there is the number of rows with that bit before it:
//!
//! * `score`: a score other than zero, as one byte, or as the byte 255 and 64 bits in a further queue (`scores.rs`);
//! * `further`: indicators that are not built in (`further.rs`).

/// Sixteen bits of a hash.
pub(crate) type Fingerprint = [u8; FINGERPRINT_BYTES];

pub(crate) const FINGERPRINT_BYTES: usize = 2;
pub(crate) const TIME_BYTES: usize = 6;
pub(crate) const RECORD_BYTES: usize = 8;
pub(crate) const ID_REST_BYTES: usize = 6;
pub(crate) const SENDER_BYTES: usize = 2;
pub(crate) const SHORT_PLACE_BYTES: usize = 8;
pub(crate) const FULL_PLACE_BYTES: usize = 16;
pub(crate) const MAX_PLACE_BYTES: usize = FULL_PLACE_BYTES;

/// Where each column starts, in bytes for each row of capacity.
pub(crate) const ID_FINGERPRINTS: usize = 0;
pub(crate) const AMOUNT_FINGERPRINTS: usize = ID_FINGERPRINTS + FINGERPRINT_BYTES;
pub(crate) const TIMES: usize = AMOUNT_FINGERPRINTS + FINGERPRINT_BYTES;
pub(crate) const RECORDS: usize = TIMES + TIME_BYTES;
pub(crate) const ID_RESTS: usize = RECORDS + RECORD_BYTES;
pub(crate) const SENDERS: usize = ID_RESTS + ID_REST_BYTES;
pub(crate) const PLACES: usize = SENDERS + SENDER_BYTES;

/// Most rows of a block: as many as are searched and moved in the time that a score takes anyway.
pub(crate) const BLOCK_ROWS: usize = 512;
/// A history of many blocks with no more rows than these becomes one block again.
pub(crate) const FEW_ROWS: usize = 128;

/// Where each part of a packed record starts, counted from the lowest bit.
pub(crate) const PLACE_KIND_SHIFT: u32 = 0;
pub(crate) const INDICATORS_SHIFT: u32 = PLACE_KIND_SHIFT + PLACE_KIND_BITS;
pub(crate) const STATUS_SHIFT: u32 = INDICATORS_SHIFT + INDICATORS_BITS;
pub(crate) const SCORE_SHIFT: u32 = STATUS_SHIFT + STATUS_BITS;
pub(crate) const FURTHER_SHIFT: u32 = SCORE_SHIFT + 1;
pub(crate) const AMOUNT_SHIFT: u32 = FURTHER_SHIFT + 1;

pub(crate) const PLACE_KIND_BITS: u32 = 2;
pub(crate) const INDICATORS_BITS: u32 = 4;
pub(crate) const STATUS_BITS: u32 = 2;
pub(crate) const AMOUNT_BITS: u32 = u64::BITS - AMOUNT_SHIFT;

/// One more than the largest time that a row can hold, in microseconds since the base: 8.9 years.
pub(crate) const TIME_LIMIT: i64 = 1 << (8 * TIME_BYTES);

/// The longest history, in seconds: eight years, which leaves room for times after the newest.
pub(crate) const MAX_LOOKBACK_SECONDS: u64 = 8 * 365 * 86_400;

/// The code of a score that is kept in full.
pub(crate) const SCORE_IN_FULL: u8 = u8::MAX;

const _: () = {
    assert!(AMOUNT_BITS == 54);
    // All but the conflicting duplicate, which is never remembered, and is the last.
    assert!(INDICATORS_BITS as usize + 1 == tollgate_types::Indicator::BUILT_IN.len());
    assert!(BLOCK_ROWS < 1_000);
    assert!(MAX_LOOKBACK_SECONDS.cast_signed() * 1_000_000 < TIME_LIMIT);
};

/// What a general-purpose allocator adds to an allocation, in bytes: its header and rounding.
pub(crate) const ALLOCATION_OVERHEAD: usize = 16;

/// Room kept free beyond so many in use: an eighth, so that moving them costs each new one a constant.
pub(crate) fn slack(used: usize) -> usize {
    (used / 8).max(1)
}

/// Room that may stay free before memory is freed: more than the slack, so that memory is not freed and allocated in turn.
pub(crate) fn tolerance(used: usize) -> usize {
    (used * 3 / 16).max(4)
}
