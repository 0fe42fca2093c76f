//! Users by a keyed hash of their ids.

use siphasher::sip128::SipHasher13;

/// A user, by a keyed hash of the user_id: 128 bits, so that no two are mistaken for each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UserKey(pub(super) u64, pub(super) u64);

impl UserKey {
    /// One of so many lanes, always the same for a user.
    #[must_use]
    pub fn lane(self, lanes: usize) -> usize {
        usize::try_from(self.spread() % lanes.max(1) as u64).unwrap_or_default()
    }

    /// A number by which users are spread evenly over lanes.
    #[must_use]
    pub const fn spread(self) -> u64 {
        // The index of users takes bits of the other half.
        self.1
    }
}

/// Gives users their keys.
#[derive(Debug, Clone, Copy)]
pub struct UserHasher(SipHasher13);

impl UserHasher {
    /// `hash_key` is that of the engines.
    #[must_use]
    pub fn new(hash_key: [u8; 16]) -> Self {
        Self(SipHasher13::new_with_key(&hash_key))
    }

    /// The key of this user.
    #[must_use]
    pub fn key(&self, user_id: &[u8]) -> UserKey {
        let (first, second) = self.0.hash(user_id).as_u64();
        UserKey(first, second)
    }
}
