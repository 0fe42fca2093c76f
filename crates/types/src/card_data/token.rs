//! Tokens: what stands for a card number, so that the same card can be recognised without its number.

use std::fmt;

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

/// A key of at least this length, in bytes: as long as the hash that it keys.
const MIN_KEY_BYTES: usize = 32;
/// Bytes of the hash that a token keeps: two cards have the same with a probability of 2^-128.
const TOKEN_BYTES: usize = 16;

/// The key of the tokens. Whoever has it can find the number of a token by trying all numbers.
#[derive(Clone)]
pub struct TokenKey(Hmac<Sha256>);

impl fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenKey")
    }
}

impl TokenKey {
    /// A key of these bytes; `None` if there are fewer than 32.
    #[must_use]
    pub fn new(bytes: &[u8]) -> Option<Self> {
        if bytes.len() < MIN_KEY_BYTES {
            return None;
        }
        Hmac::new_from_slice(bytes).ok().map(Self)
    }

    /// The token of a card number, given as ASCII digits: `tok_` and 32 letters, HMAC-SHA-256 of the digits. The letters a
    /// to p stand for four bits each, so that a token has no digit, and is itself never found as a card number.
    pub(super) fn token(&self, digits: &[u8]) -> String {
        let mut mac = self.0.clone();
        mac.update(digits);
        let hash = mac.finalize().into_bytes();
        let letter = |nibble: u8| char::from(b'a' + nibble);
        let letters = hash[..TOKEN_BYTES]
            .iter()
            .flat_map(|byte| [letter(byte >> 4), letter(byte & 15)]);
        "tok_".chars().chain(letters).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_that_of_the_number_under_the_key_and_has_no_digit() {
        let key = TokenKey::new(&[7; 32]).unwrap();
        let token = key.token(b"4111111111111111");
        assert_eq!(
            token,
            TokenKey::new(&[7; 32]).unwrap().token(b"4111111111111111")
        );
        assert_ne!(token, key.token(b"5555555555554444"));
        assert_ne!(
            token,
            TokenKey::new(&[8; 32]).unwrap().token(b"4111111111111111")
        );
        assert_eq!(token.len(), 36);
        assert!(!token.bytes().any(|byte| byte.is_ascii_digit()));
        assert!(TokenKey::new(&[7; 31]).is_none());
    }
}
