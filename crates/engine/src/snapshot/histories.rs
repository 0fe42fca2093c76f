//! Histories as bytes, from one engine to another.
//!
//! What an engine writes begins with the byte 1, a length of 4 bytes and the state beside the histories as JSON. Then for
//! each user, in little-endian numbers, the byte 0 and:
//!
//! ```text
//!  key  rows scores arrivals  hour  dropped until  flags  times records ids  senders places scores arrivals further members
//!  16   4    4      4         4     8              1      8·n   8·n     8·n  2·n     p      8·s    12·a     with their flags
//! ```
//!
//! Members are the number of each row's ruling (4 bytes a row), a number of texts (4), each with its length (4), and for each
//! remembered member of the state the cells of the rows: 1 byte for a bool, 8 for a number or money, and for a string 4 bytes
//! with the number of the text, from 1.
//!
//! Columns compress best in this order. Times are microseconds since 1970, arrivals a time in milliseconds (8 bytes) and how
//! often it occurred (4). A place has the bytes of its kind, which its record names. Further indicators are a length of 4
//! bytes, and for each row whose record has that bit a number of names (2 bytes), each with its length (1 byte): names, since
//! the numbers of indicators differ between processes. Bytes of any other form are an error and never a panic.

use std::collections::HashMap;

use tollgate_policy::MemberType;
use tollgate_types::{Indicator, Indicators};

use super::FORMAT;
use crate::Engine;
use crate::policy::{PartState, SavedState};
use crate::state::layout::{BLOCK_ROWS, MAX_PLACE_BYTES, TIME_LIMIT, slack};
use crate::state::{
    Arrivals, Block, History, MemberColumns, PackedRecord, PlaceKind, Row, Texts, UserKey, cell,
};

/// The bytes are not what an engine wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a history, or one of another layout")]
pub struct UnreadableHistory;

/// Times are written whole.
const TIME_BYTES: usize = 8;
const RECORD_BYTES: usize = 8;
const ID_BYTES: usize = 8;
const SENDER_BYTES: usize = 2;
const SCORE_BYTES: usize = 8;
const ARRIVAL_BYTES: usize = 12;

/// The flag that further indicators follow the arrivals.
const FURTHER: u8 = 1;
/// The flag that members follow those.
const MEMBERS: u8 = 2;

/// What a part consists of.
const STATE: u8 = 1;
const HISTORY: u8 = 0;

/// No row was dropped.
const NOTHING_DROPPED: i64 = i64::MIN;

/// Times beyond these are not those of transactions.
const TIMES: std::ops::Range<i64> = -(1 << 60)..1 << 60;

impl Engine {
    /// Appends every user's history, and returns the snapshot format that holds them.
    pub fn write_histories(&self, out: &mut Vec<u8>) -> u32 {
        // Every part of it serialises.
        let state = serde_json::to_vec(&self.saved_state()).unwrap_or_default();
        out.push(STATE);
        out.extend_from_slice(&length(state.len()));
        out.extend_from_slice(&state);
        let kinds: Vec<MemberType> = match self.policies() {
            Some(policies) => policies.kinds().collect(),
            None => Vec::new(),
        };
        for (UserKey(first, second), history) in self.histories() {
            out.push(HISTORY);
            out.extend_from_slice(&first.to_le_bytes());
            out.extend_from_slice(&second.to_le_bytes());
            write_history(history, out);
            if let (Some(members), Some(policies)) = (&history.members, self.policies()) {
                write_members(members, &kinds, &policies.texts, out);
            }
        }
        FORMAT
    }

    /// Takes over the histories of the users for which `keep` returns true, and what changes had brought. They must come from
    /// engines of one partition with the same hash key, which had applied the same changes. Users that are here already are
    /// replaced.
    ///
    /// # Errors
    /// Where the bytes are not histories; those before the fault are taken over.
    pub fn read_histories(
        &mut self,
        mut bytes: &[u8],
        keep: impl Fn(UserKey) -> bool,
    ) -> Result<(), UnreadableHistory> {
        let mut part = PartState::default();
        while !bytes.is_empty() {
            let [kind] = take_array(&mut bytes)?;
            if kind == STATE {
                let length = take_u32(&mut bytes)? as usize;
                let state: SavedState = serde_json::from_slice(take(&mut bytes, length)?)
                    .map_err(|_| UnreadableHistory)?;
                part = self.restore_state(&state).ok_or(UnreadableHistory)?;
                continue;
            }
            if kind != HISTORY {
                return Err(UnreadableHistory);
            }
            let key = UserKey(take_u64(&mut bytes)?, take_u64(&mut bytes)?);
            let parts = Parts::read(&mut bytes)?;
            let members = if parts.flags & MEMBERS == 0 {
                None
            } else {
                Some(Members::read(&mut bytes, parts.times.len(), &part)?)
            };
            if keep(key) {
                let rows = parts.times.len();
                let mut history = parts.history(self.lookback())?;
                if let Some(members) = members {
                    let policies = self.policies_mut().ok_or(UnreadableHistory)?;
                    let kinds: Vec<MemberType> = policies.kinds().collect();
                    let evicted = rows - history.len();
                    let columns = members.columns(evicted, &part, &kinds, &mut policies.texts)?;
                    history.members = Some(Box::new(columns));
                }
                self.replace_history(key, history);
            }
        }
        Ok(())
    }
}

fn write_members(columns: &MemberColumns, kinds: &[MemberType], texts: &Texts, out: &mut Vec<u8>) {
    let rows = columns.len();
    for row in 0..rows {
        out.extend_from_slice(&columns.ruling(row).to_le_bytes());
    }
    let mut numbers: HashMap<u32, u32> = HashMap::new();
    let at = out.len();
    out.extend_from_slice(&length(0));
    for (member, kind) in kinds.iter().enumerate() {
        if *kind != MemberType::String {
            continue;
        }
        for row in 0..rows {
            let code = cell::text(columns.get(member, *kind, row));
            if let Some(text) = texts.get(code) {
                let next = u32::try_from(numbers.len() + 1).unwrap_or(u32::MAX);
                numbers.entry(code).or_insert_with(|| {
                    out.extend_from_slice(&length(text.len()));
                    out.extend_from_slice(text.as_bytes());
                    next
                });
            }
        }
    }
    out[at..at + size_of::<u32>()].copy_from_slice(&length(numbers.len()));
    for (member, kind) in kinds.iter().enumerate() {
        for row in 0..rows {
            let value = columns.get(member, *kind, row);
            match kind {
                MemberType::String => {
                    let number = numbers.get(&cell::text(value)).copied();
                    out.extend_from_slice(&number.unwrap_or_default().to_le_bytes());
                }
                MemberType::Bool => out.push(u8::try_from(value).unwrap_or_default()),
                MemberType::Number | MemberType::Money => {
                    out.extend_from_slice(&value.to_le_bytes());
                }
            }
        }
    }
}

/// The bytes of one user's members.
struct Members<'a> {
    rulings: &'a [[u8; 4]],
    texts: Vec<&'a str>,
    /// The cells of each member.
    cells: Vec<&'a [u8]>,
}

impl<'a> Members<'a> {
    fn read(
        bytes: &mut &'a [u8],
        rows: usize,
        part: &PartState,
    ) -> Result<Self, UnreadableHistory> {
        let rulings = take_cells(bytes, rows)?;
        let mut texts = Vec::new();
        for _ in 0..take_u32(bytes)? {
            let length = take_u32(bytes)? as usize;
            let text = std::str::from_utf8(take(bytes, length)?);
            texts.push(text.map_err(|_| UnreadableHistory)?);
        }
        let mut cells = Vec::new();
        for (kind, _) in &part.columns {
            let length = rows.checked_mul(width(*kind)).ok_or(UnreadableHistory)?;
            cells.push(take(bytes, length)?);
        }
        Ok(Self {
            rulings,
            texts,
            cells,
        })
    }

    /// The columns of the rows after the first `evicted`.
    fn columns(
        &self,
        evicted: usize,
        part: &PartState,
        kinds: &[MemberType],
        texts: &mut Texts,
    ) -> Result<MemberColumns, UnreadableHistory> {
        let mut columns = MemberColumns::default();
        columns.complete(kinds.iter().copied());
        let mut row_cells: Vec<u64> = Vec::with_capacity(kinds.len());
        let rulings = self.rulings.iter().enumerate().skip(evicted);
        for (row, ruling) in rulings {
            row_cells.clear();
            row_cells.extend(kinds.iter().map(|kind| cell::unknown(*kind)));
            for ((kind, own), cells) in part.columns.iter().zip(&self.cells) {
                let width = width(*kind);
                let mut bytes = [0; 8];
                let cell = cells.get(row * width..(row + 1) * width);
                bytes[..width].copy_from_slice(cell.ok_or(UnreadableHistory)?);
                let mut value = u64::from_le_bytes(bytes);
                if *kind == MemberType::String && value > 0 {
                    let at = usize::try_from(value - 1).map_err(|_| UnreadableHistory)?;
                    value = texts
                        .hold(self.texts.get(at).ok_or(UnreadableHistory)?)
                        .into();
                }
                *row_cells.get_mut(*own).ok_or(UnreadableHistory)? = value;
            }
            let ruling = u32::from_le_bytes(*ruling) as usize;
            let ruling = part.rulings.get(ruling).ok_or(UnreadableHistory)?;
            columns.insert(columns.len(), *ruling, &row_cells);
        }
        Ok(columns)
    }
}

const fn width(kind: MemberType) -> usize {
    match kind {
        MemberType::Bool => 1,
        MemberType::String => 4,
        MemberType::Number | MemberType::Money => 8,
    }
}

fn write_history(history: &History, out: &mut Vec<u8>) {
    let scores = || {
        let blocks = history.blocks();
        blocks.filter_map(|block| block.scores.as_deref())
    };
    let further = || {
        let blocks = history.blocks();
        blocks.filter_map(|block| block.further.as_deref())
    };
    let (score_count, further_count): (usize, usize) = (
        scores().map(|scores| scores.len()).sum(),
        further().map(|further| further.len()).sum(),
    );
    let arrivals = &history.arrivals;
    for count in [history.len(), score_count, arrivals.len()] {
        out.extend_from_slice(&length(count));
    }
    out.extend_from_slice(&history.seen_hour.to_le_bytes());
    let dropped = history.dropped_until().unwrap_or(NOTHING_DROPPED);
    out.extend_from_slice(&dropped.to_le_bytes());
    let further_flag = if further_count > 0 { FURTHER } else { 0 };
    let members_flag = if history.members.is_some() {
        MEMBERS
    } else {
        0
    };
    out.push(further_flag | members_flag);
    let rows = || {
        let blocks = history.blocks();
        blocks.flat_map(|block| block.rows().map(move |row| (block, row)))
    };
    for (block, row) in rows() {
        out.extend_from_slice(&block.time(row).to_le_bytes());
    }
    for block in history.blocks() {
        out.extend_from_slice(block.columns.records(block.rows()).as_flattened());
    }
    for (block, row) in rows() {
        out.extend_from_slice(&block.columns.id(row).to_le_bytes());
    }
    for (block, row) in rows() {
        out.extend_from_slice(&block.columns.sender(row).to_le_bytes());
    }
    for (block, row) in rows() {
        let width = block.columns.record(row).place_kind().width();
        out.extend_from_slice(&block.columns.place(row)[..width]);
    }
    for score in scores().flat_map(|scores| scores.iter()) {
        out.extend_from_slice(&score.to_le_bytes());
    }
    for (time, count) in arrivals.iter() {
        out.extend_from_slice(&time.to_le_bytes());
        out.extend_from_slice(&count.to_le_bytes());
    }
    if further_count > 0 {
        write_further(further().flat_map(|further| further.iter()), out);
    }
}

fn write_further<'a>(further: impl Iterator<Item = &'a [Indicator]>, out: &mut Vec<u8>) {
    let at = out.len();
    out.extend_from_slice(&length(0));
    for row in further {
        // Both fit: a process keeps fewer than 2^16 indicators, and their names are at most 64 bytes long.
        out.extend_from_slice(&u16::try_from(row.len()).unwrap_or_default().to_le_bytes());
        for indicator in row {
            let name = indicator.name();
            out.push(u8::try_from(name.len()).unwrap_or_default());
            out.extend_from_slice(name.as_bytes());
        }
    }
    let written = length(out.len() - at - size_of::<u32>());
    out[at..at + size_of::<u32>()].copy_from_slice(&written);
}

/// A number of rows or bytes. 2^32 rows do not fit in memory.
fn length(count: usize) -> [u8; 4] {
    u32::try_from(count).unwrap_or(u32::MAX).to_le_bytes()
}

/// The bytes of one history, by column.
struct Parts<'a> {
    flags: u8,
    seen_hour: u32,
    dropped_until: i64,
    times: &'a [[u8; TIME_BYTES]],
    records: &'a [[u8; RECORD_BYTES]],
    ids: &'a [[u8; ID_BYTES]],
    senders: &'a [[u8; SENDER_BYTES]],
    places: &'a [u8],
    scores: &'a [[u8; SCORE_BYTES]],
    arrivals: &'a [[u8; ARRIVAL_BYTES]],
    further: &'a [u8],
}

impl<'a> Parts<'a> {
    fn read(bytes: &mut &'a [u8]) -> Result<Self, UnreadableHistory> {
        let (rows, scores) = (take_u32(bytes)? as usize, take_u32(bytes)? as usize);
        let arrivals = take_u32(bytes)? as usize;
        let seen_hour = take_u32(bytes)?;
        let dropped_until = i64::from_le_bytes(take_array(bytes)?);
        let [flags] = take_array(bytes)?;
        if scores > rows || flags & !(FURTHER | MEMBERS) != 0 {
            return Err(UnreadableHistory);
        }
        let (times, records) = (take_cells(bytes, rows)?, take_cells(bytes, rows)?);
        let width = |record: &[u8; RECORD_BYTES]| {
            let kind = PackedRecord::from_bytes(*record).place_kind();
            kind.width()
        };
        Ok(Self {
            flags,
            seen_hour,
            dropped_until,
            times,
            records,
            ids: take_cells(bytes, rows)?,
            senders: take_cells(bytes, rows)?,
            places: take(bytes, records.iter().map(width).sum())?,
            scores: take_cells(bytes, scores)?,
            arrivals: take_cells(bytes, arrivals)?,
            further: if flags & FURTHER == 0 {
                &[]
            } else {
                let length = take_u32(bytes)? as usize;
                take(bytes, length)?
            },
        })
    }

    fn history(mut self, lookback: i64) -> Result<History, UnreadableHistory> {
        let dropped_until = Some(self.dropped_until).filter(|until| *until != NOTHING_DROPPED);
        let further = read_further(self.further)?;
        let mut further = further.iter().map(|row| &**row);
        let mut scores = self.scores.iter().map(|score| f64::from_le_bytes(*score));
        let mut blocks = Vec::new();
        let (mut latest, rows) = (TIMES.start, self.times.len());
        for first in (0..rows).step_by(BLOCK_ROWS) {
            let end = rows.min(first + BLOCK_ROWS);
            let block = self.block(first..end, rows, lookback, &mut latest)?;
            blocks.push(with_side(block, &mut scores, &mut further)?);
        }
        if scores.next().is_some() || further.next().is_some() {
            return Err(UnreadableHistory);
        }
        let mut history = History::new(blocks, dropped_until);
        history.seen_hour = self.seen_hour;
        history.arrivals = read_arrivals(self.arrivals)?;
        // The rules may look back less far than those of the writer.
        if rows > 0 {
            history.evict(latest - lookback);
        }
        Ok(history)
    }

    /// The block of these rows, of so many; `latest` is the time of the row before it.
    fn block(
        &mut self,
        rows: std::ops::Range<usize>,
        all: usize,
        lookback: i64,
        latest: &mut i64,
    ) -> Result<Block, UnreadableHistory> {
        let records = self.records[rows.clone()].iter();
        let kind = records
            .map(|record| PackedRecord::from_bytes(*record).place_kind())
            .max()
            .unwrap_or(PlaceKind::Absent);
        let room = if all > BLOCK_ROWS {
            BLOCK_ROWS
        } else {
            all + slack(all)
        };
        let (first, newest) = (
            i64::from_le_bytes(self.times[rows.start]),
            i64::from_le_bytes(self.times[all - 1]),
        );
        if !TIMES.contains(&first) || !TIMES.contains(&newest) {
            return Err(UnreadableHistory);
        }
        // No later than the oldest time that may still be inserted.
        let base = first.min(newest - lookback);
        let mut block = Block::with_room(room, kind, base);
        for row in rows {
            let time = i64::from_le_bytes(self.times[row]);
            let record = PackedRecord::from_bytes(self.records[row]);
            // In order, and such as a row can hold.
            if time < *latest || !(0..TIME_LIMIT).contains(&(time.saturating_sub(base))) {
                return Err(UnreadableHistory);
            }
            *latest = time;
            let width = record.place_kind().width();
            let mut place = [0; MAX_PLACE_BYTES];
            place[..width].copy_from_slice(take(&mut self.places, width)?);
            block.append(&Row {
                amount_fingerprint: record.amount_fingerprint(),
                time: time - base,
                record,
                id: u64::from_le_bytes(self.ids[row]),
                sender: u16::from_le_bytes(self.senders[row]),
                place,
            });
        }
        Ok(block)
    }
}

/// Adds to a block the scores and further indicators that its records say they have.
fn with_side<'a>(
    mut block: Block,
    scores: &mut impl Iterator<Item = f64>,
    further: &mut impl Iterator<Item = &'a [Indicator]>,
) -> Result<Block, UnreadableHistory> {
    for row in block.rows() {
        let record = block.columns.record(row);
        if record.has_score() {
            let score = scores.next().ok_or(UnreadableHistory)?;
            let queue = block.scores.get_or_insert_default();
            queue.insert(queue.len(), score);
        }
        if record.has_further() {
            let indicators = further.next().ok_or(UnreadableHistory)?;
            let queue = block.further.get_or_insert_default();
            queue.insert(queue.len(), indicators);
        }
    }
    Ok(block)
}

fn read_arrivals(cells: &[[u8; ARRIVAL_BYTES]]) -> Result<Arrivals, UnreadableHistory> {
    let arrivals: Vec<(i64, u32)> = cells
        .iter()
        .map(|cell| {
            let [a, b, c, d, e, f, g, h, count @ ..] = *cell;
            (
                i64::from_le_bytes([a, b, c, d, e, f, g, h]),
                u32::from_le_bytes(count),
            )
        })
        .collect();
    let in_order = arrivals.is_sorted_by(|one, next| one.0 < next.0);
    let whole = arrivals
        .iter()
        .all(|(time, count)| TIMES.contains(time) && *count > 0);
    let total = arrivals
        .iter()
        .try_fold(0, |sum: u32, (_, count)| sum.checked_add(*count));
    if !in_order || !whole || total.is_none() {
        return Err(UnreadableHistory);
    }
    Ok(Arrivals::restored(arrivals.into_iter()))
}

fn read_further(mut bytes: &[u8]) -> Result<Vec<Box<[Indicator]>>, UnreadableHistory> {
    let mut further = Vec::new();
    while !bytes.is_empty() {
        let mut row = Indicators::default();
        for _ in 0..u16::from_le_bytes(take_array(&mut bytes)?) {
            let [length] = take_array(&mut bytes)?;
            let name = std::str::from_utf8(take(&mut bytes, length.into())?);
            let name = name.map_err(|_| UnreadableHistory)?;
            row.insert(Indicator::intern(name).map_err(|_| UnreadableHistory)?);
        }
        // A name that is built in here was none where it was written: it is kept in the place that it had.
        further.push(row.iter().collect());
    }
    Ok(further)
}

fn take_cells<'a, const N: usize>(
    bytes: &mut &'a [u8],
    count: usize,
) -> Result<&'a [[u8; N]], UnreadableHistory> {
    let length = count.checked_mul(N).ok_or(UnreadableHistory)?;
    Ok(take(bytes, length)?.as_chunks().0)
}

fn take<'a>(bytes: &mut &'a [u8], length: usize) -> Result<&'a [u8], UnreadableHistory> {
    let (taken, rest) = bytes.split_at_checked(length).ok_or(UnreadableHistory)?;
    *bytes = rest;
    Ok(taken)
}

fn take_array<const N: usize>(bytes: &mut &[u8]) -> Result<[u8; N], UnreadableHistory> {
    let (taken, rest) = bytes.split_first_chunk().ok_or(UnreadableHistory)?;
    *bytes = rest;
    Ok(*taken)
}

fn take_u64(bytes: &mut &[u8]) -> Result<u64, UnreadableHistory> {
    take_array(bytes).map(u64::from_le_bytes)
}

fn take_u32(bytes: &mut &[u8]) -> Result<u32, UnreadableHistory> {
    take_array(bytes).map(u32::from_le_bytes)
}

#[cfg(test)]
mod tests;
