//! The digits and separators of other scripts and forms as ASCII, and without characters that nobody sees.
//!
//! Invariant: each byte of the folded text names the place in the original at which its character begins, so that what is
//! found in one is masked in the other.

use icu_properties::CodePointMapData;
use icu_properties::props::GeneralCategory;

/// A text in which full-width, Arabic, Devanagari and all other decimal digits are ASCII digits.
pub(super) struct Folded {
    pub(super) text: Vec<u8>,
    /// For each byte of `text` where its character begins in the original, and the original's length.
    places: Vec<usize>,
}

impl Folded {
    /// `None` for a text that is ASCII, which is its own folding.
    pub(super) fn of(original: &[u8]) -> Option<Self> {
        if original.is_ascii() {
            return None;
        }
        let mut folded = Self {
            text: Vec::with_capacity(original.len()),
            places: Vec::with_capacity(original.len() + 1),
        };
        let mut at = 0;
        for chunk in original.utf8_chunks() {
            for character in chunk.valid().chars() {
                if let Some(byte) = folded_character(character) {
                    folded.text.push(byte);
                    folded.places.push(at);
                }
                at += character.len_utf8();
            }
            for _ in chunk.invalid() {
                folded.text.push(OTHER);
                folded.places.push(at);
                at += 1;
            }
        }
        folded.places.push(at);
        Some(folded)
    }

    /// Where a range of the folded text stands in the original. What is invisible behind its last character is in it.
    pub(super) fn original(&self, range: &std::ops::Range<usize>) -> std::ops::Range<usize> {
        let place = |at: usize| self.places.get(at).copied().unwrap_or_default();
        place(range.start)..place(range.end)
    }
}

/// Stands for every character that is neither a digit nor a separator: a letter, so that words stay words.
const OTHER: u8 = 0xff;

/// `None` for a character that is not seen.
fn folded_character(character: char) -> Option<u8> {
    if let Ok(byte) = u8::try_from(character)
        && byte.is_ascii()
    {
        return Some(byte);
    }
    if is_invisible(character) {
        return None;
    }
    Some(match character {
        _ if character.is_whitespace() => b' ',
        // Hyphens, dashes, minus signs, middle dots and their full-width and small forms.
        '\u{2010}'..='\u{2015}' | '\u{2212}' | '\u{fe58}' | '\u{fe63}' | '\u{ff0d}' => b'-',
        '\u{b7}' | '\u{2022}' | '\u{2024}' | '\u{2027}' | '\u{30fb}' | '\u{ff0e}' => b'.',
        '\u{2044}' | '\u{2215}' | '\u{ff0f}' => b'/',
        '\u{ff3f}' => b'_',
        _ => digit(character).unwrap_or(OTHER),
    })
}

/// Zero-width spaces and joiners, soft hyphens, bidirectional marks, variation selectors.
fn is_invisible(character: char) -> bool {
    matches!(
        character,
        '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{e0000}'..='\u{e0fff}'
    )
}

/// The ASCII digit of a decimal digit of any script.
pub(super) fn digit(character: char) -> Option<u8> {
    // The mathematical digits are five runs of ten, which begin at no multiple of ten.
    if ('\u{1d7ce}'..='\u{1d7ff}').contains(&character) {
        let value = (u32::from(character) - 0x1d7ce) % 10;
        return u8::try_from(value).ok().map(|value| b'0' + value);
    }
    let is_digit = |character| {
        CodePointMapData::<GeneralCategory>::new().get(character) == GeneralCategory::DecimalNumber
    };
    if !is_digit(character) {
        return None;
    }
    // In every other script the ten digits follow one another, and the character before the zero is none.
    (0..10_u8).find_map(|value| {
        let zero = u32::from(character).checked_sub(u32::from(value))?;
        let before = char::from_u32(zero.checked_sub(1)?);
        let is_zero = before.is_none_or(|before| !is_digit(before));
        is_zero.then_some(b'0' + value)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digits_of_every_script_are_folded() {
        for zero in [
            '\u{660}',
            '\u{6f0}',
            '\u{966}',
            '\u{e50}',
            '\u{ff10}',
            '\u{1d7ce}',
            '\u{1d7f6}',
        ] {
            for value in 0..10_u8 {
                let character = char::from_u32(u32::from(zero) + u32::from(value)).unwrap();
                assert_eq!(digit(character), Some(b'0' + value), "{character}");
            }
        }
        // A superscript, a circled digit and a numeral are no decimal digits.
        for other in ['²', '①', '五', 'x'] {
            assert_eq!(digit(other), None);
        }
    }

    #[test]
    fn a_place_in_the_folded_text_is_one_in_the_original() {
        let text = "é４\u{200b}1\u{a0}x".as_bytes();
        let folded = Folded::of(text).unwrap();
        assert_eq!(folded.text, [OTHER, b'4', b'1', b' ', b'x']);
        assert_eq!(folded.original(&(1..3)), 2..9);
        assert_eq!(&text[folded.original(&(0..5))], text);
        assert!(Folded::of(b"4111").is_none());
    }
}
