//! The identification of a user in traces: a keyed hash, which groups the spans of a user and cannot be reversed by trying
//! user ids without the key; or the user id itself, if a setting allows it.

use std::sync::OnceLock;

use sha2::{Digest as _, Sha256};
use siphasher::sip::SipHasher24;

use super::config::UserIds;

static KEY: OnceLock<[u8; 16]> = OnceLock::new();
static PLAIN: OnceLock<()> = OnceLock::new();

/// Sets how users are identified, once in a process. An empty key is replaced by a random one.
pub(super) fn configure(ids: UserIds, key: &str) {
    if !key.is_empty() {
        let _ = KEY.set(derived(key.as_bytes()));
    }
    if ids == UserIds::Plain {
        let _ = PLAIN.set(());
    }
}

/// The attribute of a user, by OpenTelemetry's names: `user.hash`, or `user.id` if that is configured.
#[must_use]
pub fn user_attribute(user_id: &[u8]) -> (&'static str, String) {
    if PLAIN.get().is_some() {
        return ("user.id", String::from_utf8_lossy(user_id).into_owned());
    }
    ("user.hash", user_hash(user_id))
}

/// The 16 bytes that SipHash needs, from a key of any length.
fn derived(key: &[u8]) -> [u8; 16] {
    let mut sixteen = [0; 16];
    sixteen.copy_from_slice(&Sha256::digest(key)[..16]);
    sixteen
}

/// The hash of a user id: 16 hexadecimal digits.
fn user_hash(user_id: &[u8]) -> String {
    let key = KEY.get_or_init(rand::random);
    hash(key, user_id)
}

fn hash(key: &[u8; 16], user_id: &[u8]) -> String {
    format!("{:016x}", SipHasher24::new_with_key(key).hash(user_id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_depends_on_the_user_and_on_the_key_and_shows_neither() {
        let ada = hash(&derived(b"k"), b"ada");
        assert_eq!(ada.len(), 16);
        assert_eq!(ada, hash(&derived(b"k"), b"ada"));
        assert_ne!(ada, hash(&derived(b"k"), b"bob"));
        assert_ne!(ada, hash(&derived(b"l"), b"ada"));
        assert_eq!(user_hash(b"ada"), user_hash(b"ada"));
    }
}
