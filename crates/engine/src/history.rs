//! What is remembered of one user: packed entries in the order of (time, log).
//!
//! Invariant: after [`History::remember`] the visible rows are exactly those not older than the newest one's time
//! less the lookback, however much later their memory is freed. Scores other than zero stand in a queue of their
//! own, in the order of their entries; a score's place in it is the number of scored entries before its own.

use std::ops::Range;

use tollgate_types::{Amount, Indicators, Location, Status};

use super::columns::{self, Columns, Row, TIME_LIMIT, unpack_time};
use super::geo::{self, PlaceKind};
use super::packed_record::{PackedRecord, amount_fingerprint};
use super::scores::Scores;

/// What a general-purpose allocator adds to an allocation: its header and rounding.
pub(super) const ALLOCATION_OVERHEAD: usize = 16;

/// A transaction and its verdict, to be remembered.
pub(super) struct Entry {
    /// Microseconds since 1970.
    pub(super) time: i64,
    /// Keyed hash of the transaction_id.
    pub(super) id: u64,
    pub(super) amount: Amount,
    pub(super) location: Option<Location>,
    pub(super) indicators: Indicators,
    pub(super) status: Status,
    pub(super) score: f64,
}

/// The verdict of an entry.
#[derive(Debug, Clone, Copy)]
pub(super) struct Remembered {
    pub(super) indicators: Indicators,
    pub(super) status: Status,
    pub(super) score: f64,
}

/// One user's entries.
#[derive(Default)]
pub(super) struct History {
    pub(super) columns: Columns,
    /// Rows before this one are evicted, and their memory not yet freed.
    start: usize,
    end: usize,
    /// What packed times count from, in microseconds since 1970. Never later than the oldest time that may be
    /// remembered.
    pub(super) base: i64,
    /// Absent until the first score other than zero.
    pub(super) scores: Option<Box<Scores>>,
}

impl History {
    /// A history of these entries, of which `columns` has so many in use.
    pub(super) fn of(columns: Columns, entries: usize, base: i64, scores: Scores) -> Self {
        Self {
            columns,
            start: 0,
            end: entries,
            base,
            scores: (scores.len() > 0).then(|| Box::new(scores)),
        }
    }

    /// Visible entries.
    pub(super) const fn len(&self) -> usize {
        self.end - self.start
    }

    /// Memory held beside the struct itself.
    pub(super) fn heap_bytes(&self) -> usize {
        let columns = self.columns.bytes();
        let overhead = if columns == 0 { 0 } else { ALLOCATION_OVERHEAD };
        columns + overhead + self.scores.as_ref().map_or(0, |scores| scores.bytes())
    }

    /// The latest time remembered.
    pub(super) fn newest(&self) -> Option<i64> {
        (self.len() > 0).then(|| self.base + self.columns.time(self.end - 1))
    }

    /// The verdict on the transaction of this id.
    pub(super) fn find(&self, id: u64) -> Option<Remembered> {
        let row = self.start + self.columns.find_id(self.rows(), id)?;
        let word = self.columns.word(row);
        let score = if word.has_score() {
            self.score_at(row)?
        } else {
            0.0
        };
        Some(Remembered {
            indicators: word.indicators(),
            status: word.status(),
            score,
        })
    }

    /// Entries in (after, until].
    pub(super) fn count(&self, after: i64, until: i64) -> usize {
        self.between(after, until).len()
    }

    /// Entries of exactly this amount in (after, until], where there are at least `enough`.
    pub(super) fn count_amount(
        &self,
        amount: Amount,
        after: i64,
        until: i64,
        enough: usize,
    ) -> Option<usize> {
        let rows = self.between(after, until);
        let mark = amount_fingerprint(amount);
        let marks = self.columns.amount_fingerprints(rows.clone());
        let words = self.columns.words(rows);
        let is_it = |word: &[u8; 8]| PackedRecord::from_bytes(*word).is_of(amount);
        // Marks are counted first: mostly there are too few to go on. Where there are many, a look at every word in
        // its order is faster.
        let candidates = columns::count(marks, mark);
        let count = if candidates < enough {
            return None;
        } else if candidates > words.len() / 16 {
            words.iter().filter(|word| is_it(word)).count()
        } else {
            columns::matching(marks, mark)
                .filter(|row| is_it(&words[*row]))
                .count()
        };
        (count >= enough).then_some(count)
    }

    /// Time and place of the latest located entry in (after, before), both ends excluded; among equal times the
    /// later in the log.
    pub(super) fn latest_place(&self, after: i64, before: i64) -> Option<(i64, Location)> {
        if self.columns.places() == PlaceKind::Absent {
            return None;
        }
        let rows = self.between(after, before - 1);
        let located =
            |word: &[u8; 8]| PackedRecord::from_bytes(*word).place_kind() != PlaceKind::Absent;
        let row = rows.start + self.columns.words(rows).iter().rposition(located)?;
        let kind = self.columns.word(row).place_kind();
        let location = geo::unpack(kind, self.columns.place(row))?;
        Some((self.base + self.columns.time(row), location))
    }

    /// Puts an entry in its place and evicts what is older than the newest one less the lookback.
    ///
    /// The entry itself must not be older than that.
    pub(super) fn remember(&mut self, entry: &Entry, lookback: i64) {
        match self.newest() {
            None => self.base = entry.time - lookback,
            Some(newest) if newest < entry.time => self.evict(entry.time - lookback),
            Some(_) => {}
        }
        if entry.time - self.base >= TIME_LIMIT {
            let base = entry.time - lookback;
            self.columns.rebase(&self.rows(), base - self.base);
            self.base = base;
        }
        let (kind, place) = geo::pack(entry.location);
        self.make_room(kind);
        let at = self.first_after(entry.time);
        let has_score = entry.score != 0.0;
        if has_score {
            let rank = self.scores_before(at);
            self.scores
                .get_or_insert_default()
                .insert(rank, entry.score);
        }
        let row = Row {
            amount_fingerprint: amount_fingerprint(entry.amount),
            time: entry.time - self.base,
            word: PackedRecord::new(
                entry.amount,
                kind,
                entry.indicators,
                entry.status,
                has_score,
            ),
            id: entry.id,
            place,
        };
        self.columns.insert(at, self.end, &row);
        self.end += 1;
    }

    pub(super) const fn rows(&self) -> Range<usize> {
        self.start..self.end
    }

    /// Rows of the times in (after, until].
    fn between(&self, after: i64, until: i64) -> Range<usize> {
        let end = self.first_after(until);
        self.first_after(after).min(end)..end
    }

    /// The first visible row of a later time than this one.
    fn first_after(&self, time: i64) -> usize {
        let time = time.saturating_sub(self.base);
        // Most transactions are the newest of their user.
        if self.len() == 0 || self.columns.time(self.end - 1) <= time {
            return self.end;
        }
        let times = self.columns.times(self.rows());
        self.start + times.partition_point(|each| unpack_time(each) <= time)
    }

    fn score_at(&self, row: usize) -> Option<f64> {
        self.scores.as_ref()?.get(self.scores_before(row))
    }

    /// Scored entries before this row. Counted from the nearer end, since what is looked for is mostly recent.
    fn scores_before(&self, row: usize) -> usize {
        let scored = |rows: Range<usize>| {
            let words = self.columns.words(rows);
            words
                .iter()
                .filter(|word| PackedRecord::from_bytes(**word).has_score())
                .count()
        };
        if row - self.start < self.end - row {
            scored(self.start..row)
        } else {
            self.scores.as_ref().map_or(0, |scores| scores.len()) - scored(row..self.end)
        }
    }

    /// Makes all entries before this time invisible.
    fn evict(&mut self, time: i64) {
        while self.start < self.end && self.base + self.columns.time(self.start) < time {
            if self.columns.word(self.start).has_score()
                && let Some(scores) = &mut self.scores
            {
                scores.pop_front();
            }
            self.start += 1;
        }
        match &mut self.scores {
            Some(scores) if scores.len() == 0 => self.scores = None,
            Some(scores) => scores.trim(),
            None => {}
        }
    }

    /// Sees to it that there is room for one more row with this kind of place, and not too much of it.
    fn make_room(&mut self, kind: PlaceKind) {
        let (live, capacity) = (self.len(), self.columns.capacity());
        let wanted = live + slack(live);
        let kind = kind.max(self.columns.places());
        if kind != self.columns.places() || capacity > live + tolerance(live) {
            self.columns.relocate(&self.rows(), wanted, kind);
        } else if self.end < capacity {
            return;
        } else if wanted <= capacity {
            self.columns.compact(&self.rows());
        } else {
            self.columns.relocate(&self.rows(), wanted, kind);
        }
        (self.start, self.end) = (0, live);
    }
}

/// Room kept free beyond so many in use: an eighth, so that moving them costs each new one a constant.
pub(super) fn slack(used: usize) -> usize {
    (used / 8).max(2)
}

/// Room left alone before memory is given back: more than the slack, lest it goes back and forth.
pub(super) fn tolerance(used: usize) -> usize {
    (used * 3 / 16).max(4)
}
