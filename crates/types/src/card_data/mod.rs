//! Card data in transactions: finds card numbers and verification codes, and takes them out before anything is written.
//!
//! A card number is a member's text or number, or a part of it, with a known prefix and length and a right check digit. It
//! is masked, replaced by a token, or the transaction is refused. Verification codes, PINs and track data are dropped.
//!
//! Invariant: bytes without card data are returned as they came, and a transaction with some differs only in the members
//! that had it. A protected text has no card data: protecting it again changes nothing.

mod codes;
mod fold;
mod glance;
mod number;
mod text;
mod token;
mod verification;
mod walk;

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::Rejection;
pub use token::TokenKey;
use walk::Walk;

/// What is done with a card number.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CardDataMode {
    /// All but the first six and the last four digits become asterisks. With a key, a token stands in a member beside it.
    #[default]
    Mask,
    /// A token takes its place.
    Tokenise,
    /// The transaction is refused.
    Reject,
    /// It stays, and so does everything else: nothing is looked for.
    Allow,
}

/// What is done with a transaction whose `user_id` or `transaction_id` has a card number.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CardIds {
    /// It is refused: ids are stored in clear everywhere, and cannot be changed without losing the user's history.
    #[default]
    Reject,
    /// It is accepted, for ids that pass as card numbers by chance.
    Allow,
}

/// How card data is treated.
#[derive(Clone, Default)]
pub struct CardPolicy {
    mode: CardDataMode,
    ids: CardIds,
    key: Option<TokenKey>,
    /// Names of members in which no card number is looked for.
    exempt: Vec<Box<str>>,
}

impl fmt::Debug for CardPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CardPolicy")
            .field("mode", &self.mode)
            .field("ids", &self.ids)
            .field("exempt", &self.exempt)
            .finish_non_exhaustive()
    }
}

/// How much card data was found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CardDataFound {
    /// Card numbers in members.
    pub numbers: u32,
    /// Members with verification codes, PINs or track data, which were dropped.
    pub codes: u32,
    /// Ids that have a card number.
    pub ids: u32,
}

impl CardDataFound {
    /// Each kind with its number, for metrics.
    #[must_use]
    pub const fn by_kind(self) -> [(&'static str, u32); 3] {
        [
            ("number", self.numbers),
            ("code", self.codes),
            ("id", self.ids),
        ]
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.numbers == 0 && self.codes == 0 && self.ids == 0
    }
}

/// A text from which card data was taken out.
#[derive(Debug)]
pub struct Protected<'a> {
    /// The text, without card data: what may be written, also as a dead letter.
    pub text: Cow<'a, [u8]>,
    /// What was found.
    pub found: CardDataFound,
    /// Why the transaction is refused, if it is.
    pub refusal: Option<Rejection>,
}

impl<'a> Protected<'a> {
    const fn unchanged(text: &'a [u8]) -> Self {
        Self {
            text: Cow::Borrowed(text),
            found: CardDataFound {
                numbers: 0,
                codes: 0,
                ids: 0,
            },
            refusal: None,
        }
    }
}

impl CardPolicy {
    /// A policy. Without a key there are no tokens: [`CardDataMode::Tokenise`] then masks.
    #[must_use]
    pub fn new(mode: CardDataMode, key: Option<TokenKey>) -> Self {
        Self {
            mode,
            key,
            ..Self::default()
        }
    }

    /// The same with another treatment of ids.
    #[must_use]
    pub fn with_ids(mut self, ids: CardIds) -> Self {
        self.ids = ids;
        self
    }

    /// The same without looking for card numbers in members of these names, at any depth.
    #[must_use]
    pub fn with_exempt<'n>(mut self, names: impl IntoIterator<Item = &'n str>) -> Self {
        self.exempt = names.into_iter().map(Box::from).collect();
        self
    }

    /// Takes card data out of a transaction. The text need not be one: from a text that is no JSON, card numbers are masked
    /// wherever they stand.
    #[must_use]
    pub fn protect<'a>(&self, text: &'a [u8]) -> Protected<'a> {
        if self.mode == CardDataMode::Allow || glance::is_clean(text) {
            return Protected::unchanged(text);
        }
        self.protect_thoroughly(text)
    }

    fn protect_thoroughly<'a>(&self, text: &'a [u8]) -> Protected<'a> {
        match Walk::over(text, self) {
            Ok(protected) => protected,
            Err(_) => {
                let (text, found) = masked(text);
                Protected {
                    text,
                    found,
                    refusal: None,
                }
            }
        }
    }

    /// Masks card numbers, and codes that are named, in a text that is copied into a header, an answer or a log line.
    #[must_use]
    pub fn mask<'a>(&self, text: &'a str) -> Cow<'a, str> {
        match self.mask_bytes(text.as_bytes()) {
            Cow::Borrowed(_) => Cow::Borrowed(text),
            // Digits were replaced by asterisks: it is UTF-8 as before.
            Cow::Owned(bytes) => Cow::Owned(String::from_utf8_lossy(&bytes).into_owned()),
        }
    }

    /// As [`CardPolicy::mask_bytes`], for an id or a key made of one: it stays where ids with card numbers are accepted.
    #[must_use]
    pub fn mask_id<'a>(&self, id: &'a [u8]) -> Cow<'a, [u8]> {
        match self.ids {
            CardIds::Reject => self.mask_bytes(id),
            CardIds::Allow => Cow::Borrowed(id),
        }
    }

    /// As [`CardPolicy::mask`], for bytes of any form.
    #[must_use]
    pub fn mask_bytes<'a>(&self, text: &'a [u8]) -> Cow<'a, [u8]> {
        match self.mode {
            CardDataMode::Allow => Cow::Borrowed(text),
            CardDataMode::Mask | CardDataMode::Tokenise | CardDataMode::Reject => masked(text).0,
        }
    }
}

/// The text with its card numbers masked and the codes that it names hidden, and how many there were.
fn masked(text: &[u8]) -> (Cow<'_, [u8]>, CardDataFound) {
    let mut found = CardDataFound::default();
    let numbers = text::replaced(text, |_| {
        found.numbers += 1;
        None
    });
    let without = codes::hidden(numbers.as_deref().unwrap_or(text));
    found.codes = without.as_ref().map_or(0, |(_, codes)| *codes);
    let masked = without.map(|(text, _)| text).or(numbers);
    (masked.map_or(Cow::Borrowed(text), Cow::Owned), found)
}
