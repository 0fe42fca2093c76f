//! One user's entries as columns in a single allocation: a row costs its bytes and nothing more.
//!
//! Layout for a capacity of n rows: n marks of ids, n marks of amounts, n times, n words, n rests of ids, n places.
//! Columns rather than rows, because marks and words are searched a vector register at a time: a mark is 16 bits
//! of a hash, so that of ten thousand rows the search touches hardly one that it does not look for.
//! Which rows are in use is the caller's to know.

use std::ops::Range;

use super::geo::PlaceKind;
use super::packed_record::PackedRecord;

const MARK: usize = 2;
const TIME: usize = 6;
const WORD: usize = 8;
const ID: usize = 6;
/// Where each column starts, in bytes for each row of capacity.
const ID_MARKS: usize = 0;
const AMOUNT_MARKS: usize = MARK;
const TIMES: usize = 2 * MARK;
const WORDS: usize = TIMES + TIME;
const IDS: usize = WORDS + WORD;
const PLACES: usize = IDS + ID;

/// One more than the largest time that a row can hold.
pub(super) const TIME_LIMIT: i64 = 1 << (8 * TIME);

/// Sixteen bits of a hash.
pub(super) type Fingerprint = [u8; MARK];

/// What one row holds.
pub(super) struct Row {
    pub(super) amount_fingerprint: Fingerprint,
    /// Microseconds since the base, 0 ≤ time < [`TIME_LIMIT`].
    pub(super) time: i64,
    pub(super) word: PackedRecord,
    pub(super) id: u64,
    /// Used up to the width of the word's kind of place.
    pub(super) place: [u8; 16],
}

/// Rows in columns.
pub(super) struct Columns {
    bytes: Box<[u8]>,
    capacity: usize,
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
    pub(super) const fn capacity(&self) -> usize {
        self.capacity
    }

    /// The longest kind of place that a row has room for.
    pub(super) const fn places(&self) -> PlaceKind {
        self.places
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn amount_fingerprints(&self, rows: Range<usize>) -> &[Fingerprint] {
        self.cells(AMOUNT_MARKS, rows)
    }

    pub(super) fn times(&self, rows: Range<usize>) -> &[[u8; TIME]] {
        self.cells(TIMES, rows)
    }

    pub(super) fn words(&self, rows: Range<usize>) -> &[[u8; WORD]] {
        self.cells(WORDS, rows)
    }

    /// The row of this id, counted from the start of `rows`.
    pub(super) fn find_id(&self, rows: Range<usize>, id: u64) -> Option<usize> {
        let (mark, rest) = split_id(id);
        let rests: &[[u8; ID]] = self.cells(IDS, rows.clone());
        matching(self.cells(ID_MARKS, rows), mark).find(|row| rests[*row] == rest)
    }

    /// The whole id of a row.
    pub(super) fn id(&self, row: usize) -> u64 {
        let mark: &[Fingerprint] = self.cells(ID_MARKS, row..row + 1);
        let rest: &[[u8; ID]] = self.cells(IDS, row..row + 1);
        let ([a, b], [c, d, e, f, g, h]) = (mark[0], rest[0]);
        u64::from_le_bytes([a, b, c, d, e, f, g, h])
    }

    pub(super) fn time(&self, row: usize) -> i64 {
        unpack_time(&self.times(row..row + 1)[0])
    }

    pub(super) fn word(&self, row: usize) -> PackedRecord {
        PackedRecord::from_bytes(self.words(row..row + 1)[0])
    }

    pub(super) fn place(&self, row: usize) -> &[u8] {
        let width = self.places.width();
        &self.bytes[self.capacity * PLACES + row * width..][..width]
    }

    fn cells<const WIDTH: usize>(&self, column: usize, rows: Range<usize>) -> &[[u8; WIDTH]] {
        let start = self.capacity * column;
        self.bytes[start + rows.start * WIDTH..start + rows.end * WIDTH]
            .as_chunks()
            .0
    }

    /// Where each column starts for each row of capacity, and how wide it is.
    const fn layout(places: PlaceKind) -> [(usize, usize); 6] {
        [
            (ID_MARKS, MARK),
            (AMOUNT_MARKS, MARK),
            (TIMES, TIME),
            (WORDS, WORD),
            (IDS, ID),
            (PLACES, places.width()),
        ]
    }

    /// Puts `row` before row `at` of `length` rows in use. There must be room for it and for its kind of place.
    pub(super) fn insert(&mut self, at: usize, length: usize, row: &Row) {
        let time = row.time.to_le_bytes();
        let word = row.word.to_bytes();
        let (id_mark, id) = split_id(row.id);
        let place = &row.place[..self.places.width()];
        let cells: [&[u8]; 6] = [
            &id_mark,
            &row.amount_fingerprint,
            &time[..TIME],
            &word,
            &id,
            place,
        ];
        for ((column, width), cell) in Self::layout(self.places).into_iter().zip(cells) {
            let start = self.capacity * column;
            let (from, to) = (start + at * width, start + length * width);
            if at < length {
                self.bytes.copy_within(from..to, from + width);
            }
            self.bytes[from..from + width].copy_from_slice(cell);
        }
    }

    /// Moves `rows` to the front.
    pub(super) fn compact(&mut self, rows: &Range<usize>) {
        for (column, width) in Self::layout(self.places) {
            let start = self.capacity * column;
            self.bytes
                .copy_within(start + rows.start * width..start + rows.end * width, start);
        }
    }

    /// Moves `rows` to the front of a new allocation of this capacity, with room for this kind of place, which must
    /// not be shorter than it was.
    pub(super) fn relocate(&mut self, rows: &Range<usize>, capacity: usize, places: PlaceKind) {
        let mut bytes = vec![0; capacity * (PLACES + places.width())].into_boxed_slice();
        let columns = Self::layout(self.places)
            .into_iter()
            .zip(Self::layout(places));
        for ((column, width), (_, new_width)) in columns {
            let (start, new_start) = (self.capacity * column, capacity * column);
            let source = &self.bytes[start + rows.start * width..start + rows.end * width];
            let target = &mut bytes[new_start..new_start + rows.len() * new_width];
            if width == new_width {
                target.copy_from_slice(source);
            } else if width > 0 {
                // A shorter place keeps its own form at the start of the longer cell; its word says which it is.
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
            capacity,
            places,
        };
    }

    /// Takes `micros` from the times of `rows`, none of which may be less.
    pub(super) fn rebase(&mut self, rows: &Range<usize>, micros: i64) {
        let start = self.capacity * TIMES;
        let times = &mut self.bytes[start + rows.start * TIME..start + rows.end * TIME];
        for time in times.as_chunks_mut::<TIME>().0 {
            let moved = (unpack_time(time) - micros).to_le_bytes();
            time.copy_from_slice(&moved[..TIME]);
        }
    }
}

/// The time in a cell, in microseconds since the base.
pub(super) fn unpack_time(cell: &[u8; TIME]) -> i64 {
    let [a, b, c, d, e, f] = *cell;
    i64::from_le_bytes([a, b, c, d, e, f, 0, 0])
}

/// So few that 16 bits count them, and so many that a vector register is full several times.
const BLOCK: usize = 64;

/// Rows whose mark is this one, from the first on.
pub(super) fn matching(marks: &[Fingerprint], mark: Fingerprint) -> impl Iterator<Item = usize> {
    (0..)
        .step_by(BLOCK)
        .zip(marks.chunks(BLOCK))
        .flat_map(move |(start, block)| {
            // Most blocks hold none.
            let rows = if count_block(block, mark) == 0 {
                0
            } else {
                block.len()
            };
            (0..rows)
                .filter(move |row| block[*row] == mark)
                .map(move |row| start + row)
        })
}

/// How many marks are this one.
pub(super) fn count(marks: &[Fingerprint], mark: Fingerprint) -> usize {
    marks
        .chunks(BLOCK)
        .map(|block| usize::from(count_block(block, mark)))
        .sum()
}

/// Without a branch and in 16 bits, which the compiler turns into vector instructions.
fn count_block(block: &[Fingerprint], mark: Fingerprint) -> u16 {
    let mark = u16::from_le_bytes(mark);
    block
        .iter()
        .map(|each| u16::from(u16::from_le_bytes(*each) == mark))
        .sum()
}

/// The mark of an id, and the rest of it.
fn split_id(id: u64) -> (Fingerprint, [u8; ID]) {
    let [a, b, rest @ ..] = id.to_le_bytes();
    ([a, b], rest)
}
