//! The chain of hashes. Pure.
//!
//! The hash of entry `n` is SHA-256, or with a key HMAC-SHA-256 (RFC 2104), over: the hash of entry `n − 1` (32 bytes, zeros
//! for the first), `n` as 8 bytes in little-endian order, and the text of the entry.
//!
//! A chain may begin behind its first entry, where the retention removed older ones: a later entry of the chain, which is
//! made before they are removed, then names the head of what was removed (the anchor). An attacker who removes the beginning
//! cannot add such an entry without the key.

use std::fmt;
use std::str::FromStr;

use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use super::event::AuditEvent;

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
    /// The beginning is missing, and no entry says that the retention removed it.
    #[error(
        "the entries up to {0} are missing, and no later entry says that persistence.audit.retention_days removed them: the beginning was cut off, or written anew"
    )]
    Beginning(u64),
    /// The head that was kept elsewhere is older than what the retention removed.
    #[error(
        "entry {expected} was removed by persistence.audit.retention_days, as were all up to {anchor}: compare with a newer head"
    )]
    Expired {
        /// Number of the head that was kept elsewhere.
        expected: u64,
        /// Number of the last entry that was removed.
        anchor: u64,
    },
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
    /// Number of the first entry, 0 before it.
    first: u64,
    beginning: Beginning,
}

/// How a chain begins.
#[derive(Debug)]
enum Beginning {
    /// No entry was seen yet.
    Unseen,
    /// With its first entry, or with one that follows an anchor.
    Known,
    /// With this entry; the anchor before it must be named by a later one.
    Unproven(Link),
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
            first: 0,
            beginning: Beginning::Unseen,
        }
    }

    /// Checks the next entry.
    ///
    /// # Errors
    /// It does not follow the one before.
    pub fn check(&mut self, link: &Link) -> Result<(), Broken> {
        if matches!(self.beginning, Beginning::Unseen) {
            self.beginning = Beginning::Known;
            self.first = link.head.seq;
            if link.head.seq > 1 {
                // Its hash is checked once its anchor is known.
                self.beginning = Beginning::Unproven(link.clone());
                return self.accept(link.head);
            }
        }
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
        if let Beginning::Unproven(first) = &self.beginning
            && let Some(anchor) = AuditEvent::anchor_in(&link.entry)
            && anchor.seq + 1 == first.head.seq
        {
            let known = anchor.after(&self.key, &first.entry);
            if !bool::from(known.hash.ct_eq(&first.head.hash)) {
                return Err(Broken::Hash(first.head.seq));
            }
            self.beginning = Beginning::Known;
        }
        self.accept(head)
    }

    fn accept(&mut self, head: Head) -> Result<(), Broken> {
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
    /// The chain does not reach the expected head, or its beginning is missing.
    pub fn finish(self) -> Result<Head, Broken> {
        if let Beginning::Unproven(first) = &self.beginning {
            return Err(Broken::Beginning(first.head.seq - 1));
        }
        match self.expected {
            Some(expected) if !self.met && (1..self.first).contains(&expected.seq) => {
                Err(Broken::Expired {
                    expected: expected.seq,
                    anchor: self.first - 1,
                })
            }
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
    use tollgate_types::Timestamp;

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

    /// A chain of which the retention removed the entries up to `anchor`, named by an entry at its end.
    fn with_anchor(key: &[u8], entries: &[String], anchor: usize) -> Vec<Link> {
        let links = chain(key, entries);
        let event = AuditEvent::of_retention(links[anchor].head, Timestamp::MIN);
        let named = [entries, &[event.text()]].concat();
        chain(key, &named).split_off(anchor + 1)
    }

    proptest! {
        #[test]
        fn a_chain_begins_behind_what_the_retention_removed_and_nowhere_else(
            entries in prop::collection::vec("[a-z]{0,8}", 3..20),
            at in any::<prop::sample::Index>(),
            other in "[A-Z]{1,8}",
        ) {
            let anchor = at.index(entries.len() - 2);
            let links = with_anchor(b"key", &entries, anchor);
            let head = links[links.len() - 1].head;
            prop_assert_eq!(verify(b"key", &links, None), Ok(head));
            prop_assert_eq!(verify(b"key", &links, Some(links[0].head)), Ok(head));
            let removed = chain(b"key", &entries)[anchor].head;
            let expired = Broken::Expired { expected: removed.seq, anchor: removed.seq };
            prop_assert_eq!(verify(b"key", &links, Some(removed)), Err(expired));
            // More is removed than the entry says.
            let missing = Broken::Beginning(removed.seq + 1);
            prop_assert_eq!(verify(b"key", &links[1..], None), Err(missing));
            // The entry is gone, as with an end that was cut off.
            let missing = Broken::Beginning(removed.seq);
            prop_assert_eq!(verify(b"key", &links[..links.len() - 1], None), Err(missing));
            // The first entry that is left was changed, with a hash of its own that the next one does not follow.
            let mut changed = links.clone();
            changed[0].entry = other.clone();
            prop_assert!(verify(b"key", &changed, None).is_err());
            changed[0].head = removed.after(b"key", &other);
            prop_assert!(verify(b"key", &changed, None).is_err());
            // By somebody without the key.
            let forged = with_anchor(b"", &entries, anchor);
            prop_assert!(verify(b"key", &forged, None).is_err());
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
