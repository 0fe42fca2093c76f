//! The chain of hashes. Pure.
//!
//! The hash of entry `n` is SHA-256, or with a key HMAC-SHA-256 (RFC 2104), over: the hash of entry `n − 1` (32 bytes, zeros
//! for the first), `n` as 8 bytes in little-endian order, and the text of the entry.

use std::fmt;
use std::str::FromStr;

use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

/// The end of a chain: the number of its last entry, 0 without entries, and its hash.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Head {
    /// Number of the last entry, counted from 1.
    pub seq: u64,
    /// Its hash.
    pub hash: [u8; 32],
}

impl Head {
    /// The head after an entry of this text is appended. An empty `key` is none.
    #[must_use]
    pub fn after(self, key: &[u8], entry: &str) -> Self {
        let seq = self.seq + 1;
        let parts = [&self.hash[..], &seq.to_le_bytes(), entry.as_bytes()];
        let plain = || {
            let mut hash = Sha256::new();
            parts.iter().for_each(|part| hash.update(part));
            hash.finalize().into()
        };
        // HMAC takes keys of any length.
        let keyed = (!key.is_empty()).then(|| Hmac::<Sha256>::new_from_slice(key).ok());
        let hash = keyed.flatten().map_or_else(plain, |mut mac| {
            parts.iter().for_each(|part| mac.update(part));
            mac.finalize().into_bytes().into()
        });
        Self { seq, hash }
    }
}

/// `SEQ:HASH`, as [`Head::from_str`] reads it.
impl fmt::Display for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.seq, HEXLOWER.encode(&self.hash))
    }
}

impl FromStr for Head {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected = || "expected a number, a colon and 64 hexadecimal digits".to_owned();
        let (seq, hash) = text.split_once(':').ok_or_else(expected)?;
        Ok(Self {
            seq: seq.parse().map_err(|_| expected())?,
            hash: parse_hash(hash).ok_or_else(expected)?,
        })
    }
}

/// The bytes of 64 hexadecimal digits.
pub(super) fn parse_hash(text: &str) -> Option<[u8; 32]> {
    let bytes = HEXLOWER_PERMISSIVE.decode(text.as_bytes()).ok()?;
    bytes.try_into().ok()
}

/// One entry with its place in the chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Number and hash of the entry.
    pub head: Head,
    /// The text that was hashed: the JSON of an [`AuditEvent`](super::AuditEvent).
    pub entry: String,
}

/// Where a chain is broken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// An entry was removed or inserted.
    #[error("entry {found} follows entry {after}: an entry was removed or inserted")]
    Sequence {
        /// The number of the entry before.
        after: u64,
        /// The number that was found.
        found: u64,
    },
    /// The entry, or one before it, was changed; or the key is not the one of the chain.
    #[error(
        "the hash of entry {0} is not that of its text and of the entry before: it was changed, or persistence.audit.key is not the key with which it was written"
    )]
    Hash(u64),
    /// The end was cut off, or the whole chain was written anew.
    #[error(
        "the chain ends at {found}, and had reached {expected}: its end was cut off, or it was written anew"
    )]
    Head {
        /// The head that was kept elsewhere.
        expected: Head,
        /// The chain's own at that number, or its end.
        found: Head,
    },
}

/// Checks the entries of a chain, in their order.
#[derive(Debug)]
pub struct Verifier {
    key: Vec<u8>,
    head: Head,
    expected: Option<Head>,
    met: bool,
}

impl Verifier {
    /// Checks a chain that was written with this key (empty without one) and that must contain the head `expected`.
    #[must_use]
    pub fn new(key: &[u8], expected: Option<Head>) -> Self {
        Self {
            key: key.to_vec(),
            head: Head::default(),
            expected,
            met: false,
        }
    }

    /// Checks the next entry.
    ///
    /// # Errors
    /// It does not follow the one before.
    pub fn check(&mut self, link: &Link) -> Result<(), Broken> {
        if link.head.seq != self.head.seq + 1 {
            return Err(Broken::Sequence {
                after: self.head.seq,
                found: link.head.seq,
            });
        }
        let head = self.head.after(&self.key, &link.entry);
        if !bool::from(head.hash.ct_eq(&link.head.hash)) {
            return Err(Broken::Hash(head.seq));
        }
        self.head = head;
        if let Some(expected) = self.expected
            && expected.seq == head.seq
        {
            if expected != head {
                return Err(Broken::Head {
                    expected,
                    found: head,
                });
            }
            self.met = true;
        }
        Ok(())
    }

    /// The head, after the last entry.
    ///
    /// # Errors
    /// The chain does not reach the expected head.
    pub fn finish(self) -> Result<Head, Broken> {
        match self.expected {
            Some(expected) if !self.met && expected.seq > 0 => Err(Broken::Head {
                expected,
                found: self.head,
            }),
            _ => Ok(self.head),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn chain(key: &[u8], entries: &[String]) -> Vec<Link> {
        let mut head = Head::default();
        let link = |entry: &String| {
            head = head.after(key, entry);
            Link {
                head,
                entry: entry.clone(),
            }
        };
        entries.iter().map(link).collect()
    }

    fn verify(key: &[u8], links: &[Link], expected: Option<Head>) -> Result<Head, Broken> {
        let mut verifier = Verifier::new(key, expected);
        links.iter().try_for_each(|link| verifier.check(link))?;
        verifier.finish()
    }

    proptest! {
        #[test]
        fn no_change_of_an_entry_its_order_or_its_number_goes_undetected(
            entries in prop::collection::vec("[a-z]{0,8}", 2..20),
            at in any::<prop::sample::Index>(),
            other in "[A-Z]{1,8}",
            keyed in any::<bool>(),
        ) {
            let key: &[u8] = if keyed { b"key" } else { b"" };
            let links = chain(key, &entries);
            let head = links[links.len() - 1].head;
            prop_assert_eq!(verify(key, &links, None), Ok(head));
            prop_assert_eq!(verify(key, &links, Some(links[at.index(links.len())].head)), Ok(head));
            let at = at.index(links.len());

            let mut changed = links.clone();
            changed[at].entry = other.clone();
            prop_assert!(verify(key, &changed, None).is_err());
            // With its own hash, and the following ones as they were.
            let before = at.checked_sub(1).map_or(Head::default(), |before| links[before].head);
            changed[at].head = before.after(key, &other);
            prop_assert!(verify(key, &changed, Some(head)).is_err());

            let mut removed = links.clone();
            removed.remove(at);
            prop_assert!(verify(key, &removed, Some(head)).is_err());

            let mut swapped = links.clone();
            swapped.swap(at, (at + 1) % links.len());
            prop_assert!(verify(key, &swapped, None).is_err());

            // The end cut off.
            prop_assert!(verify(key, &links[..at], Some(head)).is_err());
            // Written anew from here on, by somebody without the key or who does not know the head.
            let mut anew = entries;
            anew[at] = other;
            prop_assert!(verify(key, &chain(key, &anew), Some(head)).is_err());
            if keyed {
                prop_assert!(verify(key, &chain(b"", &anew), None).is_err());
            }
        }
    }

    #[test]
    fn a_head_is_read_as_it_is_printed() {
        let head = Head::default().after(b"k", "e");
        assert_eq!(head.to_string().parse(), Ok(head));
        for text in ["", "1", "x:00", "1:00"] {
            assert!(text.parse::<Head>().is_err(), "{text}");
        }
    }
}
