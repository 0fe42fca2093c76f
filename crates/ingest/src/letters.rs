//! The dead letters of one request: the first rejected items have one each, the others share a few.
//!
//! Invariant: what a request writes and logs is bounded by its own size and a constant. A letter and its log line are
//! hundreds of bytes, however short the item is.

use tollgate_log::{Origin, RejectedRow};
use tollgate_types::{Tenant, TraceContext};

/// Rejected items of a request that have a letter of their own.
pub(crate) const MAX_SINGLE: usize = 100;
/// The largest payload of a letter of several items, in bytes, unless one item is larger.
const MAX_COMBINED_BYTES: usize = 256 * 1024;
/// Reasons that the log line of a request names.
const LOGGED_REASONS: usize = 3;
/// The class of a letter of several items.
pub(crate) const COMBINED: &str = "invalid_items";
/// Begins each item in such a letter: RFC 7464, section 2.2.
const RECORD_SEPARATOR: u8 = 0x1e;

/// A rejected item and why.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rejected<'a> {
    pub(crate) payload: &'a [u8],
    pub(crate) reason: &'a str,
}

/// Several items in one letter, as a JSON text sequence.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct CombinedLetter {
    /// The index of its first item among all that are rejected.
    pub(crate) first: usize,
    pub(crate) payload: Vec<u8>,
    pub(crate) reason: String,
}

/// The letters of the items beyond the first [`MAX_SINGLE`].
pub(crate) fn combine(rejected: &[Rejected<'_>]) -> Vec<CombinedLetter> {
    let mut letters = Vec::new();
    let mut first = MAX_SINGLE;
    while first < rejected.len() {
        let mut payload = Vec::new();
        let mut end = first;
        for item in &rejected[first..] {
            if end > first && payload.len() + item.payload.len() > MAX_COMBINED_BYTES {
                break;
            }
            payload.push(RECORD_SEPARATOR);
            payload.extend_from_slice(item.payload);
            payload.push(b'\n');
            end += 1;
        }
        let (items, reason) = (end - first, rejected[first].reason);
        letters.push(CombinedLetter {
            first,
            payload,
            reason: format!(
                "{items} items that are no transactions (RFC 7464); the first: {reason}"
            ),
        });
        first = end;
    }
    letters
}

/// The letters of all rejected items, the first single ones and then the combined ones.
pub(crate) fn rows<'a>(
    all: &[Rejected<'a>],
    combined: &'a [CombinedLetter],
    tenant: Tenant<'a>,
    origin: impl Fn(usize) -> Origin<'a>,
    under: impl Fn() -> Option<TraceContext>,
) -> Vec<RejectedRow<'a>> {
    let single = all.iter().take(MAX_SINGLE).enumerate();
    let single = single.map(|(index, item)| ("invalid", item.reason, item.payload, index));
    let several = combined
        .iter()
        .map(|letter| (COMBINED, &*letter.reason, &*letter.payload, letter.first));
    single
        .chain(several)
        .map(|(kind, reason, payload, index)| RejectedRow {
            kind,
            reason,
            payload,
            tenant,
            origin: origin(index),
            under: under(),
        })
        .collect()
}

/// One line for all that a request, or an event of it, has rejected.
pub(crate) fn log(what: &'static str, rejected: &[Rejected<'_>]) {
    if rejected.is_empty() {
        return;
    }
    let first = rejected.iter().take(LOGGED_REASONS);
    let reasons: Vec<&str> = first.map(|item| item.reason).collect();
    tracing::warn!(
        what,
        rejected = rejected.len(),
        first_reasons = reasons.join("; "),
        "items are dead-lettered"
    );
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_item_is_in_one_letter_and_all_letters_are_little_longer_than_the_items(
            payloads in prop::collection::vec(prop::collection::vec(b' '..=b'~', 0..3_000), 0..400),
        ) {
            let all: Vec<Rejected<'_>> = payloads
                .iter()
                .map(|payload| Rejected { payload, reason: "is wrong" })
                .collect();
            let letters = combine(&all);
            let mut found: Vec<&[u8]> = payloads.iter().take(MAX_SINGLE).map(Vec::as_slice).collect();
            for letter in &letters {
                prop_assert_eq!(letter.first, found.len());
                let items = letter.payload.split(|byte| *byte == RECORD_SEPARATOR).skip(1);
                found.extend(items.map(|item| item.strip_suffix(b"\n").unwrap()));
            }
            prop_assert_eq!(found, payloads.iter().map(Vec::as_slice).collect::<Vec<_>>());
            let bytes: usize = payloads.iter().map(Vec::len).sum();
            prop_assert!(letters.len() <= 2 + 2 * bytes / MAX_COMBINED_BYTES);
        }
    }
}
