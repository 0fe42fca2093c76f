//! Users with an API key: what a client outside Oracle Cloud signs with.

use std::collections::HashMap;

use anyhow::Context as _;
use openssl::hash::MessageDigest;
use openssl::pkey::{PKey, Public};

use super::keys;

/// The public half of a user's API key.
#[derive(Debug, Clone)]
pub struct UserKey {
    /// `<tenancy OCID>/<user OCID>/<fingerprint>`.
    pub key_id: String,
    /// The key as PEM.
    pub public_key_pem: String,
}

impl UserKey {
    /// The last part of the key id.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        let (_, fingerprint) = self.key_id.rsplit_once('/').unwrap_or_default();
        fingerprint.to_owned()
    }
}

/// Makes an API key for a user, as `oci setup keys` does: RSA of 2048 bits, its fingerprint the MD5 of the public key
/// as DER. The public half and the private key as PKCS#8 PEM.
///
/// # Errors
/// Where OpenSSL makes no key.
pub fn make_user(tenancy: &str, user: &str) -> anyhow::Result<(UserKey, String)> {
    let private = keys::new_rsa()?;
    let fingerprint = keys::fingerprint(&private.public_key_to_der()?, MessageDigest::md5())?;
    let public = UserKey {
        key_id: format!("{tenancy}/{user}/{fingerprint}"),
        public_key_pem: String::from_utf8(private.public_key_to_pem()?)?,
    };
    Ok((
        public,
        String::from_utf8(private.private_key_to_pem_pkcs8()?)?,
    ))
}

/// The keys of all users, by key id.
#[derive(Debug)]
pub(super) struct Users(HashMap<String, PKey<Public>>);

impl Users {
    /// # Errors
    /// Where a key is none, or its id is not one that Oracle would give it.
    pub(super) fn new(users: &[UserKey]) -> anyhow::Result<Self> {
        let keys = users.iter().map(|user| {
            let key = key_of(user).with_context(|| format!("user {}", user.key_id))?;
            Ok((user.key_id.clone(), key))
        });
        Ok(Self(keys.collect::<anyhow::Result<_>>()?))
    }

    pub(super) fn key(&self, key_id: &str) -> Result<PKey<Public>, String> {
        let key = self.0.get(key_id).cloned();
        key.ok_or_else(|| format!("no user has the key {key_id:?}"))
    }
}

fn key_of(user: &UserKey) -> anyhow::Result<PKey<Public>> {
    let key = keys::rsa_from_pem(&user.public_key_pem)?;
    let parts: Vec<&str> = user.key_id.split('/').collect();
    let [_, _, fingerprint] = parts[..] else {
        anyhow::bail!("a key id is TENANCY/USER/FINGERPRINT");
    };
    let expected = keys::fingerprint(&key.public_key_to_der()?, MessageDigest::md5())?;
    anyhow::ensure!(
        fingerprint == expected,
        "the key's fingerprint is {expected}"
    );
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::{UserKey, Users, make_user};

    #[test]
    fn a_key_id_with_the_fingerprint_of_another_key_is_refused_at_start() {
        let (one, _) = make_user("ocid1.tenancy.oc1..t", "ocid1.user.oc1..u").unwrap();
        let (other, _) = make_user("ocid1.tenancy.oc1..t", "ocid1.user.oc1..u").unwrap();
        assert!(Users::new(std::slice::from_ref(&one)).is_ok());
        let mixed = UserKey {
            key_id: one.key_id,
            public_key_pem: other.public_key_pem,
        };
        assert!(Users::new(&[mixed]).is_err());
    }
}
