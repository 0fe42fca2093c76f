//! Users by a keyed hash of their ids.

use siphasher::sip128::SipHasher13;
use tollgate_types::Tenant;

/// A user, by a keyed hash: 128 bits, so that two users practically never have the same one. The first half is a hash of
/// tenant and user_id, the second one of the user_id alone, which is the key of the records: users of equal ids in several
/// tenants are apart by 64 bits.
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

    /// The key of this user of the default tenant.
    #[must_use]
    pub fn key(&self, user_id: &[u8]) -> UserKey {
        let (first, second) = self.0.hash(user_id).as_u64();
        UserKey(first, second)
    }

    /// The key of this user of a tenant. Its worker is the same as that of the default tenant's user: records are spread over
    /// workers by their key, which is the user_id.
    #[must_use]
    pub fn key_in(&self, tenant: Tenant<'_>, user_id: &[u8]) -> UserKey {
        let own = self.key(user_id);
        let Some(name) = tenant.given() else {
            return own;
        };
        // Unambiguous, and no user of the default tenant: neither a name nor an id contains U+0000.
        let mut qualified = Vec::with_capacity(name.len() + 1 + user_id.len());
        qualified.extend_from_slice(name.as_bytes());
        qualified.push(0);
        qualified.extend_from_slice(user_id);
        UserKey(self.key(&qualified).0, own.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_of_equal_ids_in_several_tenants_have_keys_of_their_own_and_one_worker() {
        let hasher = UserHasher::new([7; 16]);
        let tenants = ["a", "b", "ab"].map(|name| Tenant::parse(name).unwrap());
        let user = hasher.key(b"bc");
        assert_eq!(hasher.key_in(Tenant::DEFAULT, b"bc"), user);
        let keys = tenants.map(|tenant| hasher.key_in(tenant, b"bc"));
        for (index, key) in keys.iter().enumerate() {
            assert_ne!(*key, user);
            assert_eq!(key.worker(5), user.worker(5));
            assert!(!keys[..index].contains(key));
        }
        assert_ne!(hasher.key_in(tenants[2], b"c").0, keys[0].0);
    }
}
