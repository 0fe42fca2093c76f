//! The dead letters of one request: the first rejected items have one each, the others share a few.
//!
//! Invariant: what a request writes and logs is bounded by a multiple of its own size and a small constant. A letter is
//! hundreds of bytes, however short the item is, so beyond a few only items that are long enough to be a transaction have
//! one of their own.

use std::borrow::Cow;

use tollgate_log::{Claims, Origin, RejectedRow};
use tollgate_types::{Protected, TraceContext, UserIdCase};

use crate::items::RECORD_SEPARATOR;
use crate::sent::{Payload, PayloadFormat};

/// Rejected items of a request that have a letter of their own.
pub(crate) const MAX_SINGLE: usize = 100;
/// Those of them that may be of any length.
const MAX_SHORT: usize = 10;
/// A shorter item is no transaction, whatever is mended in it: its four members alone are longer.
const MIN_LONG_BYTES: usize = 64;
/// The largest payload of a letter of several items, in bytes, unless one item is larger.
const MAX_COMBINED_BYTES: usize = 256 * 1024;
/// Reasons that the log line of a request names.
const LOGGED_REASONS: usize = 3;
/// The class of a letter of several items.
pub(crate) const COMBINED: &str = "invalid_items";
/// A rejected item and why.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rejected<'a> {
    pub(crate) payload: &'a [u8],
    pub(crate) reason: &'a str,
    /// The payload would not be read as what was sent.
    pub(crate) is_masked: bool,
}

impl<'a> Rejected<'a> {
    /// An item from which card data was taken out.
    pub(crate) fn of(item: &'a Protected<'_>, reason: &'a str) -> Self {
        Self {
            payload: &item.text,
            reason,
            is_masked: is_masked(item),
        }
    }
}

/// Whether a protected text is not read as the one that was sent: an id is another one, or a text that was no JSON may be
/// some now. A transaction with masked members is the one that would have been accepted.
pub(crate) fn is_masked(item: &Protected<'_>) -> bool {
    let is_json = || serde_json::from_slice::<serde::de::IgnoredAny>(&item.text).is_ok();
    let is_changed = matches!(item.text, Cow::Owned(_));
    item.refusal.is_some() || item.found.ids > 0 || is_changed && !is_json()
}

/// Several items in one letter, as a JSON text sequence.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct CombinedLetter {
    /// The index of its first item among all that are rejected.
    pub(crate) first: usize,
    pub(crate) payload: Vec<u8>,
    pub(crate) reason: String,
    pub(crate) is_masked: bool,
}

/// The indices of the items that have a letter of their own, and of the others.
fn shared_out(rejected: &[Rejected<'_>]) -> (Vec<usize>, Vec<usize>) {
    let mut singles = 0;
    (0..rejected.len()).partition(|index| {
        let is_long = rejected[*index].payload.len() >= MIN_LONG_BYTES;
        let single = singles < if is_long { MAX_SINGLE } else { MAX_SHORT };
        singles += usize::from(single);
        single
    })
}

/// The letters of the items that have none of their own.
pub(crate) fn combine(rejected: &[Rejected<'_>]) -> Vec<CombinedLetter> {
    let (_, others) = shared_out(rejected);
    let mut letters = Vec::new();
    let mut left = &others[..];
    while let Some(&first) = left.first() {
        let mut payload = Vec::new();
        let mut items = 0;
        let mut is_masked = false;
        for index in left {
            let item = rejected[*index].payload;
            if items > 0 && payload.len() + item.len() > MAX_COMBINED_BYTES {
                break;
            }
            payload.push(RECORD_SEPARATOR);
            payload.extend_from_slice(item);
            payload.push(b'\n');
            is_masked |= rejected[*index].is_masked;
            items += 1;
        }
        let reason = rejected[first].reason;
        letters.push(CombinedLetter {
            first,
            payload,
            is_masked,
            reason: format!(
                "{items} items that are no transactions (RFC 7464); the first: {reason}"
            ),
        });
        left = &left[items..];
    }
    letters
}

/// The formats of the letters of requests, as their headers have them.
#[derive(Debug)]
pub(crate) struct Formats {
    single: String,
    combined: String,
}

impl Formats {
    pub(crate) fn new(user_id_case: UserIdCase) -> Self {
        let header = |payload| PayloadFormat::new(payload, user_id_case).to_string();
        Self {
            single: header(Payload::Json),
            combined: header(Payload::JsonSequence),
        }
    }
}

/// The letters of all rejected items, the first single ones and then the combined ones.
pub(crate) fn rows<'a>(
    all: &[Rejected<'a>],
    combined: &'a [CombinedLetter],
    formats: &'a Formats,
    claims: Claims<'a>,
    origin: impl Fn(usize) -> Origin<'a>,
    under: impl Fn() -> Option<TraceContext>,
) -> Vec<RejectedRow<'a>> {
    let row = |kind, reason, payload, format, is_masked, index| RejectedRow {
        kind,
        reason,
        key: None,
        payload,
        format,
        is_masked,
        cut_from: None,
        claims,
        origin: origin(index),
        under: under(),
    };
    let (singles, _) = shared_out(all);
    let single = singles.into_iter().map(|index| {
        let item = &all[index];
        let format = &*formats.single;
        row(
            "invalid",
            item.reason,
            item.payload,
            format,
            item.is_masked,
            index,
        )
    });
    let several = combined.iter().map(|letter| {
        let (reason, payload, format) = (&*letter.reason, &*letter.payload, &*formats.combined);
        row(
            COMBINED,
            reason,
            payload,
            format,
            letter.is_masked,
            letter.first,
        )
    });
    single.chain(several).collect()
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
            payloads in prop::collection::vec(
                prop_oneof![
                    prop::collection::vec(b' '..=b'~', 0..100),
                    prop::collection::vec(b' '..=b'~', 0..3_000),
                ],
                0..400,
            ),
        ) {
            let all: Vec<Rejected<'_>> = payloads
                .iter()
                .map(|payload| Rejected { payload, reason: "is wrong", is_masked: false })
                .collect();
            let letters = combine(&all);
            let (singles, others) = shared_out(&all);
            let mut found: Vec<&[u8]> = Vec::new();
            for letter in &letters {
                prop_assert_eq!(letter.first, others[found.len()]);
                found.extend(crate::items::sequence(&letter.payload));
            }
            let expected: Vec<&[u8]> = others.iter().map(|index| &*payloads[*index]).collect();
            prop_assert_eq!(found, expected);
            prop_assert_eq!(singles.len() + others.len(), payloads.len());
            prop_assert!(singles.len() <= MAX_SINGLE);
            let bytes: usize = payloads.iter().map(Vec::len).sum();
            prop_assert!(singles.len() <= MAX_SHORT + bytes / MIN_LONG_BYTES);
            prop_assert!(letters.len() <= 2 + 2 * bytes / MAX_COMBINED_BYTES);
        }
    }
}
