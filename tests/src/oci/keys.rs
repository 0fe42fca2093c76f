//! Keys, digests and random numbers.

use anyhow::Context as _;
use openssl::hash::{MessageDigest, hash};
use openssl::pkey::{Id, PKey, Private, Public};
use openssl::rsa::Rsa;

/// Oracle's API keys and the session keys of its SDKs have as many.
const RSA_BITS: u32 = 2048;

pub(super) fn new_rsa() -> anyhow::Result<PKey<Private>> {
    Ok(PKey::from_rsa(Rsa::generate(RSA_BITS)?)?)
}

/// An RSA key from a `SubjectPublicKeyInfo`.
///
/// # Errors
/// Where it is none, or of fewer bits than Oracle takes.
pub(super) fn rsa_from_der(der: &[u8]) -> anyhow::Result<PKey<Public>> {
    checked(PKey::public_key_from_der(der).context("not a SubjectPublicKeyInfo in DER")?)
}

/// An RSA key from the same as PEM.
///
/// # Errors
/// As [`rsa_from_der`].
pub(super) fn rsa_from_pem(pem: &str) -> anyhow::Result<PKey<Public>> {
    checked(PKey::public_key_from_pem(pem.as_bytes()).context("not a public key in PEM")?)
}

fn checked(key: PKey<Public>) -> anyhow::Result<PKey<Public>> {
    anyhow::ensure!(key.id() == Id::RSA, "not an RSA key");
    let bits = key.bits();
    anyhow::ensure!(bits >= RSA_BITS, "an RSA key of {bits} bits, too short");
    Ok(key)
}

/// Lower-case hexadecimal, colons between bytes.
pub(super) fn fingerprint(der: &[u8], digest: MessageDigest) -> anyhow::Result<String> {
    let bytes = hash(digest, der)?;
    let pairs: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(pairs.join(":"))
}

/// 32 hexadecimal digits.
pub(super) fn random_id() -> String {
    let mut bytes = [0; 16];
    // Fails where the machine has no randomness left, and then TLS does before.
    if openssl::rand::rand_bytes(&mut bytes).is_err() {
        return "0".repeat(32);
    }
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
