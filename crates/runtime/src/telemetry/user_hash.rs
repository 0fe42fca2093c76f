//! What stands for a user in logs and traces: a keyed hash, by which lines of one user can be told to belong together,
//! and which nobody without the key can try user ids on.

use std::sync::OnceLock;

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

static KEY: OnceLock<Vec<u8>> = OnceLock::new();

/// Sets the key, once in a process; an empty one is left to chance.
pub(super) fn set_key(key: &str) {
    if !key.is_empty() {
        let _ = KEY.set(key.as_bytes().to_vec());
    }
}

/// Sixteen hexadecimal digits that stand for a user.
#[must_use]
pub fn user_hash(user_id: &[u8]) -> String {
    let key = KEY.get_or_init(|| rand::random::<[u8; 32]>().to_vec());
    hash(key, user_id)
}

fn hash(key: &[u8], user_id: &[u8]) -> String {
    // A key of any length is one for an HMAC.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else {
        return String::new();
    };
    mac.update(user_id);
    let digest = mac.finalize().into_bytes();
    digest[..8]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_depends_on_the_user_and_on_the_key_and_shows_neither() {
        let ada = hash(b"k", b"ada");
        assert_eq!(ada.len(), 16);
        assert_eq!(ada, hash(b"k", b"ada"));
        assert_ne!(ada, hash(b"k", b"bob"));
        assert_ne!(ada, hash(b"l", b"ada"));
        assert_eq!(user_hash(b"ada"), user_hash(b"ada"));
    }
}
