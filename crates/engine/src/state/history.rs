//! What is remembered of one user: packed rows in the order of (time, log).
//!
//! Invariant: after [`History::remember`] the visible rows are exactly those not older than the newest one's time less the
//! lookback, however much later their memory is freed.

use std::ops::Range;

use tollgate_types::{Amount, Indicators, Location, Status};

use super::columns::{self, Columns, Row, unpack_time};
use super::further::FurtherIndicators;
use super::layout::{ALLOCATION_OVERHEAD, RECORD_BYTES, TIME_LIMIT, slack, tolerance};
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
    pub(crate) indicators: &'a Indicators,
    pub(crate) status: Status,
    pub(crate) score: f64,
}

/// The verdict of an entry.
#[derive(Debug)]
pub(crate) struct Remembered {
    pub(crate) indicators: Indicators,
    pub(crate) status: Status,
    pub(crate) score: f64,
}

/// One user's entries.
#[derive(Default)]
pub(crate) struct History {
    pub(crate) columns: Columns,
    /// Rows before this one are evicted, and their memory not yet freed.
    start: u32,
    end: u32,
    /// What packed times count from, in microseconds since 1970. Never later than the oldest time that may be
    /// remembered.
    pub(crate) base: i64,
    /// Scores other than zero; absent while no row has one.
    pub(crate) scores: Option<Box<Scores>>,
    /// Indicators that are not built in; absent while no row has one.
    pub(crate) further: Option<Box<FurtherIndicators>>,
}

impl History {
    /// A history of these columns, of which so many rows are in use.
    pub(crate) fn new(
        columns: Columns,
        rows: usize,
        base: i64,
        scores: Scores,
        further: FurtherIndicators,
    ) -> Self {
        Self {
            columns,
            start: 0,
            end: row_number(rows),
            base,
            scores: (scores.len() > 0).then(|| Box::new(scores)),
            further: (further.len() > 0).then(|| Box::new(further)),
        }
    }

    const fn start(&self) -> usize {
        self.start as usize
    }

    const fn end(&self) -> usize {
        self.end as usize
    }

    /// Visible entries.
    pub(crate) const fn len(&self) -> usize {
        self.end() - self.start()
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

    /// The latest time remembered.
    pub(crate) fn newest(&self) -> Option<i64> {
        (self.len() > 0).then(|| self.base + self.columns.time(self.end() - 1))
    }

    /// The verdict on the transaction of this id.
    pub(crate) fn find(&self, id: u64) -> Option<Remembered> {
        let row = self.start() + self.columns.find_id(self.rows(), id)?;
        let record = self.columns.record(row);
        let mut remembered = Remembered {
            indicators: record.indicators(),
            status: record.status(),
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

    /// Entries in (after, until].
    pub(crate) fn count(&self, after: i64, until: i64) -> usize {
        self.between(after, until).len()
    }

    /// Entries of exactly this amount in (after, until], where there are at least `enough`.
    pub(crate) fn count_amount(
        &self,
        amount: Amount,
        after: i64,
        until: i64,
        enough: usize,
    ) -> Option<usize> {
        let rows = self.between(after, until);
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

    /// Time and place of the latest located entry in (after, before), both ends excluded; among equal times the
    /// later in the log.
    pub(crate) fn latest_place(&self, after: i64, before: i64) -> Option<(i64, Location)> {
        if self.columns.places() == PlaceKind::Absent {
            return None;
        }
        let rows = self.between(after, before - 1);
        let located = |record: &[u8; RECORD_BYTES]| {
            PackedRecord::from_bytes(*record).place_kind() != PlaceKind::Absent
        };
        let row = rows.start + self.columns.records(rows).iter().rposition(located)?;
        let kind = self.columns.record(row).place_kind();
        let location = place::unpack(kind, self.columns.place(row))?;
        Some((self.base + self.columns.time(row), location))
    }

    /// Puts an entry in its place and evicts what is older than the newest one less the lookback.
    ///
    /// The entry itself must not be older than that.
    pub(crate) fn remember(&mut self, entry: &Entry<'_>, lookback: i64) {
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
        let (kind, place) = place::pack(entry.location);
        self.make_room(kind);
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
            place,
        };
        self.columns.insert(at, self.end(), &row);
        self.end += 1;
    }

    /// The visible rows.
    pub(crate) const fn rows(&self) -> Range<usize> {
        self.start()..self.end()
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

    /// Makes all entries before this time invisible.
    fn evict(&mut self, time: i64) {
        while self.start() < self.end() && self.base + self.columns.time(self.start()) < time {
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

    /// Makes room for one more row with this kind of place, and frees what is beyond the tolerance.
    fn make_room(&mut self, kind: PlaceKind) {
        let (live, capacity) = (self.len(), self.columns.capacity());
        let wanted = live + slack(live);
        let kind = kind.max(self.columns.places());
        if kind != self.columns.places() || capacity > live + tolerance(live) {
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

/// A row's number. 2^32 rows of one user do not fit in memory.
#[expect(clippy::cast_possible_truncation, reason = "see above")]
const fn row_number(row: usize) -> u32 {
    row as u32
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tollgate_types::Indicator;

    use super::*;

    fn indicators(numbers: &[u8]) -> Indicators {
        let name = |n: &u8| match Indicator::BUILT_IN.get(usize::from(*n)) {
            Some(built_in) => *built_in,
            None => Indicator::intern(&format!("rule_{n}")).unwrap(),
        };
        numbers.iter().map(name).collect()
    }

    proptest! {
        #[test]
        fn the_verdict_of_each_entry_is_returned_with_all_its_indicators(
            entries in prop::collection::vec(
                (0..60_i64, prop::collection::vec(0..9_u8, 0..5), prop::option::of(0.5..300.0)),
                1..150,
            ),
        ) {
            const LOOKBACK: i64 = 40;
            let (mut history, mut remembered) = (History::default(), Vec::new());
            let mut newest = i64::MIN;
            for (id, (ahead, fired, score)) in (0..).zip(&entries) {
                // Some before the newest entry, some after, so that rows are inserted in between and evicted.
                let time = id / 2 + ahead - 20;
                if newest > i64::MIN && time < newest - LOOKBACK {
                    continue;
                }
                newest = newest.max(time);
                let fired = indicators(fired);
                let score = score.unwrap_or_default();
                let entry = Entry {
                    time,
                    id: id.unsigned_abs(),
                    amount: Amount::default(),
                    location: None,
                    indicators: &fired,
                    status: Status::Review,
                    score,
                };
                history.remember(&entry, LOOKBACK);
                remembered.push((time, id.unsigned_abs(), fired, score));
                remembered.retain(|(time, ..)| *time >= newest - LOOKBACK);
                for (_, id, fired, score) in &remembered {
                    let found = history.find(*id).unwrap();
                    prop_assert_eq!(&found.indicators, fired);
                    prop_assert_eq!(found.score.to_bits(), score.to_bits());
                }
                prop_assert_eq!(history.len(), remembered.len());
                let further = remembered.iter().filter(|(_, _, fired, _)| !fired.beyond_built_in().is_empty());
                prop_assert_eq!(history.further.as_ref().map_or(0, |further| further.len()), further.count());
            }
        }
    }
}
