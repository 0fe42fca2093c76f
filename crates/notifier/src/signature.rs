//! Signatures over webhooks as Standard Webhooks has them (github.com/standard-webhooks, specification 1.0.0):
//! HMAC-SHA256 over `id.timestamp.body`, base64, with the version `v1` before it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use tollgate_service::Secret;

/// Before a secret, so that people and scanners know what it is.
const PREFIX: &str = "whsec_";
/// Lengths that the specification allows, in bytes.
const LENGTHS: std::ops::RangeInclusive<usize> = 24..=64;

/// Signs with every secret in force: while one is being changed there are two.
#[derive(Clone)]
pub(crate) struct Signer(Vec<Hmac<Sha256>>);

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Signer")
            .field("keys", &self.0.len())
            .finish()
    }
}

/// The key of one secret, as senders and receivers of webhooks have it; none where it is not of the specification's form.
#[must_use]
pub fn webhook_key(secret: &str) -> Option<Vec<u8>> {
    let key = STANDARD.decode(secret.strip_prefix(PREFIX)?).ok()?;
    LENGTHS.contains(&key.len()).then_some(key)
}

impl Signer {
    /// Reads secrets separated by spaces.
    ///
    /// # Errors
    /// What a secret must look like; never what this one does.
    pub(crate) fn new(secrets: &Secret) -> Result<Self, String> {
        let expected = || {
            format!(
                "expected {PREFIX} and the base64 of {} to {} random bytes, several separated by a space; \
                 `echo {PREFIX}$(openssl rand -base64 32)` makes one",
                LENGTHS.start(),
                LENGTHS.end()
            )
        };
        let keys = secrets.expose().split_whitespace().map(|secret| {
            let key = webhook_key(secret).ok_or_else(expected)?;
            Hmac::new_from_slice(&key).map_err(|_| expected())
        });
        let keys = keys.collect::<Result<Vec<_>, _>>()?;
        if keys.is_empty() {
            return Err(expected());
        }
        Ok(Self(keys))
    }

    /// The value of `webhook-signature`. `timestamp` is that of the attempt, in seconds since 1970.
    pub(crate) fn sign(&self, id: &str, timestamp: i64, body: &[u8]) -> String {
        let signatures = self.0.iter().map(|key| {
            let mut mac = key.clone();
            mac.update(format!("{id}.{timestamp}.").as_bytes());
            mac.update(body);
            format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
        });
        signatures.collect::<Vec<_>>().join(" ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const OTHER: &str = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
    const ID: &str = "msg_p5jXN8AQM9LWM0D4loKWxJek";

    fn signer(secrets: &str) -> Signer {
        Signer::new(&Secret::new(secrets)).unwrap()
    }

    /// The vector that the specification's own libraries are tested with.
    #[test]
    fn the_published_vector_is_signed_as_published() {
        let signature = signer(SECRET).sign(ID, 1_614_265_330, br#"{"test": 2432232314}"#);
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn the_reference_library_signs_the_same() {
        for body in ["", "{}", "{\"ä\":\"𝄞\"}", &"x".repeat(100_000)] {
            let reference = standardwebhooks::Webhook::new(SECRET).unwrap();
            assert_eq!(
                signer(SECRET).sign(ID, 1_700_000_000, body.as_bytes()),
                reference.sign(ID, 1_700_000_000, body.as_bytes()).unwrap()
            );
        }
    }

    #[test]
    fn two_secrets_give_two_signatures_in_their_order() {
        let both = signer(&format!("{SECRET} {OTHER}")).sign(ID, 7, b"{}");
        let each = [SECRET, OTHER].map(|secret| signer(secret).sign(ID, 7, b"{}"));
        assert_eq!(both, each.join(" "));
    }

    #[test]
    fn a_secret_of_another_form_is_refused_without_being_shown() {
        for secret in [
            "",
            " ",
            "hunter2",
            "whsec_",
            "whsec_%%%",
            "whsec_aHVudGVyMg==",
        ] {
            let message = Signer::new(&Secret::new(secret)).unwrap_err();
            assert!(message.contains("whsec_"), "{message}");
            assert!(
                !message.contains("hunter2") && !message.contains("aHVudGVyMg"),
                "{message}"
            );
        }
    }
}
