//! Where a caller waits for the decision on a transaction: the header `reply-to`.

use std::fmt;

/// A partition of the topic `replies`, and the number by which the reader of the partition knows that a reply is one that it
/// asked for. As text `3:00112233445566778899aabbccddeeff`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ReplyAddress {
    /// The partition that the waiting instance reads.
    pub partition: i32,
    /// Random, and of one request only: who has not seen the request cannot answer it.
    pub nonce: u128,
}

/// Digits of a nonce.
const NONCE_DIGITS: usize = 32;

impl ReplyAddress {
    /// Reads the header's value; none where it is not of the form that `Display` writes.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Self> {
        let (partition, nonce) = std::str::from_utf8(text).ok()?.split_once(':')?;
        let is_hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        if nonce.len() != NONCE_DIGITS || !nonce.bytes().all(is_hex) {
            return None;
        }
        if partition.is_empty() || !partition.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        Some(Self {
            partition: partition.parse().ok()?,
            nonce: u128::from_str_radix(nonce, 16).ok()?,
        })
    }
}

impl fmt::Display for ReplyAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{:032x}", self.partition, self.nonce)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn an_address_is_read_as_it_was_written(partition in 0..i32::MAX, nonce: u128) {
            let address = ReplyAddress { partition, nonce };
            assert_eq!(ReplyAddress::parse(address.to_string().as_bytes()), Some(address));
        }

        #[test]
        fn no_bytes_panic(text in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..48)) {
            if let Some(address) = ReplyAddress::parse(&text) {
                assert!(address.partition >= 0);
            }
        }
    }

    #[test]
    fn nothing_else_is_an_address() {
        let nonce = "00112233445566778899aabbccddeeff";
        for text in [
            String::new(),
            "3".to_owned(),
            "3:".to_owned(),
            "3:0011".to_owned(),
            format!(":{nonce}"),
            format!("-1:{nonce}"),
            format!("+1:{nonce}"),
            format!("99999999999:{nonce}"),
            format!("3:{}", nonce.to_uppercase()),
            format!("3:{nonce}0"),
            format!("3:+{}", &nonce[1..]),
        ] {
            assert_eq!(ReplyAddress::parse(text.as_bytes()), None, "{text}");
        }
    }
}
