//! Hashes for the signatures of S3 requests, by the crates `sha2` and `hmac`, which are in use anyway.

use hmac::{Hmac, KeyInit as _, Mac as _};
use object_store::client::{
    CryptoProvider, DigestAlgorithm, DigestContext, HmacContext, Signer, SigningAlgorithm,
};
use object_store::{Error, Result};
use sha2::{Digest as _, Sha256};

/// The hashes of S3.
#[derive(Debug)]
pub(super) struct Signing;

impl CryptoProvider for Signing {
    fn digest(&self, algorithm: DigestAlgorithm) -> Result<Box<dyn DigestContext>> {
        match algorithm {
            DigestAlgorithm::Sha256 => Ok(Box::new(Context::<Sha256>::default())),
            other => unknown(&other),
        }
    }

    fn hmac(&self, algorithm: DigestAlgorithm, secret: &[u8]) -> Result<Box<dyn HmacContext>> {
        match algorithm {
            DigestAlgorithm::Sha256 => {
                let state = Hmac::<Sha256>::new_from_slice(secret).map_err(of)?;
                Ok(Box::new(Context {
                    state,
                    result: Vec::new(),
                }))
            }
            other => unknown(&other),
        }
    }

    fn sign(&self, algorithm: SigningAlgorithm, _pem: &[u8]) -> Result<Box<dyn Signer>> {
        // Used by Google, not by S3.
        unknown(&algorithm)
    }
}

/// The state of a hash, then its value.
#[derive(Default)]
struct Context<S> {
    state: S,
    result: Vec<u8>,
}

impl DigestContext for Context<Sha256> {
    fn update(&mut self, data: &[u8]) {
        self.state.update(data);
    }

    fn finish(&mut self) -> Result<&[u8]> {
        self.result = self.state.finalize_reset().to_vec();
        Ok(&self.result)
    }
}

impl HmacContext for Context<Hmac<Sha256>> {
    fn update(&mut self, data: &[u8]) {
        self.state.update(data);
    }

    fn finish(&mut self) -> Result<&[u8]> {
        self.result = self.state.clone().finalize().into_bytes().to_vec();
        Ok(&self.result)
    }
}

fn of(source: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::Generic {
        store: "S3",
        source: Box::new(source),
    }
}

fn unknown<T>(algorithm: &impl std::fmt::Debug) -> Result<T> {
    Err(of(std::io::Error::other(format!(
        "{algorithm:?} is not used by S3, and not supported"
    ))))
}
