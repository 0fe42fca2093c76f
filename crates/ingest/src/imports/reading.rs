//! Reads the rows of an object and sorts them by their timestamps, so that a user's transactions reach the log as they
//! happened although the object is newest first.
//!
//! Invariant: the order is a function of the rows. Its fingerprint is in the progress, so that an import which is continued
//! knows whether the number of its rows still means the same rows.

use std::collections::HashMap;
use std::path::PathBuf;

use data_encoding::HEXLOWER;
use sha2::{Digest as _, Sha256};
use tollgate_service::external_sort::{SortError, Sorted, Sorter};
use tollgate_types::{CardPolicy, Timestamp, TraceContext, UserIdCase};

use super::letters::RowLetters;
use super::prepared::{PreparedRow, RejectKind};
use super::rows::{Rows, RowsError};
use crate::IngestConfig;
use crate::items::{self, ItemLimits};
use crate::reject_limits::RejectLimits;

/// The reasons of rejections that are told apart; beyond, every row has its own letter.
const MAX_REASONS: usize = 1_000;

/// What bounds the reading of an object.
#[derive(Debug, Clone)]
pub(super) struct ReadLimits {
    pub(super) max_bytes: usize,
    /// The earliest timestamp of a transaction.
    pub(super) earliest: Timestamp,
    pub(super) user_id_case: UserIdCase,
    pub(super) rejects: RejectLimits,
    pub(super) max_rejected_bytes: u64,
    /// The most dead letters of one import with the same reason.
    pub(super) equal_letters: u64,
    /// The memory in which rows are sorted, in bytes.
    pub(super) sort_memory_bytes: usize,
    /// Where rows are sorted that do not fit into it.
    pub(super) sort_directory: PathBuf,
}

impl ReadLimits {
    pub(super) fn of(config: &IngestConfig) -> Self {
        let directory = config.import_sort_directory.clone();
        Self {
            max_bytes: config.max_transaction_bytes,
            earliest: config.earliest_timestamp,
            user_id_case: config.user_id_case,
            rejects: config.import_rejects,
            max_rejected_bytes: config.import_max_rejected_bytes,
            equal_letters: config.import_equal_letters,
            sort_memory_bytes: config.import_sort_memory_bytes,
            sort_directory: directory.unwrap_or_else(std::env::temp_dir),
        }
    }

    /// What a row is checked against now.
    pub(super) fn items(&self) -> ItemLimits {
        ItemLimits {
            max_bytes: self.max_bytes,
            now_micros: items::now_micros(),
            // The operator chooses what is imported.
            oldest_micros: None,
            earliest: self.earliest,
            user_id_case: self.user_id_case,
        }
    }
}

/// Rows of an object in the order in which they are written.
pub(super) struct SortedRows {
    pub(super) sorted: Sorted,
    /// Fingerprint of the order.
    pub(super) order: String,
    /// Rows that have no letter of their own.
    pub(super) cut_off: Vec<CutOff>,
    /// Why the object is not read any further, if it is not.
    pub(super) failure: Option<String>,
}

/// Rows that were rejected for one reason, beyond those that have letters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CutOff {
    pub(super) kind: RejectKind,
    pub(super) reason: String,
    pub(super) rows: u64,
    pub(super) first_line: u64,
    pub(super) last_line: u64,
}

/// Why rows could not be read at all.
pub(super) enum ReadError {
    Rows(RowsError),
    Cancelled,
}

impl From<SortError> for ReadError {
    /// With a full disk another attempt, which reads the object again, fails in the same way.
    fn from(error: SortError) -> Self {
        let reason = format!("{error}; see ingest.import_sort_directory");
        Self::Rows(RowsError::Unusable(reason))
    }
}

/// How far an import had come before these rows.
#[derive(Debug, Clone, Copy)]
pub(super) struct Before {
    pub(super) rows: u64,
    pub(super) rejected: u64,
}

/// Reads and sorts all rows after the first `before.rows`, up to the end or to where the object cannot be read any further.
///
/// # Errors
/// The store or the directory of runs failed, or the import is cancelled. No row is lost: none was written.
pub(super) fn read_sorted(
    rows: &mut Rows<'_>,
    limits: &ReadLimits,
    cards: &CardPolicy,
    letters: &RowLetters,
    trace: Option<TraceContext>,
    before: Before,
    mut on_row: impl FnMut() -> bool,
) -> Result<SortedRows, ReadError> {
    let mut sorter = Sorter::new(limits.sort_memory_bytes, &limits.sort_directory);
    let mut order = Sha256::new();
    let mut equal = EqualLetters::new(limits.equal_letters);
    let (mut seen, mut rejected, mut rejected_bytes) = (0_u64, before.rejected, 0_u64);
    let mut encoded = Vec::new();
    let failure = loop {
        if !on_row() {
            return Err(ReadError::Cancelled);
        }
        let row = match rows.next() {
            Ok(Some(row)) => row,
            Ok(None) => break None,
            // The rows before the error are imported.
            Err(RowsError::Unusable(reason)) => break Some(reason),
            Err(error @ RowsError::Broken(_)) => return Err(ReadError::Rows(error)),
        };
        seen += 1;
        if seen <= before.rows {
            continue;
        }
        let (key, prepared) = PreparedRow::of(&row, limits.items(), cards, trace, letters);
        let mut has_letter = true;
        if let PreparedRow::Rejected {
            kind,
            reason,
            line,
            payload,
            ..
        } = &prepared
        {
            rejected += 1;
            has_letter = equal.admit(*kind, reason, *line);
            if has_letter {
                rejected_bytes += (payload.len() + letters.header_bytes()) as u64;
            }
        }
        if has_letter {
            order.update(key.to_le_bytes());
            encoded.clear();
            prepared.encode(&mut encoded);
            sorter.push(key, &encoded)?;
        }
        if let Some(reason) = exceeded(limits, seen, rejected, rejected_bytes) {
            break Some(reason);
        }
    };
    Ok(SortedRows {
        sorted: sorter.finish()?,
        order: HEXLOWER.encode(&order.finalize()[..8]),
        cut_off: equal.cut_off(),
        failure,
    })
}

/// Why the import ends with what it has rejected so far, if it does.
fn exceeded(limits: &ReadLimits, rows: u64, rejected: u64, bytes: u64) -> Option<String> {
    let max_bytes = limits.max_rejected_bytes;
    let too_large = || {
        (bytes > max_bytes).then(|| {
            format!("the rejected rows are longer than ingest.import_max_rejected_bytes, {max_bytes}, together")
        })
    };
    let exceeded = limits.rejects.exceeded("import_rejects", rows, rejected);
    exceeded.or_else(too_large)
}

/// Counts rejections by their reason, and cuts off a flood of equal ones.
struct EqualLetters {
    max: u64,
    reasons: HashMap<(RejectKind, String), (u64, u64, u64)>,
}

impl EqualLetters {
    fn new(max: u64) -> Self {
        Self {
            max,
            reasons: HashMap::new(),
        }
    }

    /// Whether another row with this reason has a letter of its own.
    fn admit(&mut self, kind: RejectKind, reason: &str, line: u64) -> bool {
        let key = (kind, reason.to_owned());
        if !self.reasons.contains_key(&key) && self.reasons.len() >= MAX_REASONS {
            return true;
        }
        let (rows, first, last) = self.reasons.entry(key).or_default();
        *rows += 1;
        if *rows <= self.max {
            return true;
        }
        if *rows == self.max + 1 {
            *first = line;
        }
        *last = line;
        false
    }

    /// The rows without a letter, by their first line.
    fn cut_off(self) -> Vec<CutOff> {
        let over = self
            .reasons
            .into_iter()
            .filter(|(_, (rows, ..))| *rows > self.max);
        let mut all: Vec<CutOff> = over
            .map(|((kind, reason), (rows, first_line, last_line))| CutOff {
                kind,
                reason,
                rows: rows - self.max,
                first_line,
                last_line,
            })
            .collect();
        all.sort_by_key(|cut_off| cut_off.first_line);
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_beyond_the_equal_letters_are_counted_by_their_reason() {
        let mut equal = EqualLetters::new(2);
        let admitted: Vec<bool> = (1..=5)
            .map(|line| equal.admit(RejectKind::Invalid, "is wrong", line))
            .collect();
        assert_eq!(admitted, [true, true, false, false, false]);
        assert!(equal.admit(RejectKind::Malformed, "is wrong", 6));
        let expected = CutOff {
            kind: RejectKind::Invalid,
            reason: "is wrong".to_owned(),
            rows: 3,
            first_line: 3,
            last_line: 5,
        };
        assert_eq!(equal.cut_off(), [expected]);
    }
}
