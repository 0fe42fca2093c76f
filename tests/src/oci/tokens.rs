//! Session tokens: what pods and instances sign with in place of a user. A token carries the public key of whoever asked
//! for it, and is good for signatures by that key only, until it expires or is taken back.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock};

use anyhow::Context as _;
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use chrono::{DateTime, TimeDelta, Utc};
use openssl::hash::MessageDigest;
use openssl::pkey::{PKey, Private, Public};
use openssl::sign::Signer;
use serde_json::{Value, json};

use super::keys;
use super::store::lock;

/// How long an expired token is distinguished from an unknown one.
const REMEMBERED: TimeDelta = TimeDelta::hours(1);

#[derive(Debug)]
struct Issued {
    key: PKey<Public>,
    expires: DateTime<Utc>,
    revoked: bool,
}

/// The tokens issued so far, and the key they are signed with.
#[derive(Debug)]
pub(super) struct Tokens {
    signer: OnceLock<PKey<Private>>,
    lasts: TimeDelta,
    issued: Mutex<HashMap<String, Issued>>,
    count: AtomicUsize,
}

impl Tokens {
    pub(super) fn new(seconds: u64) -> anyhow::Result<Self> {
        let lasts = i64::try_from(seconds).ok().and_then(TimeDelta::try_seconds);
        Ok(Self {
            signer: OnceLock::new(),
            lasts: lasts.context("token_seconds is out of range")?,
            issued: Mutex::default(),
            count: AtomicUsize::new(0),
        })
    }

    /// A token for the holder of `key`: a JSON web token with `claims` and those that every token has.
    pub(super) fn issue(
        &self,
        key: PKey<Public>,
        claims: Value,
        now: DateTime<Utc>,
    ) -> anyhow::Result<String> {
        // Claims have whole seconds; rounded up, a token of one second lives for one at least.
        let issued_at = now.timestamp();
        let expires = issued_at + i64::from(now.timestamp_subsec_nanos() > 0);
        let expires = DateTime::from_timestamp_secs(expires).context("no such time")? + self.lasts;
        let claims = with(
            claims,
            [
                ("iss", json!("authService.oracle.com")),
                ("iat", json!(issued_at)),
                ("exp", json!(expires.timestamp())),
                ("jti", json!(keys::random_id())),
                // A string that holds JSON: the Java SDK reads it as one, to compare it with its session key.
                ("jwk", json!(jwk(&key)?.to_string())),
            ],
        )?;
        let token = self.sign(&claims)?;
        let mut issued = lock(&self.issued);
        issued.retain(|_, token| token.expires + REMEMBERED > now);
        let entry = Issued {
            key,
            expires,
            revoked: false,
        };
        issued.insert(token.clone(), entry);
        self.count.fetch_add(1, Ordering::Relaxed);
        Ok(token)
    }

    /// Made when it is first needed: most tests never do, and a key of RSA takes longer than the rest of the start.
    fn signer(&self) -> anyhow::Result<&PKey<Private>> {
        if let Some(signer) = self.signer.get() {
            return Ok(signer);
        }
        let new = keys::new_rsa()?;
        Ok(self.signer.get_or_init(|| new))
    }

    fn sign(&self, claims: &Value) -> anyhow::Result<String> {
        let header = json!({ "alg": "RS256", "typ": "JWT", "kid": "asw_stand_in" });
        let part = |value: &Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
        let content = format!("{}.{}", part(&header), part(claims));
        let mut signer = Signer::new(MessageDigest::sha256(), self.signer()?)?;
        let signature = signer.sign_oneshot_to_vec(content.as_bytes())?;
        Ok(format!(
            "{content}.{}",
            BASE64_URL_SAFE_NO_PAD.encode(signature)
        ))
    }

    /// The key that requests under this token are signed with.
    ///
    /// # Errors
    /// Why the token is not, or no longer, good.
    pub(super) fn key(&self, token: &str, now: DateTime<Utc>) -> Result<PKey<Public>, String> {
        let issued = lock(&self.issued);
        let found = issued
            .get(token)
            .ok_or("this session token was not issued here")?;
        if found.revoked {
            return Err("this session token is revoked".into());
        }
        if found.expires <= now {
            let since = (now - found.expires).num_seconds();
            return Err(format!("this session token expired {since} s ago"));
        }
        Ok(found.key.clone())
    }

    /// Takes back all that were issued so far.
    pub(super) fn revoke(&self) {
        for token in lock(&self.issued).values_mut() {
            token.revoked = true;
        }
    }

    pub(super) fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }
}

/// RFC 7517.
fn jwk(key: &PKey<Public>) -> anyhow::Result<Value> {
    let rsa = key.rsa()?;
    Ok(json!({
        "kty": "RSA",
        "alg": "RS256",
        "use": "sig",
        "kid": keys::fingerprint(&key.public_key_to_der()?, MessageDigest::md5())?,
        "n": BASE64_URL_SAFE_NO_PAD.encode(rsa.n().to_vec()),
        "e": BASE64_URL_SAFE_NO_PAD.encode(rsa.e().to_vec()),
    }))
}

fn with<const N: usize>(mut claims: Value, more: [(&str, Value); N]) -> anyhow::Result<Value> {
    let object = claims.as_object_mut().context("claims are an object")?;
    for (name, value) in more {
        object.insert(name.to_owned(), value);
    }
    Ok(claims)
}
