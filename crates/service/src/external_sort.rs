//! Sorts more records than memory holds: sorted runs in unnamed files of a directory, which are then merged.
//!
//! Invariants: the order depends on keys and positions alone, not on the memory or the number of runs, and records with
//! equal keys stay in the order in which they came. The files have no name from the beginning, so that the operating system
//! deletes them also after a crash.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek as _, Write};
use std::path::{Path, PathBuf};

/// The runs that are merged into a longer one. It bounds the open files and the buffers of a merge.
const FAN_IN: usize = 64;
/// The buffer of a run, in bytes.
const BUFFER: usize = 64 * 1024;
/// What a record in memory needs beside its payload, in bytes.
const OVERHEAD: usize = size_of::<Slot>();
/// Key, position and length of a record in a run, in bytes.
const HEAD: usize = 20;

/// Why records cannot be sorted.
#[derive(Debug, thiserror::Error)]
pub enum SortError {
    /// The directory has no room, or cannot be written to or read.
    #[error(
        "sorted runs cannot be kept in {}, which needs as much room as the records: {source}",
        directory.display()
    )]
    Directory {
        /// Where the runs are.
        directory: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
}

/// Collects records, each with a key.
#[derive(Debug)]
pub struct Sorter {
    memory_bytes: usize,
    directory: PathBuf,
    payloads: Vec<u8>,
    slots: Vec<Slot>,
    position: u64,
    /// The runs of each level; one of level n has the records of 64 runs of the level before.
    levels: Vec<Vec<File>>,
}

/// A record in memory.
#[derive(Debug, Clone, Copy)]
struct Slot {
    key: i64,
    position: u64,
    begin: usize,
    length: usize,
}

/// A record in its order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SortedRecord {
    /// The key by which it is sorted.
    pub key: i64,
    /// How many records came before it.
    pub position: u64,
    /// Its bytes.
    pub payload: Vec<u8>,
}

impl Sorter {
    /// Uses about this much memory, in bytes, and files in `directory` for what does not fit into it.
    #[must_use]
    pub fn new(memory_bytes: usize, directory: &Path) -> Self {
        Self {
            memory_bytes,
            directory: directory.to_owned(),
            payloads: Vec::new(),
            slots: Vec::new(),
            position: 0,
            levels: Vec::new(),
        }
    }

    /// Adds a record.
    ///
    /// # Errors
    /// The directory cannot be written to.
    pub fn push(&mut self, key: i64, payload: &[u8]) -> Result<(), SortError> {
        let used = self.payloads.len() + self.slots.len() * OVERHEAD;
        if !self.slots.is_empty() && used + payload.len() + OVERHEAD > self.memory_bytes {
            self.spill().map_err(|source| self.error(source))?;
        }
        self.slots.push(Slot {
            key,
            position: self.position,
            begin: self.payloads.len(),
            length: payload.len(),
        });
        self.payloads.extend_from_slice(payload);
        self.position += 1;
        Ok(())
    }

    /// The records in the order of their keys; those with equal keys in the order in which they came.
    ///
    /// # Errors
    /// The directory cannot be written to or read.
    pub fn finish(mut self) -> Result<Sorted, SortError> {
        self.sort();
        let runs = std::mem::take(&mut self.levels).into_iter().flatten();
        let merge = Merge::of(runs).map_err(|source| self.error(source))?;
        let mut sorted = Sorted {
            directory: self.directory,
            payloads: self.payloads,
            slots: self.slots.into_iter(),
            ahead: None,
            merge,
        };
        sorted.ahead = sorted.next_in_memory();
        Ok(sorted)
    }

    fn sort(&mut self) {
        self.slots
            .sort_unstable_by_key(|slot| (slot.key, slot.position));
    }

    /// Writes the records in memory as a run, and merges runs if there are many.
    fn spill(&mut self) -> io::Result<()> {
        self.sort();
        let mut run = RunWriter::new(&self.directory)?;
        for slot in &self.slots {
            let payload = &self.payloads[slot.begin..slot.begin + slot.length];
            run.write(slot.key, slot.position, payload)?;
        }
        let mut finished = run.finish()?;
        self.slots.clear();
        self.payloads.clear();
        for level in 0.. {
            if self.levels.len() == level {
                self.levels.push(Vec::new());
            }
            self.levels[level].push(finished);
            if self.levels[level].len() < FAN_IN {
                break;
            }
            let mut merge = Merge::of(std::mem::take(&mut self.levels[level]))?;
            let mut longer = RunWriter::new(&self.directory)?;
            while let Some(record) = merge.next()? {
                longer.write(record.key, record.position, &record.payload)?;
            }
            finished = longer.finish()?;
        }
        Ok(())
    }

    fn error(&self, source: io::Error) -> SortError {
        SortError::Directory {
            directory: self.directory.clone(),
            source,
        }
    }
}

/// Sorted records.
#[derive(Debug)]
pub struct Sorted {
    directory: PathBuf,
    payloads: Vec<u8>,
    slots: std::vec::IntoIter<Slot>,
    /// The next record in memory.
    ahead: Option<SortedRecord>,
    merge: Merge,
}

impl Sorted {
    /// The next record; `None` at the end.
    ///
    /// # Errors
    /// A run cannot be read.
    pub fn next_record(&mut self) -> Result<Option<SortedRecord>, SortError> {
        let order = |record: &SortedRecord| (record.key, record.position);
        let in_runs = self.merge.peek();
        if let Some(ahead) = &self.ahead
            && in_runs.is_none_or(|in_runs| order(ahead) < in_runs)
        {
            let following = self.next_in_memory();
            return Ok(std::mem::replace(&mut self.ahead, following));
        }
        self.merge.next().map_err(|source| SortError::Directory {
            directory: self.directory.clone(),
            source,
        })
    }

    fn next_in_memory(&mut self) -> Option<SortedRecord> {
        let slot = self.slots.next()?;
        Some(SortedRecord {
            key: slot.key,
            position: slot.position,
            payload: self.payloads[slot.begin..slot.begin + slot.length].to_vec(),
        })
    }
}

/// Writes a run.
struct RunWriter(BufWriter<File>);

impl RunWriter {
    fn new(directory: &Path) -> io::Result<Self> {
        // Readable by its owner only, and without a name.
        let file = tempfile::tempfile_in(directory)?;
        Ok(Self(BufWriter::with_capacity(BUFFER, file)))
    }

    fn write(&mut self, key: i64, position: u64, payload: &[u8]) -> io::Result<()> {
        let length = u32::try_from(payload.len()).map_err(io::Error::other)?;
        self.0.write_all(&key.to_le_bytes())?;
        self.0.write_all(&position.to_le_bytes())?;
        self.0.write_all(&length.to_le_bytes())?;
        self.0.write_all(payload)
    }

    fn finish(self) -> io::Result<File> {
        let mut file = self
            .0
            .into_inner()
            .map_err(io::IntoInnerError::into_error)?;
        file.rewind()?;
        Ok(file)
    }
}

/// Merges runs.
#[derive(Debug, Default)]
struct Merge {
    runs: Vec<BufReader<File>>,
    /// The next record of each run: key, position and run.
    heads: BinaryHeap<Reverse<(i64, u64, usize)>>,
    payloads: Vec<Vec<u8>>,
}

impl Merge {
    fn of(runs: impl IntoIterator<Item = File>) -> io::Result<Self> {
        let runs = runs.into_iter();
        let mut merge = Self {
            runs: runs
                .map(|run| BufReader::with_capacity(BUFFER, run))
                .collect(),
            ..Self::default()
        };
        merge.payloads = vec![Vec::new(); merge.runs.len()];
        for run in 0..merge.runs.len() {
            merge.advance(run)?;
        }
        Ok(merge)
    }

    fn peek(&self) -> Option<(i64, u64)> {
        let Reverse((key, position, _)) = self.heads.peek()?;
        Some((*key, *position))
    }

    fn next(&mut self) -> io::Result<Option<SortedRecord>> {
        let Some(Reverse((key, position, run))) = self.heads.pop() else {
            return Ok(None);
        };
        let payload = std::mem::take(&mut self.payloads[run]);
        self.advance(run)?;
        Ok(Some(SortedRecord {
            key,
            position,
            payload,
        }))
    }

    /// Reads the next record of a run.
    fn advance(&mut self, run: usize) -> io::Result<()> {
        use std::io::BufRead as _;
        let reader = &mut self.runs[run];
        if reader.fill_buf()?.is_empty() {
            return Ok(());
        }
        let mut head = [0; HEAD];
        reader.read_exact(&mut head)?;
        let (key, rest) = take::<8>(&head);
        let (position, rest) = take::<8>(rest);
        let (length, _) = take::<4>(rest);
        let payload = &mut self.payloads[run];
        payload.resize(u32::from_le_bytes(length) as usize, 0);
        reader.read_exact(payload)?;
        let key = i64::from_le_bytes(key);
        let position = u64::from_le_bytes(position);
        self.heads.push(Reverse((key, position, run)));
        Ok(())
    }
}

/// The first bytes, and the others.
fn take<const N: usize>(bytes: &[u8]) -> ([u8; N], &[u8]) {
    match bytes.split_first_chunk() {
        Some((first, rest)) => (*first, rest),
        None => ([0; N], &[]),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all(sorter: Sorter) -> Vec<SortedRecord> {
        let mut sorted = sorter.finish().unwrap();
        std::iter::from_fn(|| sorted.next_record().unwrap()).collect()
    }

    #[test]
    fn runs_in_a_directory_that_cannot_be_used_are_an_error_that_names_it() {
        let mut sorter = Sorter::new(1, Path::new("/nowhere/at-all"));
        sorter.push(1, b"a").unwrap();
        let error = sorter.push(2, b"b").unwrap_err().to_string();
        assert!(error.contains("/nowhere/at-all"), "{error}");
    }

    #[test]
    fn many_runs_are_merged_in_levels_and_leave_no_file() {
        let directory = tempfile::tempdir().unwrap();
        let mut sorter = Sorter::new(1, directory.path());
        let records = i64::try_from(FAN_IN).unwrap() * 70;
        for n in 0..records {
            sorter.push(records - n, &n.to_le_bytes()).unwrap();
            assert!(sorter.levels.iter().all(|level| level.len() < FAN_IN));
        }
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
        let keys: Vec<i64> = all(sorter).iter().map(|record| record.key).collect();
        assert_eq!(keys, (1..=records).collect::<Vec<_>>());
    }

    proptest! {
        #[test]
        fn the_order_is_that_of_a_stable_sort_whatever_the_memory(
            records in prop::collection::vec((-3..3_i64, prop::collection::vec(any::<u8>(), 0..20)), 0..200),
            memory in 1..4_000_usize,
        ) {
            let directory = tempfile::tempdir().unwrap();
            let mut sorter = Sorter::new(memory, directory.path());
            for (key, payload) in &records {
                sorter.push(*key, payload).unwrap();
            }
            let found: Vec<(i64, Vec<u8>)> = all(sorter)
                .into_iter()
                .map(|record| (record.key, record.payload))
                .collect();
            let mut expected = records;
            expected.sort_by_key(|(key, _)| *key);
            prop_assert_eq!(found, expected);
        }
    }
}
