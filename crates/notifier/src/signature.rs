//! Signatures of webhooks, by the crate of Standard Webhooks (specification 1.0.0): HMAC-SHA256 over
//! `id.timestamp.body`, in base64, after the version `v1`.
//!
//! Invariant: a secret must have the form and the length that Standard Webhooks requires. The crate itself accepts any.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use standardwebhooks::{Webhook, WebhookError};
use tollgate_service::Secret;

/// The prefix of a secret, by which people and secret scanners recognise it.
const PREFIX: &str = "whsec_";
/// Lengths of a key that the specification allows, in bytes.
const LENGTHS: std::ops::RangeInclusive<usize> = 24..=64;

/// Signs with every secret in force: during a rotation there are two.
#[derive(Clone)]
pub(crate) struct Signer(Arc<[Webhook]>);

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Signer")
            .field("keys", &self.0.len())
            .finish()
    }
}

/// The key in a secret, for senders and receivers of webhooks; none if the secret is not of the specification's form.
#[must_use]
pub fn webhook_key(secret: &str) -> Option<Vec<u8>> {
    let key = STANDARD.decode(secret.strip_prefix(PREFIX)?).ok()?;
    LENGTHS.contains(&key.len()).then_some(key)
}

impl Signer {
    /// Reads secrets separated by spaces.
    ///
    /// # Errors
    /// The expected form of a secret, without the given one.
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
            Webhook::from_bytes(key).map_err(|_| expected())
        });
        let keys = keys.collect::<Result<Vec<_>, _>>()?;
        if keys.is_empty() {
            return Err(expected());
        }
        Ok(Self(keys.into()))
    }

    /// The value of `webhook-signature`. `timestamp` is that of the attempt, in seconds since 1970.
    ///
    /// # Errors
    /// None for a body that is UTF-8, which a `str` is.
    pub(crate) fn sign(
        &self,
        id: &str,
        timestamp: i64,
        body: &str,
    ) -> Result<String, WebhookError> {
        let signatures = self
            .0
            .iter()
            .map(|key| key.sign(id, timestamp, body.as_bytes()));
        Ok(signatures.collect::<Result<Vec<_>, _>>()?.join(" "))
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
        let signature = signer(SECRET)
            .sign(ID, 1_614_265_330, r#"{"test": 2432232314}"#)
            .unwrap();
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn a_receiver_with_the_secret_accepts_the_signature() {
        for body in ["", "{}", "{\"ä\":\"𝄞\"}", &"x".repeat(100_000)] {
            let now = chrono::Utc::now().timestamp();
            let signature = signer(&format!("{OTHER} {SECRET}"))
                .sign(ID, now, body)
                .unwrap();
            let headers = reqwest::header::HeaderMap::from_iter(
                [
                    (standardwebhooks::HEADER_WEBHOOK_ID, ID.to_owned()),
                    (standardwebhooks::HEADER_WEBHOOK_TIMESTAMP, now.to_string()),
                    (standardwebhooks::HEADER_WEBHOOK_SIGNATURE, signature),
                ]
                .map(|(name, value)| {
                    let name = reqwest::header::HeaderName::from_static(name);
                    (name, value.parse().unwrap())
                }),
            );
            let receiver = Webhook::new(SECRET).unwrap();
            receiver.verify(body.as_bytes(), &headers).unwrap();
        }
    }

    #[test]
    fn two_secrets_give_two_signatures_in_their_order() {
        let both = signer(&format!("{SECRET} {OTHER}"))
            .sign(ID, 7, "{}")
            .unwrap();
        let each = [SECRET, OTHER].map(|secret| signer(secret).sign(ID, 7, "{}").unwrap());
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
