//! The rows of a long history: blocks in the order of (time, log), and indexes of ids and amounts.
//!
//! A row is inserted, found, counted and evicted at a cost that hardly depends on how many there are: a search over blocks,
//! and work within one of them. Invariant: the indexes hold exactly the visible rows of the blocks; no block in the order is
//! empty.

use hashbrown::HashTable;
use tollgate_types::{Amount, Location};

use super::amounts::Amounts;
use super::block::{Block, Entry, Remembered};
use super::layout::{ALLOCATION_OVERHEAD, BLOCK_ROWS, FEW_ROWS};
use super::packed_record::amount_bits;

/// Never: no row was dropped.
const NEVER: i64 = i64::MIN;

/// Blocks of one user, more than one block's rows at first.
pub(crate) struct Blocks {
    /// Blocks by number. One that is out of use is empty, and its number in `free`.
    blocks: Vec<Block>,
    free: Vec<u32>,
    /// The blocks in order.
    order: Vec<Span>,
    ids: HashTable<IdSlot>,
    amounts: Amounts,
    rows: usize,
    /// Memory of the blocks.
    block_bytes: usize,
    /// The latest time of a row that was dropped although it was within the lookback.
    dropped_until: i64,
}

/// A block in the order of time, with what is read of it when many are passed.
struct Span {
    last: i64,
    block: u32,
    rows: u32,
    located: u32,
}

/// Which block has a row, by 32 bits of its id.
#[derive(Clone, Copy, PartialEq, Eq)]
struct IdSlot {
    tag: u32,
    block: u32,
}

impl IdSlot {
    const fn new(id: u64, block: u32) -> Self {
        // The search within a block begins with the lowest bits.
        Self {
            tag: (id >> 32) as u32,
            block,
        }
    }

    /// The table takes its position from the low bits and its tag from the highest.
    fn hash(&self) -> u64 {
        u64::from(self.tag).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }
}

impl Blocks {
    /// Blocks in order, none of which is empty, and the latest time of a dropped row.
    pub(crate) fn new(blocks: Vec<Block>, dropped_until: Option<i64>) -> Self {
        let mut all = Self {
            blocks: Vec::new(),
            free: Vec::new(),
            order: Vec::new(),
            ids: HashTable::new(),
            amounts: Amounts::default(),
            rows: 0,
            block_bytes: 0,
            dropped_until: dropped_until.unwrap_or(NEVER),
        };
        for block in blocks {
            all.rows += block.len();
            let at = all.order.len();
            let number = all.add(at, block);
            for row in all.blocks[number as usize].rows() {
                let (id, amount, time) = all.key(number, row);
                all.ids.insert_unique(
                    IdSlot::new(id, 0).hash(),
                    IdSlot::new(id, number),
                    IdSlot::hash,
                );
                all.amounts.insert(amount, time);
            }
        }
        all
    }

    pub(crate) const fn len(&self) -> usize {
        self.rows
    }

    /// Whether so few rows are left that they should be one block, and nothing else is remembered of the others.
    pub(crate) const fn are_few(&self) -> bool {
        self.rows <= FEW_ROWS
    }

    /// One block of all rows, none of which is before `base`.
    pub(crate) fn into_block(mut self, base: i64) -> Block {
        let order = std::mem::take(&mut self.order);
        let blocks = order
            .iter()
            .map(|span| std::mem::take(&mut self.blocks[span.block as usize]));
        Block::joined(blocks.collect(), base)
    }

    pub(crate) fn first_time(&self) -> Option<i64> {
        self.in_order().next()?.first_time()
    }

    pub(crate) fn last_time(&self) -> Option<i64> {
        self.order.last().map(|span| span.last)
    }

    /// The latest time of a row that was dropped although it was within the lookback.
    pub(crate) fn dropped_until(&self) -> Option<i64> {
        (self.dropped_until != NEVER).then_some(self.dropped_until)
    }

    /// Reports that no row of this time is remembered.
    pub(crate) fn dropped(&mut self, time: i64) {
        self.dropped_until = self.dropped_until.max(time);
    }

    /// The blocks, in order.
    pub(crate) fn in_order(&self) -> impl Iterator<Item = &Block> {
        let blocks = |span: &Span| &self.blocks[span.block as usize];
        self.order.iter().map(blocks)
    }

    /// Memory held, the struct itself included, since it is boxed.
    pub(crate) fn bytes(&self) -> usize {
        let vectors = self.blocks.capacity() * size_of::<Block>()
            + self.free.capacity() * size_of::<u32>()
            + self.order.capacity() * size_of::<Span>();
        let allocations = 4 * ALLOCATION_OVERHEAD;
        size_of::<Self>()
            + vectors
            + allocations
            + self.ids.allocation_size()
            + self.amounts.heap_bytes()
            + self.block_bytes
    }

    /// What is remembered of the transaction of this id.
    pub(crate) fn find(&self, id: u64) -> Option<Remembered> {
        let wanted = IdSlot::new(id, 0);
        self.ids
            .iter_hash(wanted.hash())
            .filter(|slot| slot.tag == wanted.tag)
            .find_map(|slot| self.blocks[slot.block as usize].find(id))
    }

    /// Rows of the times in (after, before), both ends excluded.
    pub(crate) fn count(&self, after: i64, before: i64) -> usize {
        let (first, last) = (self.first_after(after), self.first_after(before - 1));
        if last <= first {
            return 0;
        }
        let rows: usize = self.order[first.0..last.0]
            .iter()
            .map(|span| span.rows as usize)
            .sum();
        rows + last.1 - first.1
    }

    /// Rows up to this time, which is included.
    pub(crate) fn rank(&self, time: i64) -> usize {
        let (span, row) = self.first_after(time);
        let before = self.order[..span].iter();
        before.map(|span| span.rows as usize).sum::<usize>() + row
    }

    /// Rows of exactly this amount in (after, before), both ends excluded.
    pub(crate) fn count_amount(&self, amount: Amount, after: i64, before: i64) -> usize {
        self.amounts.count(amount_bits(amount), after, before)
    }

    /// Time and place of the last row in (after, until] that has a place.
    pub(crate) fn last_place(
        &self,
        after: i64,
        until: i64,
        null_island: bool,
    ) -> Option<(i64, Location)> {
        let mut end = self.order.len().min(self.span_after(until) + 1);
        while let Some(at) = self.order[..end].iter().rposition(|span| span.located > 0) {
            if self.order[at].last <= after {
                return None;
            }
            let block = &self.blocks[self.order[at].block as usize];
            if let Some(found) = block.last_place(block.between(after, until), null_island) {
                return Some(found);
            }
            end = at;
        }
        None
    }

    /// The time of the first row in (after, before), both ends excluded, that has a place.
    pub(crate) fn first_located_time(
        &self,
        after: i64,
        before: i64,
        null_island: bool,
    ) -> Option<i64> {
        let spans = self.order[self.span_after(after)..].iter();
        for span in spans.filter(|span| span.located > 0) {
            let block = &self.blocks[span.block as usize];
            if block.first_time().is_none_or(|first| first >= before) {
                return None;
            }
            let found = block.first_located_time(block.between(after, before - 1), null_island);
            if found.is_some() {
                return found;
            }
        }
        None
    }

    /// Puts an entry in its place.
    pub(crate) fn insert(&mut self, entry: &Entry<'_>, lookback: i64) {
        let at = self.span_with_room(entry, lookback);
        let number = self.order[at].block;
        self.change(at, |block| block.insert(entry, lookback, BLOCK_ROWS));
        let slot = IdSlot::new(entry.id, number);
        self.ids.insert_unique(slot.hash(), slot, IdSlot::hash);
        self.amounts.insert(amount_bits(entry.amount), entry.time);
        self.rows += 1;
    }

    /// Removes all rows before this time.
    pub(crate) fn evict(&mut self, time: i64) {
        if self.dropped_until < time {
            self.dropped_until = NEVER;
        }
        let whole = self.order.partition_point(|span| span.last < time);
        for span in self.order.drain(..whole).collect::<Vec<_>>() {
            let rows = self.blocks[span.block as usize].rows();
            self.forget(span.block, rows);
            let block = std::mem::take(&mut self.blocks[span.block as usize]);
            self.block_bytes -= block.heap_bytes();
            self.free.push(span.block);
        }
        let Some(first) = self.order.first() else {
            return;
        };
        let (number, block) = (first.block, &self.blocks[first.block as usize]);
        let end = block.first_after(time - 1);
        let rows = block.rows().start..end;
        if !rows.is_empty() {
            self.forget(number, rows);
            self.change(0, |block| block.evict_rows_before(end));
        }
    }

    /// Removes the oldest row, although it is within the lookback.
    pub(crate) fn drop_oldest(&mut self) {
        let Some(oldest) = self.first_time() else {
            return;
        };
        let number = self.order[0].block;
        let rows = self.blocks[number as usize].rows();
        let end = rows.start + 1;
        self.forget(number, rows.start..end);
        self.change(0, |block| block.evict_rows_before(end));
        if self.order[0].rows == 0 {
            let span = self.order.remove(0);
            let block = std::mem::take(&mut self.blocks[span.block as usize]);
            self.block_bytes -= block.heap_bytes();
            self.free.push(span.block);
        }
        self.dropped(oldest);
    }

    /// Removes rows from the indexes.
    fn forget(&mut self, number: u32, rows: std::ops::Range<usize>) {
        self.rows -= rows.len();
        for row in rows {
            let (id, amount, time) = self.key(number, row);
            let slot = IdSlot::new(id, number);
            if let Ok(found) = self.ids.find_entry(slot.hash(), |each| *each == slot) {
                found.remove();
            }
            self.amounts.remove(amount, time);
        }
    }

    /// Changes a block and what the order knows of it.
    fn change(&mut self, at: usize, change: impl FnOnce(&mut Block)) {
        let span = &mut self.order[at];
        let block = &mut self.blocks[span.block as usize];
        let before = block.heap_bytes();
        change(block);
        self.block_bytes = self.block_bytes + block.heap_bytes() - before;
        *span = Span::of(span.block, block);
    }

    /// Where in the order this entry belongs, in a block that has room for it.
    fn span_with_room(&mut self, entry: &Entry<'_>, lookback: i64) -> usize {
        let at = self.span_after(entry.time);
        let is_last = at == self.order.len();
        let at = if is_last { at.saturating_sub(1) } else { at };
        let Some(block) = self
            .order
            .get(at)
            .map(|span| &self.blocks[span.block as usize])
        else {
            return self.add_empty(0, entry, lookback);
        };
        if !block.is_full() {
            return at;
        }
        if is_last {
            // In order, blocks are filled completely.
            return self.add_empty(at + 1, entry, lookback);
        }
        if block.first_time().is_some_and(|first| entry.time < first) {
            let before = at.checked_sub(1);
            return match before {
                Some(before) if (self.order[before].rows as usize) < BLOCK_ROWS => before,
                _ => self.add_empty(at, entry, lookback),
            };
        }
        self.split(at);
        at + usize::from(self.order[at].last <= entry.time)
    }

    fn add_empty(&mut self, at: usize, entry: &Entry<'_>, lookback: i64) -> usize {
        let (kind, _) = super::place::pack(entry.location);
        self.add(
            at,
            Block::with_room(BLOCK_ROWS, kind, entry.time - lookback),
        );
        at
    }

    /// Adds a block at this place of the order; returns its number.
    fn add(&mut self, at: usize, block: Block) -> u32 {
        let number = self.free.pop().unwrap_or_else(|| {
            self.blocks.push(Block::default());
            super::columns::row_number(self.blocks.len() - 1)
        });
        self.block_bytes += block.heap_bytes();
        self.order.insert(at, Span::of(number, &block));
        self.blocks[number as usize] = block;
        number
    }

    /// Splits a block in two.
    fn split(&mut self, at: usize) {
        let from = self.order[at].block;
        let mut later = Block::default();
        self.change(at, |block| later = block.split());
        let to = self.add(at + 1, later);
        for row in self.blocks[to as usize].rows() {
            let slot = IdSlot::new(self.blocks[to as usize].columns.id(row), from);
            if let Some(found) = self.ids.find_mut(slot.hash(), |each| *each == slot) {
                found.block = to;
            }
        }
    }

    /// Place in the order and row in its block of the first row after this time.
    fn first_after(&self, time: i64) -> (usize, usize) {
        let at = self.span_after(time);
        let row = self.order.get(at).map_or(0, |span| {
            let block = &self.blocks[span.block as usize];
            block.first_after(time) - block.rows().start
        });
        (at, row)
    }

    /// The first place of the order whose block has a row after this time.
    fn span_after(&self, time: i64) -> usize {
        // Most transactions are the newest of their user.
        match self.order.last() {
            Some(newest) if newest.last > time => {
                self.order.partition_point(|span| span.last <= time)
            }
            _ => self.order.len(),
        }
    }

    fn key(&self, number: u32, row: usize) -> (u64, u64, i64) {
        let block = &self.blocks[number as usize];
        let columns = &block.columns;
        (
            columns.id(row),
            columns.record(row).amount(),
            block.time(row),
        )
    }
}

impl Span {
    fn of(number: u32, block: &Block) -> Self {
        Self {
            last: block.last_time().unwrap_or(i64::MIN),
            block: number,
            rows: super::columns::row_number(block.len()),
            located: block.located(),
        }
    }
}
