//! Users by a keyed hash of their ids.

use siphasher::sip128::SipHasher13;

/// A user, by a keyed hash of the user_id: 128 bits, so that two users practically never have the same one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UserKey(pub(crate) u64, pub(crate) u64);

impl UserKey {
    /// The worker of the user among so many, always the same one.
    #[must_use]
    pub fn worker(self, workers: usize) -> usize {
        usize::try_from(self.spread() % workers.max(1) as u64).unwrap_or_default()
    }

    /// A number by which users are spread evenly over workers.
    #[must_use]
    pub const fn spread(self) -> u64 {
        // The index of users uses bits of the other half.
        self.1
    }
}

/// Computes the keys of users.
#[derive(Debug, Clone, Copy)]
pub struct UserHasher(SipHasher13);

impl UserHasher {
    /// `hash_key` must be that of the engines.
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
