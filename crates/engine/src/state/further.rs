//! The indicators that are not built in, of the rows that have any, in the order of the rows.
//!
//! Few rows have one. Where none has, the history holds no queue; in a row they cost an allocation of their own.

use std::collections::VecDeque;

use tollgate_types::Indicator;

use super::layout::{ALLOCATION_OVERHEAD, slack, tolerance};

/// Indicators by rank among the rows that have any.
#[derive(Default)]
pub(crate) struct FurtherIndicators {
    rows: VecDeque<Box<[Indicator]>>,
    /// Bytes of all rows, with the allocator's own.
    row_bytes: usize,
}

impl FurtherIndicators {
    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }

    pub(crate) fn get(&self, rank: usize) -> &[Indicator] {
        self.rows.get(rank).map_or(&[], |row| row)
    }

    /// Every row, in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &[Indicator]> {
        self.rows.iter().map(|row| &**row)
    }

    pub(crate) fn insert(&mut self, rank: usize, indicators: &[Indicator]) {
        if self.rows.len() == self.rows.capacity() {
            self.rows.reserve_exact(slack(self.rows.len()));
        }
        self.row_bytes += bytes_of(indicators);
        self.rows.insert(rank, indicators.into());
    }

    /// The rows from this rank on, which are removed here.
    pub(crate) fn split_off(&mut self, rank: usize) -> Self {
        let rows = self.rows.split_off(rank);
        let row_bytes = rows.iter().map(|row| bytes_of(row)).sum();
        self.row_bytes -= row_bytes;
        Self { rows, row_bytes }
    }

    pub(crate) fn append(&mut self, mut later: Self) {
        self.rows.append(&mut later.rows);
        self.row_bytes += later.row_bytes;
    }

    pub(crate) fn pop_front(&mut self) {
        if let Some(row) = self.rows.pop_front() {
            self.row_bytes -= bytes_of(&row);
        }
    }

    /// Frees memory beyond the tolerance.
    pub(crate) fn trim(&mut self) {
        let used = self.rows.len();
        if self.rows.capacity() > used + tolerance(used) {
            self.rows
                .shrink_to(if used == 0 { 0 } else { used + slack(used) });
        }
    }

    /// Memory held, the struct itself included, since it is boxed.
    pub(crate) fn bytes(&self) -> usize {
        let queue = self.rows.capacity() * size_of::<Box<[Indicator]>>();
        let overhead = if queue == 0 { 0 } else { ALLOCATION_OVERHEAD };
        size_of::<Self>() + ALLOCATION_OVERHEAD + queue + overhead + self.row_bytes
    }
}

fn bytes_of(row: &[Indicator]) -> usize {
    size_of_val(row) + ALLOCATION_OVERHEAD
}
