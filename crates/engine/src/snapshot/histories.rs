//! Histories as bytes, from one engine to another.
//!
//! For each user, in little-endian numbers:
//!
//! ```text
//!  key     rows  scores  base  kind of place and flags  times  records  ids  places  scores  further indicators
//!  16      4     4       8     1                        8·n    8·n      8·n  p·n     8·s     only with FURTHER
//! ```
//!
//! Columns compress best in this order. Further indicators are a length of 4 bytes, and for each row whose record has that
//! bit a number of names (2 bytes), each with its length (1 byte): names, since the numbers of indicators differ between
//! processes. Bytes of any other form are an error and never a panic.

use tollgate_types::{Indicator, Indicators};

use super::{FORMAT_BUILT_IN, FORMAT_FURTHER};
use crate::Engine;
use crate::state::layout::{MAX_PLACE_BYTES, TIME_LIMIT, slack};
use crate::state::{
    Columns, FurtherIndicators, History, PackedRecord, PlaceKind, Row, Scores, UserKey,
};

/// The bytes are not what an engine wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a history, or one of another layout")]
pub struct UnreadableHistory;

/// Times are written whole.
const TIME_BYTES: usize = 8;
const RECORD_BYTES: usize = 8;
const ID_BYTES: usize = 8;
const SCORE_BYTES: usize = 8;

/// A bit beside the kind of place: further indicators follow the scores.
const FURTHER: u8 = 1 << 7;

impl Engine {
    /// Appends every user's history, and returns the lowest snapshot format that can hold them.
    pub fn write_histories(&self, out: &mut Vec<u8>) -> u32 {
        let mut format = FORMAT_BUILT_IN;
        for (UserKey(first, second), history) in self.histories() {
            out.extend_from_slice(&first.to_le_bytes());
            out.extend_from_slice(&second.to_le_bytes());
            if write_history(history, out) {
                format = FORMAT_FURTHER;
            }
        }
        format
    }

    /// Takes over the histories of the users for which `keep` returns true. They must come from an engine with the same
    /// hash key. Users that are here already are replaced.
    ///
    /// # Errors
    /// Where the bytes are not histories; those before the fault are taken over.
    pub fn read_histories(
        &mut self,
        mut bytes: &[u8],
        keep: impl Fn(UserKey) -> bool,
    ) -> Result<(), UnreadableHistory> {
        while !bytes.is_empty() {
            let key = UserKey(take_u64(&mut bytes)?, take_u64(&mut bytes)?);
            let header = HistoryHeader::read(&mut bytes)?;
            let columns = take(&mut bytes, header.bytes()?)?;
            let further = if header.has_further {
                let length = take_u32(&mut bytes)? as usize;
                take(&mut bytes, length)?
            } else {
                &[]
            };
            if keep(key) {
                self.replace_history(key, header.history(columns, further)?);
            }
        }
        Ok(())
    }
}

/// Appends one history; returns whether it has further indicators.
fn write_history(history: &History, out: &mut Vec<u8>) -> bool {
    let rows = history.rows();
    let columns = &history.columns;
    let scores = history.scores.as_deref();
    let further = history.further.as_deref();
    for count in [history.len(), scores.map_or(0, Scores::len)] {
        out.extend_from_slice(&length(count));
    }
    out.extend_from_slice(&history.base.to_le_bytes());
    out.push(columns.places() as u8 | further.map_or(0, |_| FURTHER));
    for row in rows.clone() {
        out.extend_from_slice(&columns.time(row).to_le_bytes());
    }
    out.extend_from_slice(columns.records(rows.clone()).as_flattened());
    for row in rows.clone() {
        out.extend_from_slice(&columns.id(row).to_le_bytes());
    }
    for row in rows {
        out.extend_from_slice(columns.place(row));
    }
    for score in scores.into_iter().flat_map(Scores::iter) {
        out.extend_from_slice(&score.to_le_bytes());
    }
    if let Some(further) = further {
        write_further(further, out);
    }
    further.is_some()
}

fn write_further(further: &FurtherIndicators, out: &mut Vec<u8>) {
    let at = out.len();
    out.extend_from_slice(&length(0));
    for row in further.iter() {
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

/// What stands before a user's columns.
struct HistoryHeader {
    rows: usize,
    scores: usize,
    base: i64,
    places: PlaceKind,
    has_further: bool,
}

impl HistoryHeader {
    fn read(bytes: &mut &[u8]) -> Result<Self, UnreadableHistory> {
        let (rows, scores) = (take_u32(bytes)? as usize, take_u32(bytes)? as usize);
        let base = i64::from_le_bytes(take_array(bytes)?);
        let [places] = take_array(bytes)?;
        if scores > rows {
            return Err(UnreadableHistory);
        }
        Ok(Self {
            rows,
            scores,
            base,
            places: PlaceKind::from_number(places & !FURTHER).ok_or(UnreadableHistory)?,
            has_further: places & FURTHER != 0,
        })
    }

    /// How many bytes the columns and scores take.
    fn bytes(&self) -> Result<usize, UnreadableHistory> {
        let row = TIME_BYTES + RECORD_BYTES + ID_BYTES + self.places.width();
        let rows = self.rows.checked_mul(row).ok_or(UnreadableHistory)?;
        rows.checked_add(self.scores * SCORE_BYTES)
            .ok_or(UnreadableHistory)
    }

    fn history(&self, mut bytes: &[u8], further: &[u8]) -> Result<History, UnreadableHistory> {
        let width = self.places.width();
        let times = take(&mut bytes, self.rows * TIME_BYTES)?;
        let records = take(&mut bytes, self.rows * RECORD_BYTES)?;
        let ids = take(&mut bytes, self.rows * ID_BYTES)?;
        let mut places = take(&mut bytes, self.rows * width)?;
        let mut columns = Columns::default();
        columns.relocate(&(0..0), self.rows + slack(self.rows), self.places);
        let cells = times
            .as_chunks()
            .0
            .iter()
            .zip(records.as_chunks().0)
            .zip(ids.as_chunks().0);
        let (mut latest, mut with_score, mut with_further) = (0, 0, 0);
        for (at, ((time, record), id)) in cells.enumerate() {
            let (time, record) = (i64::from_le_bytes(*time), PackedRecord::from_bytes(*record));
            // In order, and such as a row can hold.
            if !(latest..TIME_LIMIT).contains(&time) || record.place_kind() > self.places {
                return Err(UnreadableHistory);
            }
            latest = time;
            with_score += usize::from(record.has_score());
            with_further += usize::from(record.has_further());
            let mut place = [0; MAX_PLACE_BYTES];
            place[..width].copy_from_slice(take(&mut places, width)?);
            let row = Row {
                amount_fingerprint: record.amount_fingerprint(),
                time,
                record,
                id: u64::from_le_bytes(*id),
                place,
            };
            columns.insert(at, at, &row);
        }
        let mut scores = Scores::default();
        for (rank, score) in bytes.as_chunks().0.iter().enumerate() {
            scores.insert(rank, f64::from_le_bytes(*score));
        }
        let further = read_further(further)?;
        if (with_score, with_further) != (self.scores, further.len()) {
            return Err(UnreadableHistory);
        }
        Ok(History::new(columns, self.rows, self.base, scores, further))
    }
}

fn read_further(mut bytes: &[u8]) -> Result<FurtherIndicators, UnreadableHistory> {
    let mut further = FurtherIndicators::default();
    while !bytes.is_empty() {
        let mut row = Indicators::default();
        for _ in 0..u16::from_le_bytes(take_array(&mut bytes)?) {
            let [length] = take_array(&mut bytes)?;
            let name = std::str::from_utf8(take(&mut bytes, length.into())?);
            let name = name.map_err(|_| UnreadableHistory)?;
            row.insert(Indicator::intern(name).map_err(|_| UnreadableHistory)?);
        }
        // A name that is built in here was none where it was written: it is kept in the place that it had.
        let row: Vec<Indicator> = row.iter().collect();
        further.insert(further.len(), &row);
    }
    Ok(further)
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
mod tests {
    use std::sync::Arc;

    use tollgate_types::{Amount, Status};

    use super::*;
    use crate::Rules;
    use crate::state::Entry;

    const LOOKBACK: i64 = 1_000;

    /// A history of `rows` entries, every third of which has indicators that are not built in.
    fn history(rows: u64) -> History {
        let mut history = History::default();
        for id in 0..rows {
            let mut indicators = Indicators::from_built_in_bits(u8::try_from(id % 16).unwrap());
            if id % 3 == 0 {
                for n in 0..=id % 4 {
                    indicators.insert(Indicator::intern(&format!("written_rule_{n}")).unwrap());
                }
            }
            let entry = Entry {
                time: id.cast_signed(),
                id,
                amount: Amount::default(),
                location: None,
                indicators: &indicators,
                status: Status::Review,
                score: (id % 5) as f64 / 2.0,
            };
            history.remember(&entry, LOOKBACK);
        }
        history
    }

    fn engine(history: Option<History>) -> Engine {
        let mut engine = Engine::new(Arc::new(Rules::default()), [0; 16]);
        if let Some(history) = history {
            engine.replace_history(UserKey(1, 2), history);
        }
        engine
    }

    #[test]
    fn indicators_that_are_not_built_in_are_written_by_name_and_read_again() {
        let mut written = Vec::new();
        assert_eq!(
            engine(Some(history(100))).write_histories(&mut written),
            FORMAT_FURTHER
        );
        let mut read = engine(None);
        read.read_histories(&written, |_| true).unwrap();
        let (_, copy) = read.histories().next().unwrap();
        let original = history(100);
        for id in 0..100 {
            let (ours, theirs) = (copy.find(id).unwrap(), original.find(id).unwrap());
            assert_eq!(ours.indicators, theirs.indicators);
            assert_eq!(ours.score.to_bits(), theirs.score.to_bits());
        }
        let mut again = Vec::new();
        read.write_histories(&mut again);
        assert_eq!(again, written);
        let mut skipped = engine(None);
        skipped.read_histories(&written, |_| false).unwrap();
        assert_eq!(skipped.users(), 0);
    }

    #[test]
    fn no_truncation_and_no_changed_byte_of_further_indicators_panics() {
        let mut written = Vec::new();
        engine(Some(history(20))).write_histories(&mut written);
        for at in 0..written.len() {
            assert!(
                engine(None)
                    .read_histories(&written[..at], |_| true)
                    .is_err()
                    || at == 0
            );
            let mut changed = written.clone();
            changed[at] ^= 0x41;
            let _ = engine(None).read_histories(&changed, |_| true);
        }
    }

    #[test]
    fn without_further_indicators_the_format_is_that_of_the_first_release() {
        let mut written = Vec::new();
        assert_eq!(
            engine(Some(history(1))).write_histories(&mut written),
            FORMAT_FURTHER
        );
        let mut few = History::default();
        few.remember(
            &Entry {
                time: 0,
                id: 1,
                amount: Amount::default(),
                location: None,
                indicators: &Indicators::from_built_in_bits(3),
                status: Status::Review,
                score: 1.0,
            },
            LOOKBACK,
        );
        written.clear();
        assert_eq!(
            engine(Some(few)).write_histories(&mut written),
            FORMAT_BUILT_IN
        );
        assert_eq!(written.len(), 16 + 4 + 4 + 8 + 1 + 24 + 8);
    }
}
