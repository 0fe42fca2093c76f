//! What policies read of a user's rows, as columns beside the packed ones.
//!
//! ```text
//!  a row   ruling  string  number, money  bool
//!          4       4       8              1      bytes for each remembered member of the type
//! ```
//!
//! A ruling is the number of a policy and of what decided under it; a string is a code of [`Texts`]. Members are numbered as the
//! engine remembers them; a user has a column from the first row on that was remembered since.
//!
//! Invariant: every column has one cell for each row of the history, in the same order. A cell of a row that was remembered
//! before its member was is unknown.

use std::collections::VecDeque;

use tollgate_policy::MemberType;

use super::layout::{ALLOCATION_OVERHEAD, slack, tolerance};
use super::texts::Texts;

/// Values as 64 bits, of which each type has its own meaning. Two values of a type are equal exactly if their cells are.
pub(crate) mod cell {
    use tollgate_policy::MemberType;

    const UNKNOWN_MONEY: u64 = 1 << 63;
    /// No number is NaN.
    const UNKNOWN_NUMBER: u64 = 0x7ff8_0000_0000_0000;

    pub(crate) const fn unknown(kind: MemberType) -> u64 {
        match kind {
            MemberType::String | MemberType::Bool => 0,
            MemberType::Number => UNKNOWN_NUMBER,
            MemberType::Money => UNKNOWN_MONEY,
        }
    }

    pub(crate) const fn of_bool(value: bool) -> u64 {
        if value { 2 } else { 1 }
    }

    pub(crate) const fn bool(cell: u64) -> Option<bool> {
        match cell {
            1 => Some(false),
            2 => Some(true),
            _ => None,
        }
    }

    /// Money in ten-thousandths; that of members is far within 64 bits.
    pub(crate) const fn of_money(ten_thousandths: i64) -> u64 {
        ten_thousandths.cast_unsigned()
    }

    pub(crate) const fn money(cell: u64) -> Option<i64> {
        if cell == UNKNOWN_MONEY {
            None
        } else {
            Some(cell.cast_signed())
        }
    }

    pub(crate) const fn of_number(value: f64) -> u64 {
        value.to_bits()
    }

    pub(crate) fn number(cell: u64) -> Option<f64> {
        Some(f64::from_bits(cell)).filter(|value| !value.is_nan())
    }

    pub(crate) fn text(cell: u64) -> u32 {
        u32::try_from(cell).unwrap_or_default()
    }
}

/// The columns of one user.
#[derive(Default)]
pub(crate) struct MemberColumns {
    rulings: VecDeque<u32>,
    columns: Vec<Column>,
}

enum Column {
    Texts(VecDeque<u32>),
    Wide(VecDeque<u64>),
    Bools(VecDeque<u8>),
}

impl MemberColumns {
    /// Columns of rows that were remembered before: their rulings are 0 and their members unknown.
    pub(crate) fn of_rows(rows: usize) -> Self {
        Self {
            rulings: std::iter::repeat_n(0, rows).collect(),
            columns: Vec::new(),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.rulings.len()
    }

    /// Adds the columns that are missing of these members.
    pub(crate) fn complete(&mut self, kinds: impl Iterator<Item = MemberType>) {
        let rows = self.len();
        for kind in kinds.skip(self.columns.len()) {
            self.columns.push(Column::unknown(kind, rows));
        }
    }

    pub(crate) fn ruling(&self, row: usize) -> u32 {
        self.rulings.get(row).copied().unwrap_or_default()
    }

    /// The cell of a member of this type; unknown where there is none.
    pub(crate) fn get(&self, member: usize, kind: MemberType, row: usize) -> u64 {
        let found = self.columns.get(member).and_then(|column| column.get(row));
        found.unwrap_or(cell::unknown(kind))
    }

    /// Puts in a row, with a cell for each column.
    pub(crate) fn insert(&mut self, row: usize, ruling: u32, cells: &[u64]) {
        insert(&mut self.rulings, row, ruling);
        for (column, cell) in self.columns.iter_mut().zip(cells) {
            column.insert(row, *cell);
        }
    }

    /// Removes the first rows.
    pub(crate) fn evict(&mut self, rows: usize, texts: &mut Texts) {
        if rows == 0 {
            return;
        }
        evict(&mut self.rulings, rows, |_| ());
        for column in &mut self.columns {
            column.evict(rows, texts);
        }
    }

    /// Memory held, the struct itself included, since it is boxed.
    pub(crate) fn bytes(&self) -> usize {
        let columns: usize = self.columns.iter().map(Column::bytes).sum();
        size_of::<Self>()
            + self.rulings.capacity() * size_of::<u32>()
            + self.columns.capacity() * size_of::<Column>()
            + columns
            + 3 * ALLOCATION_OVERHEAD
    }
}

impl Column {
    fn unknown(kind: MemberType, rows: usize) -> Self {
        match kind {
            MemberType::String => Self::Texts(std::iter::repeat_n(0, rows).collect()),
            MemberType::Bool => Self::Bools(std::iter::repeat_n(0, rows).collect()),
            MemberType::Number | MemberType::Money => {
                let cells = std::iter::repeat_n(cell::unknown(kind), rows);
                Self::Wide(cells.collect())
            }
        }
    }

    fn get(&self, row: usize) -> Option<u64> {
        match self {
            Self::Texts(cells) => cells.get(row).copied().map(u64::from),
            Self::Wide(cells) => cells.get(row).copied(),
            Self::Bools(cells) => cells.get(row).copied().map(u64::from),
        }
    }

    fn insert(&mut self, row: usize, cell: u64) {
        match self {
            Self::Texts(cells) => insert(cells, row, cell::text(cell)),
            Self::Wide(cells) => insert(cells, row, cell),
            Self::Bools(cells) => insert(cells, row, u8::try_from(cell).unwrap_or_default()),
        }
    }

    fn evict(&mut self, rows: usize, texts: &mut Texts) {
        match self {
            Self::Texts(cells) => evict(cells, rows, |code| texts.release(code)),
            Self::Wide(cells) => evict(cells, rows, |_| ()),
            Self::Bools(cells) => evict(cells, rows, |_| ()),
        }
    }

    fn bytes(&self) -> usize {
        ALLOCATION_OVERHEAD
            + match self {
                Self::Texts(cells) => cells.capacity() * size_of::<u32>(),
                Self::Wide(cells) => cells.capacity() * size_of::<u64>(),
                Self::Bools(cells) => cells.capacity(),
            }
    }
}

fn insert<T>(cells: &mut VecDeque<T>, row: usize, cell: T) {
    if cells.len() == cells.capacity() {
        cells.reserve_exact(slack(cells.len()));
    }
    cells.insert(row.min(cells.len()), cell);
}

fn evict<T>(cells: &mut VecDeque<T>, rows: usize, each: impl FnMut(T)) {
    cells.drain(..rows.min(cells.len())).for_each(each);
    let used = cells.len();
    if cells.capacity() > used + tolerance(used) {
        cells.shrink_to(if used == 0 { 0 } else { used + slack(used) });
    }
}
