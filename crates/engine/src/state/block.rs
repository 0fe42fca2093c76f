//! A block: packed rows of one user in the order of (time, log).
//!
//! Invariant: the visible rows are in order of their times, those of equal times as they were inserted. A row is searched
//! for and moved at a cost that grows with the rows of the block, so a block has at most
//! [`BLOCK_ROWS`](super::layout::BLOCK_ROWS).

use std::ops::Range;

use tollgate_types::{Amount, Indicators, Location, Status};

use super::columns::{self, Columns, Row, row_number, unpack_time};
use super::further::FurtherIndicators;
use super::layout::{ALLOCATION_OVERHEAD, BLOCK_ROWS, RECORD_BYTES, TIME_LIMIT, slack, tolerance};
use super::packed_record::{PackedRecord, amount_fingerprint};
use super::place::{self, PlaceKind};
use super::scores::Scores;

/// A transaction and its verdict, to be remembered.
pub(crate) struct Entry<'a> {
    /// Microseconds since 1970.
    pub(crate) time: i64,
    /// Keyed hash of the transaction_id.
    pub(crate) id: u64,
    pub(crate) amount: Amount,
    pub(crate) location: Option<Location>,
    /// Who sent it; 0 where that is not known.
    pub(crate) sender: u16,
    pub(crate) indicators: &'a Indicators,
    pub(crate) status: Status,
    pub(crate) score: f64,
}

/// What is remembered of a transaction that is looked for by its id.
#[derive(Debug)]
pub(crate) struct Remembered {
    record: PackedRecord,
    pub(crate) sender: u16,
    pub(crate) indicators: Indicators,
    pub(crate) score: f64,
}

impl Remembered {
    /// Whether the amount was this one.
    pub(crate) fn is_of(&self, amount: Amount) -> bool {
        self.record.is_of(amount)
    }

    pub(crate) const fn status(&self) -> Status {
        self.record.status()
    }
}

/// Rows in order.
#[derive(Default)]
pub(crate) struct Block {
    pub(crate) columns: Columns,
    /// Rows before this one are evicted, and their memory not yet freed.
    start: u32,
    end: u32,
    /// Visible rows that have a place.
    located: u32,
    /// What packed times count from, in microseconds since 1970. Never later than the oldest time that may be
    /// remembered.
    base: i64,
    /// Scores other than zero; absent while no row has one.
    pub(crate) scores: Option<Box<Scores>>,
    /// Indicators that are not built in; absent while no row has one.
    pub(crate) further: Option<Box<FurtherIndicators>>,
}

impl Block {
    /// A block with room for so many rows and this kind of place, whose times count from `base`.
    pub(crate) fn with_room(rows: usize, places: PlaceKind, base: i64) -> Self {
        let mut columns = Columns::default();
        columns.relocate(&(0..0), rows, places);
        Self {
            columns,
            base,
            ..Self::default()
        }
    }

    const fn start(&self) -> usize {
        self.start as usize
    }

    const fn end(&self) -> usize {
        self.end as usize
    }

    /// Visible rows.
    pub(crate) const fn len(&self) -> usize {
        self.end() - self.start()
    }

    pub(crate) const fn is_full(&self) -> bool {
        self.len() >= BLOCK_ROWS
    }

    pub(crate) const fn located(&self) -> u32 {
        self.located
    }

    /// The visible rows.
    pub(crate) const fn rows(&self) -> Range<usize> {
        self.start()..self.end()
    }

    /// Memory held beside the struct itself.
    pub(crate) fn heap_bytes(&self) -> usize {
        let columns = self.columns.bytes();
        let overhead = if columns == 0 { 0 } else { ALLOCATION_OVERHEAD };
        columns
            + overhead
            + self.scores.as_ref().map_or(0, |scores| scores.bytes())
            + self.further.as_ref().map_or(0, |further| further.bytes())
    }

    /// The time of a row, in microseconds since 1970.
    pub(crate) fn time(&self, row: usize) -> i64 {
        self.base + self.columns.time(row)
    }

    /// The earliest time.
    pub(crate) fn first_time(&self) -> Option<i64> {
        (self.len() > 0).then(|| self.time(self.start()))
    }

    /// The latest time.
    pub(crate) fn last_time(&self) -> Option<i64> {
        (self.len() > 0).then(|| self.time(self.end() - 1))
    }

    /// What is remembered of the transaction of this id.
    pub(crate) fn find(&self, id: u64) -> Option<Remembered> {
        let row = self.start() + self.columns.find_id(self.rows(), id)?;
        let record = self.columns.record(row);
        let mut remembered = Remembered {
            record,
            sender: self.columns.sender(row),
            indicators: record.indicators(),
            score: 0.0,
        };
        if record.has_score() {
            let scores = self.scores.as_ref()?;
            remembered.score = scores.get(self.rank(row, PackedRecord::has_score, scores.len()))?;
        }
        if record.has_further() {
            let further = self.further.as_ref()?;
            let rank = self.rank(row, PackedRecord::has_further, further.len());
            for indicator in further.get(rank) {
                remembered.indicators.insert(*indicator);
            }
        }
        Some(remembered)
    }

    /// The number of visible rows before that of this id.
    pub(crate) fn position(&self, id: u64) -> Option<usize> {
        self.columns.find_id(self.rows(), id)
    }

    /// Rows of exactly this amount among these, where there are at least `enough`.
    pub(crate) fn count_amount(
        &self,
        amount: Amount,
        rows: Range<usize>,
        enough: usize,
    ) -> Option<usize> {
        let fingerprint = amount_fingerprint(amount);
        let fingerprints = self.columns.amount_fingerprints(rows.clone());
        let records = self.columns.records(rows);
        let is_it = |record: &[u8; RECORD_BYTES]| PackedRecord::from_bytes(*record).is_of(amount);
        // Fingerprints are counted first: mostly there are too few to go on. Where there are many, a pass over all records
        // is faster.
        let candidates = columns::count(fingerprints, fingerprint);
        let count = if candidates < enough {
            return None;
        } else if candidates > records.len() / 16 {
            records.iter().filter(|record| is_it(record)).count()
        } else {
            columns::matching(fingerprints, fingerprint)
                .filter(|row| is_it(&records[*row]))
                .count()
        };
        (count >= enough).then_some(count)
    }

    /// Time and place of the last of these rows that has a place; one of exactly 0/0 counts only where `null_island` is false.
    pub(crate) fn last_place(
        &self,
        mut rows: Range<usize>,
        null_island: bool,
    ) -> Option<(i64, Location)> {
        if self.located == 0 {
            return None;
        }
        loop {
            let records = self.columns.records(rows.clone());
            let row = rows.start + records.iter().rposition(has_place)?;
            let found = self.place(row)?;
            if !(null_island && place::is_null_island(&found.1)) {
                return Some(found);
            }
            rows.end = row;
        }
    }

    /// The time of the first of these rows that has a place, as above.
    pub(crate) fn first_located_time(
        &self,
        mut rows: Range<usize>,
        null_island: bool,
    ) -> Option<i64> {
        if self.located == 0 {
            return None;
        }
        loop {
            let records = self.columns.records(rows.clone());
            let row = rows.start + records.iter().position(has_place)?;
            let (time, at) = self.place(row)?;
            if !(null_island && place::is_null_island(&at)) {
                return Some(time);
            }
            rows.start = row + 1;
        }
    }

    fn place(&self, row: usize) -> Option<(i64, Location)> {
        let kind = self.columns.record(row).place_kind();
        let location = place::unpack(kind, self.columns.place(row))?;
        Some((self.time(row), location))
    }

    /// Puts an entry in its place, in memory for at least `room` rows. The caller has made sure that the entry is within the
    /// lookback of the newest row of the user.
    pub(crate) fn insert(&mut self, entry: &Entry<'_>, lookback: i64, room: usize) {
        if self.len() == 0 {
            self.base = entry.time - lookback;
        }
        if entry.time - self.base >= TIME_LIMIT {
            let base = entry.time - lookback;
            self.columns.rebase(&self.rows(), base - self.base);
            self.base = base;
        }
        // The lookback has grown since the base was chosen. It spans less than a packed time.
        if entry.time < self.base {
            self.columns.rebase(&self.rows(), entry.time - self.base);
            self.base = entry.time;
        }
        let (kind, place) = place::pack(entry.location);
        self.make_room(kind, room);
        let at = self.first_after(entry.time);
        let has_score = entry.score != 0.0;
        if has_score {
            let total = self.scores.as_ref().map_or(0, |scores| scores.len());
            let rank = self.rank(at, PackedRecord::has_score, total);
            let scores = self.scores.get_or_insert_default();
            scores.insert(rank, entry.score);
        }
        let new = entry.indicators.beyond_built_in();
        if !new.is_empty() {
            let total = self.further.as_ref().map_or(0, |further| further.len());
            let rank = self.rank(at, PackedRecord::has_further, total);
            let further = self.further.get_or_insert_default();
            further.insert(rank, new);
        }
        let row = Row {
            amount_fingerprint: amount_fingerprint(entry.amount),
            time: entry.time - self.base,
            record: PackedRecord::new(
                entry.amount,
                kind,
                entry.indicators,
                entry.status,
                has_score,
            ),
            id: entry.id,
            sender: entry.sender,
            place,
        };
        self.columns.insert(at, self.end(), &row);
        self.end += 1;
        self.located += u32::from(kind != PlaceKind::Absent);
    }

    /// Appends a row, for which there is room; its score and further indicators are appended by the caller.
    pub(crate) fn append(&mut self, row: &Row) {
        self.columns.insert(self.end(), self.end(), row);
        self.end += 1;
        self.located += u32::from(row.record.place_kind() != PlaceKind::Absent);
    }

    /// A row as it is stored.
    pub(crate) fn row(&self, row: usize) -> Row {
        let record = self.columns.record(row);
        let mut place = [0; super::layout::MAX_PLACE_BYTES];
        let width = record.place_kind().width();
        place[..width].copy_from_slice(&self.columns.place(row)[..width]);
        Row {
            amount_fingerprint: record.amount_fingerprint(),
            time: self.columns.time(row),
            record,
            id: self.columns.id(row),
            sender: self.columns.sender(row),
            place,
        }
    }

    /// Moves the later half of the rows to a block of its own.
    pub(crate) fn split(&mut self) -> Self {
        let at = self.start() + self.len() / 2;
        let mut later = Self::with_room(BLOCK_ROWS, self.columns.places(), self.base);
        later.take(self, at..self.end());
        self.end = row_number(at);
        self.located -= later.located;
        later
    }

    /// Appends the last rows of another block, which are taken out of it together with their scores and further indicators.
    fn take(&mut self, from: &mut Self, rows: Range<usize>) {
        let shift = from.base - self.base;
        for row in rows.clone() {
            let mut row = from.row(row);
            row.time += shift;
            self.append(&row);
        }
        let count = |has: fn(PackedRecord) -> bool| {
            rows.clone()
                .filter(|row| has(from.columns.record(*row)))
                .count()
        };
        let (scores, further) = (
            count(PackedRecord::has_score),
            count(PackedRecord::has_further),
        );
        if scores > 0
            && let Some(theirs) = &mut from.scores
        {
            self.scores
                .get_or_insert_default()
                .append(theirs.split_off(theirs.len() - scores));
            from.scores.take_if(|scores| scores.len() == 0);
        }
        if further > 0
            && let Some(theirs) = &mut from.further
        {
            self.further
                .get_or_insert_default()
                .append(theirs.split_off(theirs.len() - further));
            from.further.take_if(|further| further.len() == 0);
        }
    }

    /// One block of all rows of these, which are in order and have none before `base`.
    pub(crate) fn joined(mut blocks: Vec<Self>, base: i64) -> Self {
        let rows: usize = blocks.iter().map(Self::len).sum();
        let places = blocks.iter().map(|block| block.columns.places()).max();
        let room = rows + slack(rows);
        let mut all = Self::with_room(room, places.unwrap_or(PlaceKind::Absent), base);
        for block in &mut blocks {
            let rows = block.rows();
            all.take(block, rows);
        }
        all
    }

    /// Rows of the times in (after, until].
    pub(crate) fn between(&self, after: i64, until: i64) -> Range<usize> {
        let end = self.first_after(until);
        self.first_after(after).min(end)..end
    }

    /// The first visible row of a later time than this one.
    pub(crate) fn first_after(&self, time: i64) -> usize {
        let time = time.saturating_sub(self.base);
        // Most transactions are the newest of their user.
        if self.len() == 0 || self.columns.time(self.end() - 1) <= time {
            return self.end();
        }
        let times = self.columns.times(self.rows());
        self.start() + times.partition_point(|each| unpack_time(each) <= time)
    }

    /// The number of rows before this one that have a bit, of which there are `total`. Counted from the nearer end, since
    /// most lookups are of recent rows.
    fn rank(&self, row: usize, has: impl Fn(PackedRecord) -> bool, total: usize) -> usize {
        let count = |rows: Range<usize>| {
            let records = self.columns.records(rows);
            records
                .iter()
                .filter(|record| has(PackedRecord::from_bytes(**record)))
                .count()
        };
        if row - self.start() < self.end() - row {
            count(self.start()..row)
        } else {
            total - count(row..self.end())
        }
    }

    /// Makes the rows before this one invisible.
    pub(crate) fn evict_rows_before(&mut self, row: usize) {
        while self.start() < row {
            let record = self.columns.record(self.start());
            if record.has_score()
                && let Some(scores) = &mut self.scores
            {
                scores.pop_front();
            }
            if record.has_further()
                && let Some(further) = &mut self.further
            {
                further.pop_front();
            }
            self.located -= u32::from(record.place_kind() != PlaceKind::Absent);
            self.start += 1;
        }
        match &mut self.scores {
            Some(scores) if scores.len() == 0 => self.scores = None,
            Some(scores) => scores.trim(),
            None => {}
        }
        match &mut self.further {
            Some(further) if further.len() == 0 => self.further = None,
            Some(further) => further.trim(),
            None => {}
        }
    }

    /// Makes room for one more row with this kind of place, and frees what is beyond the tolerance and `least` rows.
    fn make_room(&mut self, kind: PlaceKind, least: usize) {
        let (live, capacity) = (self.len(), self.columns.capacity());
        let wanted = (live + slack(live)).max(least);
        let kind = kind.max(self.columns.places());
        if kind != self.columns.places() || capacity > (live + tolerance(live)).max(least) {
            self.columns.relocate(&self.rows(), wanted, kind);
        } else if self.end() < capacity {
            return;
        } else if wanted <= capacity {
            self.columns.compact(&self.rows());
        } else {
            self.columns.relocate(&self.rows(), wanted, kind);
        }
        self.start = 0;
        self.end = row_number(live);
    }
}

fn has_place(record: &[u8; RECORD_BYTES]) -> bool {
    PackedRecord::from_bytes(*record).place_kind() != PlaceKind::Absent
}
