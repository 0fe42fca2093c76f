//! What an id may consist of, and the one form in which it is used.
//!
//! Invariant: two ids that look alike to a person because they differ in composition, in invisible characters or in
//! white space are never two users: they are brought to NFC (Unicode Standard Annex 15) without white space around them, or refused. Letters of other
//! scripts that look alike cannot be refused, since names are written in them; [`mixes_scripts`] finds the usual case.

use std::borrow::Cow;

use icu_normalizer::ComposingNormalizerBorrowed;
use icu_properties::props::{DefaultIgnorableCodePoint, GeneralCategory, Script};
use icu_properties::{CodePointMapData, CodePointSetData};
use serde::{Deserialize, Serialize};
use unicase::UniCase;

use super::MAX_ID_BYTES;
use crate::Rejection;

/// Whether user ids that differ only in case are one user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UserIdCase {
    /// They are different users.
    #[default]
    Keep,
    /// They are one user, whose id is the case folding of each (Unicode, full: `ß` is `ss`).
    Fold,
}

/// Checks an id, takes away the white space around it and brings it to NFC.
///
/// # Errors
/// Its length, or the code point that it must not contain, by its number.
pub(super) fn check<'a>(
    field: &'static str,
    text: Cow<'a, str>,
    case: UserIdCase,
) -> Result<Cow<'a, str>, Rejection> {
    let text = trimmed(text);
    if text.is_empty() || text.len() > MAX_ID_BYTES {
        return Err(too_long(field));
    }
    if is_plain(text.as_bytes()) {
        return Ok(match case {
            UserIdCase::Fold if text.bytes().any(|byte| byte.is_ascii_uppercase()) => {
                Cow::Owned(text.to_ascii_lowercase())
            }
            UserIdCase::Fold | UserIdCase::Keep => text,
        });
    }
    for character in text.chars() {
        if let Some(what) = fault(character) {
            let code = u32::from(character);
            let reason = format!("must not contain U+{code:04X}, {what}");
            return Err(Rejection::new(field, reason));
        }
    }
    let id = match case {
        UserIdCase::Keep => to_nfc(text),
        UserIdCase::Fold => {
            let folded = UniCase::unicode(to_nfc(text)).to_folded_case();
            to_nfc(Cow::Owned(folded))
        }
    };
    if id.len() > MAX_ID_BYTES {
        return Err(too_long(field));
    }
    Ok(id)
}

/// An id that somebody asks for, as a transaction that was accepted has it: without white space around it, in NFC, and folded
/// if `case` says so. Nothing is refused: an id that no transaction can have is not found.
#[must_use]
pub fn stored_id(text: &str, case: UserIdCase) -> String {
    let id = to_nfc(trimmed(Cow::Borrowed(text)));
    match case {
        UserIdCase::Keep => id.into_owned(),
        UserIdCase::Fold => to_nfc(Cow::Owned(UniCase::unicode(id).to_folded_case())).into_owned(),
    }
}

/// Exports with columns of a fixed width fill ids up with blanks.
fn trimmed(text: Cow<'_, str>) -> Cow<'_, str> {
    match text {
        Cow::Borrowed(text) => Cow::Borrowed(text.trim()),
        Cow::Owned(text) if text.trim().len() == text.len() => Cow::Owned(text),
        Cow::Owned(text) => Cow::Owned(text.trim().to_owned()),
    }
}

fn too_long(field: &'static str) -> Rejection {
    Rejection::new(field, "must be 1 to 128 bytes long")
}

/// Printable ASCII, as nearly every id is. It is its own NFC.
fn is_plain(id: &[u8]) -> bool {
    id.iter().all(|byte| matches!(byte, b' '..=b'~'))
}

fn to_nfc(text: Cow<'_, str>) -> Cow<'_, str> {
    const NFC: ComposingNormalizerBorrowed<'static> = ComposingNormalizerBorrowed::new_nfc();
    if NFC.is_normalized(&text) {
        return text;
    }
    Cow::Owned(NFC.normalize(&text).into_owned())
}

/// Why an id must not contain a character, if so.
fn fault(character: char) -> Option<&'static str> {
    if character.is_ascii() {
        return character
            .is_ascii_control()
            .then_some("a control character");
    }
    if character.is_whitespace() {
        return Some("white space other than U+0020");
    }
    match CodePointMapData::<GeneralCategory>::new().get(character) {
        GeneralCategory::Control => Some("a control character"),
        GeneralCategory::Format => Some("an invisible or bidirectional formatting character"),
        GeneralCategory::PrivateUse => Some("a private-use character"),
        GeneralCategory::Unassigned => Some("which is not assigned"),
        GeneralCategory::Surrogate
        | GeneralCategory::LineSeparator
        | GeneralCategory::ParagraphSeparator => Some("a separator or half a character"),
        // Combining grapheme joiner, variation selectors, fillers: visible to no one.
        _ => CodePointSetData::new::<DefaultIgnorableCodePoint>()
            .contains(character)
            .then_some("an invisible character"),
    }
}

/// Whether an id has letters of more than one script, such as a Cyrillic `а` among Latin letters. Chinese, Japanese and
/// Korean scripts are written together and with Latin letters, and do not count.
#[must_use]
pub fn mixes_scripts(id: &str) -> bool {
    if id.is_ascii() {
        return false;
    }
    let scripts = CodePointMapData::<Script>::new();
    let mut first = None;
    id.chars().any(|character| {
        let script = scripts.get(character);
        let counts = !matches!(
            script,
            Script::Common
                | Script::Inherited
                | Script::Unknown
                | Script::Han
                | Script::Hiragana
                | Script::Katakana
                | Script::Hangul
                | Script::Bopomofo
        );
        counts && *first.get_or_insert(script) != script
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn who_asks_for_an_id_as_it_was_sent_asks_for_the_one_that_is_stored(
            id in "[a-zA-ZäÖßéİﬁÅΣς \u{301}\u{308}\u{212b}0-9]{1,24}",
            fold in any::<bool>(),
        ) {
            let case = if fold { UserIdCase::Fold } else { UserIdCase::Keep };
            if let Ok(stored) = check("user_id", Cow::Borrowed(&id), case) {
                prop_assert_eq!(stored_id(&id, case), stored.as_ref());
                prop_assert_eq!(stored_id(&stored, case), stored.as_ref());
            }
        }
    }
}
