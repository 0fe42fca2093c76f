//! The texts that policies read of remembered transactions, each kept once for all users of an engine.
//!
//! Invariant: a text is kept exactly as long as a row holds its code. Codes have a meaning within one engine only.

use std::hash::Hasher as _;

use hashbrown::HashTable;
use siphasher::sip::SipHasher13;

use super::layout::ALLOCATION_OVERHEAD;

/// Texts by code. Code 0 is no text.
pub(crate) struct Texts {
    /// Keyed, so that nobody can send texts that fall into one place.
    hasher: SipHasher13,
    codes: HashTable<u32>,
    texts: Vec<Text>,
    free: Vec<u32>,
    bytes: usize,
}

#[derive(Default)]
struct Text {
    text: Box<str>,
    rows: u32,
}

impl Texts {
    pub(crate) fn new(hasher: SipHasher13) -> Self {
        Self {
            hasher,
            codes: HashTable::new(),
            texts: Vec::new(),
            free: Vec::new(),
            bytes: 0,
        }
    }

    fn hash(hasher: SipHasher13, text: &str) -> u64 {
        let mut hasher = hasher;
        hasher.write(text.as_bytes());
        hasher.finish()
    }

    /// The text of a code; `None` for 0.
    pub(crate) fn get(&self, code: u32) -> Option<&str> {
        let at = usize::try_from(code.checked_sub(1)?).ok()?;
        self.texts.get(at).map(|text| &*text.text)
    }

    /// The code of a text that a row holds.
    pub(crate) fn find(&self, text: &str) -> Option<u32> {
        let hash = Self::hash(self.hasher, text);
        let same = |code: &u32| self.get(*code) == Some(text);
        self.codes.find(hash, same).copied()
    }

    /// The code of a text for one more row.
    pub(crate) fn hold(&mut self, text: &str) -> u32 {
        let code = self.find(text).unwrap_or_else(|| self.add(text));
        if let Some(held) = self.entry(code) {
            held.rows = held.rows.saturating_add(1);
        }
        code
    }

    /// Removes a row from those that hold a text.
    pub(crate) fn release(&mut self, code: u32) {
        let Some(held) = self.entry(code) else {
            return;
        };
        held.rows = held.rows.saturating_sub(1);
        if held.rows > 0 {
            return;
        }
        let text = std::mem::take(&mut held.text);
        self.bytes -= text.len() + ALLOCATION_OVERHEAD;
        let hash = Self::hash(self.hasher, &text);
        if let Ok(found) = self.codes.find_entry(hash, |each| *each == code) {
            found.remove();
        }
        self.free.push(code);
    }

    fn entry(&mut self, code: u32) -> Option<&mut Text> {
        let at = usize::try_from(code.checked_sub(1)?).ok()?;
        self.texts.get_mut(at)
    }

    fn add(&mut self, text: &str) -> u32 {
        let new = Text {
            text: text.into(),
            rows: 0,
        };
        self.bytes += text.len() + ALLOCATION_OVERHEAD;
        let code = match self.free.pop() {
            Some(code) => {
                if let Some(place) = self.entry(code) {
                    *place = new;
                }
                code
            }
            None => {
                self.texts.push(new);
                // 2^32 texts do not fit in memory.
                u32::try_from(self.texts.len()).unwrap_or_default()
            }
        };
        let (hasher, texts) = (self.hasher, &self.texts);
        self.codes
            .insert_unique(Self::hash(hasher, text), code, |code| {
                let text = texts.get((*code as usize).wrapping_sub(1));
                Self::hash(hasher, text.map_or("", |text| &text.text))
            });
        code
    }

    /// Memory held.
    pub(crate) fn heap_bytes(&self) -> usize {
        self.bytes
            + self.codes.allocation_size()
            + self.texts.capacity() * size_of::<Text>()
            + self.free.capacity() * size_of::<u32>()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_text_is_kept_as_long_as_a_row_holds_it(
            steps in prop::collection::vec((0..12_u8, any::<bool>()), 0..300),
        ) {
            let mut texts = Texts::new(SipHasher13::new_with_key(&[1; 16]));
            let mut rows: Vec<(String, u32)> = Vec::new();
            for (which, add) in steps {
                if add {
                    let text = format!("text {which}");
                    rows.push((text.clone(), texts.hold(&text)));
                } else if !rows.is_empty() {
                    let at = usize::from(which) % rows.len();
                    texts.release(rows.swap_remove(at).1);
                }
                for which in 0..12 {
                    let text = format!("text {which}");
                    let row = rows.iter().find(|(each, _)| *each == text);
                    prop_assert_eq!(texts.find(&text), row.map(|(_, code)| *code));
                }
                for (text, code) in &rows {
                    prop_assert_eq!(texts.get(*code), Some(&**text));
                }
            }
            let different: std::collections::BTreeSet<_> = rows.iter().map(|(text, _)| text).collect();
            prop_assert_eq!(texts.codes.len(), different.len());
        }
    }
}
