//! RSA keys, by OpenSSL.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use openssl::pkey::{PKey, Private};
use openssl::rsa::Rsa;

use super::Reason;

/// The size of keys for session tokens, by Oracle.
const SESSION_BITS: u32 = 2048;

/// Converts a private key to the form of the SDK: PKCS#8 without a passphrase. Accepts all forms that OpenSSL reads, such
/// as the PKCS#1 of the console.
pub(super) fn to_pkcs8(pem: &str, passphrase: &str) -> Result<String, Reason> {
    let key = PKey::private_key_from_pem_passphrase(pem.as_bytes(), passphrase.as_bytes())
        .map_err(|_| {
            "the private key cannot be read: expected PEM, and the passphrase it was written with"
                .to_owned()
        })?;
    if key.rsa().is_err() {
        return Err("the private key is not an RSA key".to_owned());
    }
    to_pem(&key)
}

fn to_pem(key: &PKey<Private>) -> Result<String, Reason> {
    let pem = key
        .private_key_to_pem_pkcs8()
        .map_err(|error| error.to_string())?;
    String::from_utf8(pem).map_err(|error| error.to_string())
}

/// A key for one session token.
pub(super) struct SessionKey {
    /// PEM, PKCS#8.
    pub(super) private: String,
    /// The public key: SubjectPublicKeyInfo, DER in base64, on one line.
    pub(super) public: String,
}

impl SessionKey {
    /// Generates a key outside the threads of the runtime: it takes tens of milliseconds.
    pub(super) async fn make() -> Result<Self, Reason> {
        let make = || {
            let key = Rsa::generate(SESSION_BITS)
                .and_then(PKey::from_rsa)
                .map_err(|error| error.to_string())?;
            let public = key.public_key_to_der().map_err(|error| error.to_string())?;
            Ok(Self {
                private: to_pem(&key)?,
                public: STANDARD.encode(public),
            })
        };
        let made = tokio::task::spawn_blocking(make).await;
        made.map_err(|error| error.to_string())?
    }
}

#[cfg(test)]
mod tests {
    use openssl::symm::Cipher;

    use super::*;

    #[test]
    fn keys_of_every_form_become_the_one_that_the_sdk_reads() {
        let key = PKey::from_rsa(Rsa::generate(2048).unwrap()).unwrap();
        let text = |pem: Vec<u8>| String::from_utf8(pem).unwrap();
        let expected = text(key.private_key_to_pem_pkcs8().unwrap());
        let pkcs1 = text(key.rsa().unwrap().private_key_to_pem().unwrap());
        let locked = text(
            key.private_key_to_pem_pkcs8_passphrase(Cipher::aes_256_cbc(), b"secret")
                .unwrap(),
        );
        for (pem, passphrase) in [(&expected, ""), (&pkcs1, ""), (&locked, "secret")] {
            assert_eq!(to_pkcs8(pem, passphrase).unwrap(), expected);
        }
        assert!(to_pkcs8(&locked, "wrong").is_err());
        assert!(to_pkcs8("nonsense", "").is_err());
    }
}
