//! What is remembered of one user: rows in the order of (time, log), and when the latest ones came.
//!
//! Invariant: after [`History::remember`] the visible rows are exactly those not older than the newest one's time less the
//! lookback, and of these the newest where there are more than a user may have.

use tollgate_types::{Amount, Location};

use super::arrivals::Arrivals;
use super::block::{Block, Entry, Remembered};
use super::blocks::Blocks;
use super::layout::BLOCK_ROWS;
use super::members::MemberColumns;
use super::packed_record::PackedRecord;

/// One user's entries.
#[derive(Default)]
pub(crate) struct History {
    /// All rows, unless there are `many`.
    few: Block,
    many: Option<Box<Blocks>>,
    pub(crate) arrivals: Arrivals,
    /// The hour, since 1970, of the latest record of the user; 0 where no record had a timestamp.
    pub(crate) seen_hour: u32,
    /// What policies read of the rows; absent while no policy was ever in force.
    pub(crate) members: Option<Box<MemberColumns>>,
}

/// What bounds a history.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// How far it reaches back from its newest row, in microseconds.
    pub(crate) lookback: i64,
    /// Most rows; more than a block has.
    pub(crate) rows: usize,
}

impl History {
    /// A history of these blocks, which are in order.
    pub(crate) fn new(mut blocks: Vec<Block>, dropped_until: Option<i64>) -> Self {
        blocks.retain(|block| block.len() > 0);
        let is_few = blocks.len() <= 1 && dropped_until.is_none();
        let few = if is_few { blocks.pop() } else { None };
        Self {
            few: few.unwrap_or_default(),
            many: (!is_few).then(|| Box::new(Blocks::new(blocks, dropped_until))),
            ..Self::default()
        }
    }

    /// Visible entries.
    pub(crate) fn len(&self) -> usize {
        match &self.many {
            None => self.few.len(),
            Some(many) => many.len(),
        }
    }

    /// The rows in blocks, in order.
    pub(crate) fn blocks(&self) -> impl Iterator<Item = &Block> {
        let few = self.many.is_none().then_some(&self.few);
        few.into_iter()
            .chain(self.many.iter().flat_map(|many| many.in_order()))
    }

    /// Memory held beside the struct itself.
    pub(crate) fn heap_bytes(&self) -> usize {
        let many = self.many.as_ref().map_or(0, |many| many.bytes());
        let members = self.members.as_ref().map_or(0, |members| members.bytes());
        self.few.heap_bytes() + many + self.arrivals.heap_bytes() + members
    }

    /// The latest time remembered.
    pub(crate) fn newest(&self) -> Option<i64> {
        match &self.many {
            None => self.few.last_time(),
            Some(many) => many.last_time(),
        }
    }

    /// The latest time of a row that was dropped for want of room.
    pub(crate) fn dropped_until(&self) -> Option<i64> {
        self.many.as_ref()?.dropped_until()
    }

    /// Whether rows that should be visible to a transaction of this time were dropped.
    pub(crate) fn is_shortened(&self, time: i64, bounds: Bounds) -> bool {
        let newest = self.newest().map_or(time, |newest| newest.max(time));
        self.dropped_until()
            .is_some_and(|until| until >= newest - bounds.lookback)
    }

    /// What is remembered of the transaction of this id.
    pub(crate) fn find(&self, id: u64) -> Option<Remembered> {
        match &self.many {
            None => self.few.find(id),
            Some(many) => many.find(id),
        }
    }

    /// Entries in (after, before), both ends excluded.
    pub(crate) fn count(&self, after: i64, before: i64) -> usize {
        match &self.many {
            None => self.few.between(after, before - 1).len(),
            Some(many) => many.count(after, before),
        }
    }

    /// Entries up to this time, which is included.
    pub(crate) fn rank(&self, time: i64) -> usize {
        match &self.many {
            None => self.few.first_after(time) - self.few.rows().start,
            Some(many) => many.rank(time),
        }
    }

    /// The number of entries before that of this id. It is searched for in every block.
    pub(crate) fn position(&self, id: u64) -> Option<usize> {
        let mut before = 0;
        for block in self.blocks() {
            if let Some(row) = block.position(id) {
                return Some(before + row);
            }
            before += block.len();
        }
        None
    }

    /// Gives time and record of the entries in (after, before), both ends excluded, in order.
    pub(crate) fn each_between(
        &self,
        after: i64,
        before: i64,
        mut take: impl FnMut(i64, PackedRecord),
    ) {
        for block in self.blocks() {
            if block.first_time().is_some_and(|first| first >= before) {
                return;
            }
            for row in block.between(after, before - 1) {
                take(block.time(row), block.columns.record(row));
            }
        }
    }

    /// Entries of exactly this amount in (after, before), both ends excluded, where there are at least `enough`.
    pub(crate) fn count_amount(
        &self,
        amount: Amount,
        after: i64,
        before: i64,
        enough: usize,
    ) -> Option<usize> {
        match &self.many {
            None => {
                let rows = self.few.between(after, before - 1);
                self.few.count_amount(amount, rows, enough)
            }
            Some(many) => {
                Some(many.count_amount(amount, after, before)).filter(|count| *count >= enough)
            }
        }
    }

    /// Time and place of the latest located entry in (after, until]; among equal times the later in the log. With
    /// `null_island` a place of exactly 0/0 is none.
    pub(crate) fn latest_place(
        &self,
        after: i64,
        until: i64,
        null_island: bool,
    ) -> Option<(i64, Location)> {
        match &self.many {
            None => self
                .few
                .last_place(self.few.between(after, until), null_island),
            Some(many) => many.last_place(after, until, null_island),
        }
    }

    /// Time and place of the earliest located entry in (after, before), both ends excluded; among equal times the later in
    /// the log.
    pub(crate) fn earliest_place(
        &self,
        after: i64,
        before: i64,
        null_island: bool,
    ) -> Option<(i64, Location)> {
        // Most transactions are the newest of their user.
        if self.newest()? <= after {
            return None;
        }
        let earliest = match &self.many {
            None => self
                .few
                .first_located_time(self.few.between(after, before - 1), null_island),
            Some(many) => many.first_located_time(after, before, null_island),
        }?;
        self.latest_place(after, earliest, null_island)
    }

    /// Puts an entry in its place and evicts what is older than the newest one less the lookback.
    ///
    /// The entry itself must not be older than that. Returns whether it was put there: one that is older than all of a full
    /// history is dropped.
    pub(crate) fn remember(&mut self, entry: &Entry<'_>, bounds: Bounds) -> bool {
        let lookback = bounds.lookback;
        if self.newest().is_some_and(|newest| newest < entry.time) {
            self.evict(entry.time - lookback);
        }
        match &mut self.many {
            None if !self.few.is_full() => self.few.insert(entry, lookback, 0),
            None => {
                let few = std::mem::take(&mut self.few);
                let mut many = Box::new(Blocks::new(vec![few], None));
                many.insert(entry, lookback);
                self.many = Some(many);
            }
            Some(many) => {
                if many.len() >= bounds.rows.max(BLOCK_ROWS) {
                    if many.first_time().is_some_and(|oldest| entry.time < oldest) {
                        many.dropped(entry.time);
                        return false;
                    }
                    many.drop_oldest();
                }
                many.insert(entry, lookback);
            }
        }
        true
    }

    /// Takes note of a record of this hour.
    pub(crate) fn see(&mut self, hour: u32) {
        self.seen_hour = self.seen_hour.max(hour);
    }

    /// Removes all rows before this time.
    pub(crate) fn evict(&mut self, time: i64) {
        let Some(many) = &mut self.many else {
            let end = self.few.first_after(time - 1);
            self.few.evict_rows_before(end);
            return;
        };
        many.evict(time);
        if many.are_few()
            && let Some(many) = self.many.take()
        {
            self.few = many.into_block(time);
        }
    }
}

#[cfg(test)]
mod tests;
