//! Base64 as senders write it: in either alphabet, with or without padding, in lines.

use base64::Engine as _;
use base64::alphabet::{STANDARD, URL_SAFE};
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

/// The bytes; `None` for a text that is no base64. What could be read and is not would be kept as it came, with whatever
/// card data is in it.
pub(crate) fn decode(text: &str) -> Option<Vec<u8>> {
    const LENIENT: GeneralPurposeConfig = GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true);
    const ENGINES: [GeneralPurpose; 2] = [
        GeneralPurpose::new(&STANDARD, LENIENT),
        GeneralPurpose::new(&URL_SAFE, LENIENT),
    ];
    // A blank within is one between words: `nor this` is a text, although its letters could be base64.
    let mut text = text.trim().as_bytes().to_vec();
    text.retain(|byte| !matches!(byte, b'\r' | b'\n'));
    // A number, perhaps of a card, which must stay legible to be masked.
    if text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    ENGINES.iter().find_map(|engine| engine.decode(&text).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_alphabets_are_read_with_and_without_padding_and_in_lines() {
        for text in ["+/8=", "-_8=", "+/8", "-_8", " +/\r\n8=\n"] {
            assert_eq!(decode(text).as_deref(), Some(&[0xfb, 0xff][..]), "{text}");
        }
        for text in ["{}", "a", "no base64!", "nor this", "4111 1111 1111 1111"] {
            assert_eq!(decode(text), None, "{text}");
        }
    }
}
