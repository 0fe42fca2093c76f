//! Histories as bytes, to go from one engine to another: out of a scorer and into the next.
//!
//! For each user: two halves of the key, number of entries, number of scores, base of the times, widest kind of place;
//! then times, words, ids, places and scores of all entries, column by column, which is how they compress best.
//! Numbers are little-endian. Bytes that are not such a text are an error, whatever they are, and never a panic.

use super::columns::{Columns, Row};
use super::geo::PlaceKind;
use super::history::{History, slack};
use super::packed_record::PackedRecord;
use super::scores::Scores;
use super::{Engine, UserKey};

/// The bytes are not what an engine wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a history, or one of another layout")]
pub struct UnreadableHistory;

const TIME: usize = 8;

impl Engine {
    /// Appends every user's history.
    pub fn write_histories(&self, out: &mut Vec<u8>) {
        for (UserKey(first, second), history) in self.users.iter() {
            out.extend_from_slice(&first.to_le_bytes());
            out.extend_from_slice(&second.to_le_bytes());
            history.write_to(out);
        }
    }

    /// Takes over the histories of those users for whom `keep` says so. They were written by an engine with the same
    /// hash key. Users that are here already are replaced.
    ///
    /// # Errors
    /// Where the bytes are no histories; what came before the fault is taken over.
    pub fn read_histories(
        &mut self,
        mut bytes: &[u8],
        keep: impl Fn(UserKey) -> bool,
    ) -> Result<(), UnreadableHistory> {
        while !bytes.is_empty() {
            let key = UserKey(take_u64(&mut bytes)?, take_u64(&mut bytes)?);
            let header = Header::read(&mut bytes)?;
            let columns = take(&mut bytes, header.bytes()?)?;
            if !keep(key) {
                continue;
            }
            let read = header.history(columns)?;
            let history = self.users.history_of(key);
            self.transactions = self.transactions + read.len() - history.len();
            self.history_bytes = self.history_bytes + read.heap_bytes() - history.heap_bytes();
            *history = read;
        }
        Ok(())
    }
}

impl History {
    fn write_to(&self, out: &mut Vec<u8>) {
        let rows = self.rows();
        let scores = self.scores.as_ref().map_or(0, |scores| scores.len());
        for count in [self.len(), scores] {
            // A history of 2^32 entries does not fit in memory.
            out.extend_from_slice(&u32::try_from(count).unwrap_or(u32::MAX).to_le_bytes());
        }
        out.extend_from_slice(&self.base.to_le_bytes());
        out.push(self.columns.places() as u8);
        for row in rows.clone() {
            out.extend_from_slice(&self.columns.time(row).to_le_bytes());
        }
        out.extend_from_slice(self.columns.words(rows.clone()).as_flattened());
        for row in rows.clone() {
            out.extend_from_slice(&self.columns.id(row).to_le_bytes());
        }
        for row in rows {
            out.extend_from_slice(self.columns.place(row));
        }
        for score in self.scores.iter().flat_map(|scores| scores.iter()) {
            out.extend_from_slice(&score.to_le_bytes());
        }
    }
}

/// What stands before a user's columns.
struct Header {
    entries: usize,
    scores: usize,
    base: i64,
    places: PlaceKind,
}

impl Header {
    fn read(bytes: &mut &[u8]) -> Result<Self, UnreadableHistory> {
        let (entries, scores) = (take_u32(bytes)? as usize, take_u32(bytes)? as usize);
        let base = i64::from_le_bytes(take_array(bytes)?);
        let [places] = take_array(bytes)?;
        let places = PlaceKind::from_number(places).ok_or(UnreadableHistory)?;
        if scores > entries {
            return Err(UnreadableHistory);
        }
        Ok(Self {
            entries,
            scores,
            base,
            places,
        })
    }

    /// How many bytes the columns take.
    fn bytes(&self) -> Result<usize, UnreadableHistory> {
        let row = TIME + size_of::<u64>() + size_of::<u64>() + self.places.width();
        let rows = self.entries.checked_mul(row).ok_or(UnreadableHistory)?;
        rows.checked_add(self.scores * size_of::<f64>())
            .ok_or(UnreadableHistory)
    }

    fn history(&self, mut bytes: &[u8]) -> Result<History, UnreadableHistory> {
        let width = self.places.width();
        let times = take(&mut bytes, self.entries * TIME)?;
        let words = take(&mut bytes, self.entries * size_of::<u64>())?;
        let ids = take(&mut bytes, self.entries * size_of::<u64>())?;
        let mut places = take(&mut bytes, self.entries * width)?;
        let mut columns = Columns::default();
        columns.relocate(&(0..0), self.entries + slack(self.entries), self.places);
        let cells = times
            .as_chunks()
            .0
            .iter()
            .zip(words.as_chunks().0)
            .zip(ids.as_chunks().0);
        let (mut latest, mut scored) = (0, 0);
        for (at, ((time, word), id)) in cells.enumerate() {
            let (time, word) = (i64::from_le_bytes(*time), PackedRecord::from_bytes(*word));
            // In order, and such as a row can hold.
            if !(latest..super::columns::TIME_LIMIT).contains(&time)
                || word.place_kind() > self.places
            {
                return Err(UnreadableHistory);
            }
            latest = time;
            scored += usize::from(word.has_score());
            let mut place = [0; 16];
            place[..width].copy_from_slice(take(&mut places, width)?);
            let row = Row {
                amount_fingerprint: word.amount_fingerprint(),
                time,
                word,
                id: u64::from_le_bytes(*id),
                place,
            };
            columns.insert(at, at, &row);
        }
        if scored != self.scores {
            return Err(UnreadableHistory);
        }
        let mut scores = Scores::default();
        for (rank, score) in bytes.as_chunks().0.iter().enumerate() {
            scores.insert(rank, f64::from_le_bytes(*score));
        }
        Ok(History::of(columns, self.entries, self.base, scores))
    }
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
