//! The authentication of a snapshot: HMAC-SHA-256 over everything before it, at the end of the file.
//!
//! A snapshot decides scores: whoever could write one could give a user another history. A checksum shows damage only.

use std::fmt;

use hmac::digest::Key;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256};

use super::UnreadableSnapshot;

/// Separates the key of snapshots from any other use of the same secret.
const PURPOSE: &[u8] = b"tollgate snapshot 1";
const CODE_BYTES: usize = 32;

/// The key under which snapshots are written and read.
#[derive(Clone)]
pub struct SnapshotKey(Hmac<Sha256>);

impl fmt::Debug for SnapshotKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SnapshotKey")
    }
}

impl SnapshotKey {
    /// The key for histories whose ids are hashed with `hash_key`, derived from a secret of any length. With an empty secret
    /// it depends on the hash key alone: snapshots of another installation are refused, and whoever knows that key can make
    /// some that are not.
    #[must_use]
    pub fn derive(secret: &[u8], hash_key: [u8; 16]) -> Self {
        let mut mac = keyed(&Sha256::digest(secret));
        mac.update(PURPOSE);
        mac.update(&hash_key);
        Self(keyed(&mac.finalize().into_bytes()))
    }

    /// Appends the code of what is there, which [`write`](super::write) does.
    pub fn seal(&self, out: &mut Vec<u8>) {
        let mut mac = self.0.clone();
        mac.update(out);
        out.extend_from_slice(&mac.finalize().into_bytes());
    }

    /// What comes before the code, if the code is right.
    pub(super) fn open<'a>(&self, bytes: &'a [u8]) -> Result<&'a [u8], UnreadableSnapshot> {
        let at = bytes.len().checked_sub(CODE_BYTES);
        let (text, code) = bytes.split_at(at.ok_or(UnreadableSnapshot::Truncated)?);
        let mut mac = self.0.clone();
        mac.update(text);
        // Compares in constant time.
        mac.verify_slice(code)
            .map_err(|_| UnreadableSnapshot::Authentication)?;
        Ok(text)
    }
}

/// HMAC under a key of 32 bytes, which it pads with zeros.
fn keyed(key: &[u8]) -> Hmac<Sha256> {
    let mut block = Key::<Hmac<Sha256>>::default();
    for (byte, given) in block.iter_mut().zip(key) {
        *byte = *given;
    }
    Hmac::new(&block)
}
