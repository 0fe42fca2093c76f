//! A look at a text that tells for nearly every transaction, at the cost of one step for each byte, that there is nothing to
//! be taken out.
//!
//! Invariant: it says so only of a text in which neither [`Walk`](super::walk::Walk) nor the masking of broken texts would
//! change anything.

use super::codes;
use super::fold;
use super::number::MIN_DIGITS;

/// For each byte what is added to the number of digits so far, and what that is masked with: a digit counts, a byte that may
/// stand between the groups of a number changes nothing, and any other ends it.
const STEPS: [(usize, usize); 256] = {
    let mut steps = [(0, 0); 256];
    let mut byte = 0_u8;
    loop {
        steps[byte as usize] = match byte {
            b'0'..=b'9' => (1, usize::MAX),
            b' ' | b'-' | b'.' | b'_' | b'/' | b'+' | b'\t' | b'%' | 0x80.. => (0, usize::MAX),
            _ => (0, 0),
        };
        if byte == u8::MAX {
            break;
        }
        byte += 1;
    }
    steps
};

/// Whether there is certainly no card data in the text.
pub(super) fn is_clean(text: &[u8]) -> bool {
    has_few_digits(text)
        && memchr::memchr(b'\\', text).is_none()
        && !has_name_of_code(text)
        && (text.is_ascii() || !has_foreign_digit(text))
}

fn has_foreign_digit(text: &[u8]) -> bool {
    let mut characters = text.utf8_chunks().flat_map(|chunk| chunk.valid().chars());
    characters.any(|character| !character.is_ascii() && fold::digit(character).is_some())
}

fn has_few_digits(text: &[u8]) -> bool {
    // Without branches: they would be mispredicted at each end of a word.
    let (_, most) = text.iter().fold((0, 0), |(digits, most), byte| {
        let (add, mask) = STEPS[usize::from(*byte)];
        let digits = (digits + add) & mask;
        (digits, digits.max(most))
    });
    most < MIN_DIGITS
}

/// Whether a colon, an equals sign or the end of a tag follows the name of a verification code. In a broken text it is
/// unknown which quotes belong together, so any two before a colon may enclose a name.
fn has_name_of_code(text: &[u8]) -> bool {
    codes::separators(text).any(|at| codes::follows_name(text, at))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{CardDataMode, CardPolicy};
    use super::*;

    #[test]
    fn a_usual_transaction_is_clean_and_one_with_card_data_is_not() {
        let usual = r#"{"transaction_id":"t-1","user_id":"u-1","amount":"12.50","timestamp":"2026-03-01T12:30:00.123456Z","location":{"latitude":52.520008,"longitude":13.404954},"currency":"EUR"}"#;
        assert!(is_clean(usual.as_bytes()));
        for text in [
            r#"{"a":"4111 1111 1111 1111"}"#,
            r#"{"a":4111111111111111}"#,
            r#"{"C_V-V" : 1}"#,
            r#"{"a":"\u0034"}"#,
            "\"a\"cvv\" : 2",
            "{\"a\":\"cvv=123\"}",
            "{\"a\":\"４１１１\"}",
        ] {
            assert!(!is_clean(text.as_bytes()), "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_clean_text_has_nothing_that_is_taken_out(
            text in r#"(\{|\}|"|:|,|cvv|pin|"cvc" :|"c-v-v":|4111111111111111|4111 1111|4111|cvv=|１１１１|\u{200b}|/|_|[0-9]{1,6}| |-|\.|e|a){0,20}"#,
        ) {
            if is_clean(text.as_bytes()) {
                let policy = CardPolicy::new(CardDataMode::Mask, None);
                let protected = policy.protect_thoroughly(text.as_bytes());
                prop_assert_eq!(&*protected.text, text.as_bytes());
                prop_assert!(protected.found.is_empty() && protected.refusal.is_none());
            }
        }
    }
}
