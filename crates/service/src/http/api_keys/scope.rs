//! What an API key allows.

use std::borrow::Cow;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// What a key allows, by name: `transactions:write`. The set is open: a service that needs another scope makes a
/// constant of it with [`Scope::new`] and passes it to [`ApiKeys::new`], so that its section accepts keys that have it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Scope(Cow<'static, str>);

impl Scope {
    /// Send transactions.
    pub const TRANSACTIONS_WRITE: Self = Self::new("transactions:write");
    /// Read decisions, summaries and statistics.
    pub const DECISIONS_READ: Self = Self::new("decisions:read");
    /// Send transactions as backfill, and transactions of any age. Sending needs `transactions:write` beside it.
    pub const TRANSACTIONS_BACKFILL: Self = Self::new("transactions:backfill");
    /// The scopes that any section may give to a key, so that several services can share a list of keys.
    pub const COMMON: [Self; 3] = [
        Self::TRANSACTIONS_WRITE,
        Self::DECISIONS_READ,
        Self::TRANSACTIONS_BACKFILL,
    ];

    /// A scope of this name.
    #[must_use]
    pub const fn new(name: &'static str) -> Self {
        Self(Cow::Borrowed(name))
    }

    /// The name, as in the settings.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0
    }
}

/// Reads a name of the form `transactions:write`, whether or not a service of this version has such a scope: two words
/// of lower-case letters, digits, `-` and `_`, separated by a colon.
impl FromStr for Scope {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let is_word = |word: &str| {
            let mut bytes = word.bytes();
            !word.is_empty()
                && bytes.all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_'))
        };
        match name.split_once(':') {
            Some((object, action)) if is_word(object) && is_word(action) => {
                Ok(Self(Cow::Owned(name.to_owned())))
            }
            _ => Err("expected a name such as transactions:write or decisions:read".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_well_formed_name_is_a_scope() {
        for name in ["transactions:write", "decisions:read", "v2-x:read_all"] {
            assert_eq!(name.parse::<Scope>().unwrap().name(), name);
        }
        assert_eq!("labels:write".parse(), Ok(Scope::new("labels:write")));
        for name in ["", "write", ":", "a:", ":b", "a:b:c", "A:b", "a: b"] {
            assert!(name.parse::<Scope>().is_err(), "{name}");
        }
    }
}
