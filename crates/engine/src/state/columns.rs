//! One user's rows as columns in a single allocation, as [`layout`](super::layout) draws them.
//!
//! Columns rather than rows, because fingerprints and records are searched a vector register at a time. Which rows are in
//! use is the caller's to keep.

use std::ops::Range;

use super::layout::{
    AMOUNT_FINGERPRINTS, FINGERPRINT_BYTES, Fingerprint, ID_FINGERPRINTS, ID_REST_BYTES, ID_RESTS,
    MAX_PLACE_BYTES, PLACES, RECORD_BYTES, RECORDS, SENDER_BYTES, SENDERS, TIME_BYTES, TIMES,
};
use super::packed_record::PackedRecord;
use super::place::PlaceKind;

/// What one row holds.
pub(crate) struct Row {
    pub(crate) amount_fingerprint: Fingerprint,
    /// Microseconds since the base, 0 ≤ time < [`TIME_LIMIT`](super::layout::TIME_LIMIT).
    pub(crate) time: i64,
    pub(crate) record: PackedRecord,
    pub(crate) id: u64,
    pub(crate) sender: u16,
    /// Used up to the width of the record's kind of place.
    pub(crate) place: [u8; MAX_PLACE_BYTES],
}

/// Rows in columns.
pub(crate) struct Columns {
    bytes: Box<[u8]>,
    capacity: u32,
    places: PlaceKind,
}

impl Default for Columns {
    fn default() -> Self {
        Self {
            bytes: Box::default(),
            capacity: 0,
            places: PlaceKind::Absent,
        }
    }
}

impl Columns {
    pub(crate) const fn capacity(&self) -> usize {
        self.capacity as usize
    }

    /// The longest kind of place that a row has room for.
    pub(crate) const fn places(&self) -> PlaceKind {
        self.places
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes.len()
    }

    pub(crate) fn amount_fingerprints(&self, rows: Range<usize>) -> &[Fingerprint] {
        self.cells(AMOUNT_FINGERPRINTS, rows)
    }

    pub(crate) fn times(&self, rows: Range<usize>) -> &[[u8; TIME_BYTES]] {
        self.cells(TIMES, rows)
    }

    pub(crate) fn records(&self, rows: Range<usize>) -> &[[u8; RECORD_BYTES]] {
        self.cells(RECORDS, rows)
    }

    /// The row of this id, counted from the start of `rows`.
    pub(crate) fn find_id(&self, rows: Range<usize>, id: u64) -> Option<usize> {
        let (fingerprint, rest) = split_id(id);
        let rests: &[[u8; ID_REST_BYTES]] = self.cells(ID_RESTS, rows.clone());
        matching(self.cells(ID_FINGERPRINTS, rows), fingerprint).find(|row| rests[*row] == rest)
    }

    /// The whole id of a row.
    pub(crate) fn id(&self, row: usize) -> u64 {
        let fingerprint: &[Fingerprint] = self.cells(ID_FINGERPRINTS, row..row + 1);
        let rest: &[[u8; ID_REST_BYTES]] = self.cells(ID_RESTS, row..row + 1);
        let ([a, b], [c, d, e, f, g, h]) = (fingerprint[0], rest[0]);
        u64::from_le_bytes([a, b, c, d, e, f, g, h])
    }

    pub(crate) fn time(&self, row: usize) -> i64 {
        unpack_time(&self.times(row..row + 1)[0])
    }

    pub(crate) fn sender(&self, row: usize) -> u16 {
        let senders: &[[u8; SENDER_BYTES]] = self.cells(SENDERS, row..row + 1);
        u16::from_le_bytes(senders[0])
    }

    pub(crate) fn record(&self, row: usize) -> PackedRecord {
        PackedRecord::from_bytes(self.records(row..row + 1)[0])
    }

    pub(crate) fn place(&self, row: usize) -> &[u8] {
        let width = self.places.width();
        &self.bytes[self.capacity() * PLACES + row * width..][..width]
    }

    fn cells<const WIDTH: usize>(&self, column: usize, rows: Range<usize>) -> &[[u8; WIDTH]] {
        let start = self.capacity() * column;
        self.bytes[start + rows.start * WIDTH..start + rows.end * WIDTH]
            .as_chunks()
            .0
    }

    /// Where each column starts for each row of capacity, and how wide it is.
    const fn layout(places: PlaceKind) -> [(usize, usize); 7] {
        [
            (ID_FINGERPRINTS, FINGERPRINT_BYTES),
            (AMOUNT_FINGERPRINTS, FINGERPRINT_BYTES),
            (TIMES, TIME_BYTES),
            (RECORDS, RECORD_BYTES),
            (ID_RESTS, ID_REST_BYTES),
            (SENDERS, SENDER_BYTES),
            (PLACES, places.width()),
        ]
    }

    /// Puts `row` before row `at` of `length` rows in use. The caller has made room for it and for its kind of place.
    pub(crate) fn insert(&mut self, at: usize, length: usize, row: &Row) {
        let time = row.time.to_le_bytes();
        let record = row.record.to_bytes();
        let (id_fingerprint, id) = split_id(row.id);
        let sender = row.sender.to_le_bytes();
        let place = &row.place[..self.places.width()];
        let cells: [&[u8]; 7] = [
            &id_fingerprint,
            &row.amount_fingerprint,
            &time[..TIME_BYTES],
            &record,
            &id,
            &sender,
            place,
        ];
        for ((column, width), cell) in Self::layout(self.places).into_iter().zip(cells) {
            let start = self.capacity() * column;
            let (from, to) = (start + at * width, start + length * width);
            if at < length {
                self.bytes.copy_within(from..to, from + width);
            }
            self.bytes[from..from + width].copy_from_slice(cell);
        }
    }

    /// Moves `rows` to the front.
    pub(crate) fn compact(&mut self, rows: &Range<usize>) {
        for (column, width) in Self::layout(self.places) {
            let start = self.capacity() * column;
            self.bytes
                .copy_within(start + rows.start * width..start + rows.end * width, start);
        }
    }

    /// Moves `rows` to the front of a new allocation of this capacity, with room for this kind of place, which must
    /// not be shorter than it was.
    pub(crate) fn relocate(&mut self, rows: &Range<usize>, capacity: usize, places: PlaceKind) {
        let mut bytes = vec![0; capacity * (PLACES + places.width())].into_boxed_slice();
        let columns = Self::layout(self.places)
            .into_iter()
            .zip(Self::layout(places));
        for ((column, width), (_, new_width)) in columns {
            let (start, new_start) = (self.capacity() * column, capacity * column);
            let source = &self.bytes[start + rows.start * width..start + rows.end * width];
            let target = &mut bytes[new_start..new_start + rows.len() * new_width];
            if width == new_width {
                target.copy_from_slice(source);
            } else if width > 0 {
                // A shorter place keeps its own form at the start of the longer cell; its record says which it is.
                for (cell, new_cell) in source
                    .chunks_exact(width)
                    .zip(target.chunks_exact_mut(new_width))
                {
                    new_cell[..width].copy_from_slice(cell);
                }
            }
        }
        *self = Self {
            bytes,
            capacity: row_number(capacity),
            places,
        };
    }

    /// Takes `micros` from the times of `rows`, none of which may be less.
    pub(crate) fn rebase(&mut self, rows: &Range<usize>, micros: i64) {
        let start = self.capacity() * TIMES;
        let times = &mut self.bytes[start + rows.start * TIME_BYTES..start + rows.end * TIME_BYTES];
        for time in times.as_chunks_mut::<TIME_BYTES>().0 {
            let moved = (unpack_time(time) - micros).to_le_bytes();
            time.copy_from_slice(&moved[..TIME_BYTES]);
        }
    }
}

/// A row's number. 2^32 rows of one user do not fit in memory.
#[expect(clippy::cast_possible_truncation, reason = "see above")]
pub(crate) const fn row_number(row: usize) -> u32 {
    row as u32
}

/// The time in a cell, in microseconds since the base.
pub(crate) fn unpack_time(cell: &[u8; TIME_BYTES]) -> i64 {
    let [a, b, c, d, e, f] = *cell;
    i64::from_le_bytes([a, b, c, d, e, f, 0, 0])
}

/// Few enough to be counted in 16 bits, and enough to fill a vector register several times.
const BLOCK: usize = 64;

/// The rows with this fingerprint, from the first on.
pub(crate) fn matching(
    fingerprints: &[Fingerprint],
    wanted: Fingerprint,
) -> impl Iterator<Item = usize> {
    (0..)
        .step_by(BLOCK)
        .zip(fingerprints.chunks(BLOCK))
        .flat_map(move |(start, block)| {
            // Most blocks hold none.
            let rows = if count_block(block, wanted) == 0 {
                0
            } else {
                block.len()
            };
            (0..rows)
                .filter(move |row| block[*row] == wanted)
                .map(move |row| start + row)
        })
}

/// How many fingerprints equal this one.
pub(crate) fn count(fingerprints: &[Fingerprint], wanted: Fingerprint) -> usize {
    fingerprints
        .chunks(BLOCK)
        .map(|block| usize::from(count_block(block, wanted)))
        .sum()
}

/// Without a branch and in 16 bits, which the compiler turns into vector instructions.
fn count_block(block: &[Fingerprint], wanted: Fingerprint) -> u16 {
    let wanted = u16::from_le_bytes(wanted);
    block
        .iter()
        .map(|each| u16::from(u16::from_le_bytes(*each) == wanted))
        .sum()
}

/// The fingerprint of an id, and the rest of it.
fn split_id(id: u64) -> (Fingerprint, [u8; ID_REST_BYTES]) {
    let [a, b, rest @ ..] = id.to_le_bytes();
    ([a, b], rest)
}
