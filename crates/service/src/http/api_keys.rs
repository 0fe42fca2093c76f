//! API keys: random texts that callers send, of which only the SHA-256 is kept.
//!
//! Keys are 256 random bits, so a plain hash cannot be reversed by guessing; comparison takes the same time whatever
//! is wrong. No configured key means that nobody is asked for one, which only a loopback address may do.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::http::{HeaderMap, header};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::config::ConfigError;

/// What a key allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Scope {
    /// Send transactions.
    #[serde(rename = "transactions:write")]
    TransactionsWrite,
    /// Read decisions, summaries and statistics.
    #[serde(rename = "decisions:read")]
    DecisionsRead,
}

impl Scope {
    /// As it is written in the settings.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::TransactionsWrite => "transactions:write",
            Self::DecisionsRead => "decisions:read",
        }
    }
}

/// One key in the settings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApiKeyConfig {
    /// Who it is, in logs and metrics.
    pub name: String,
    /// `sha256:` and 64 hexadecimal digits, as `tollgate key` prints it.
    pub hash: String,
    /// What it allows.
    pub scopes: Vec<Scope>,
}

/// Who calls.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Caller(pub Arc<str>);

/// The key in an `Authorization` header. The scheme's case does not matter: RFC 9110, section 11.1.
fn authorization(value: &[u8]) -> Option<Cow<'_, [u8]>> {
    let end = value.iter().position(|byte| *byte == b' ')?;
    let (scheme, rest) = (&value[..end], value[end..].trim_ascii());
    if scheme.eq_ignore_ascii_case(b"bearer") {
        return Some(Cow::Borrowed(rest));
    }
    if scheme.eq_ignore_ascii_case(b"basic") {
        let pair = STANDARD.decode(rest).ok()?;
        let colon = pair.iter().position(|byte| *byte == b':')?;
        return Some(Cow::Owned(pair[colon + 1..].to_vec()));
    }
    None
}

/// Why a caller is turned away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Denied {
    /// No key, or one that nobody has.
    Unknown,
    /// The key does not allow this.
    OutOfScope,
}

#[derive(Debug)]
struct Key {
    caller: Caller,
    hash: [u8; 32],
    scopes: Vec<Scope>,
}

/// The keys in force. Clones share them.
#[derive(Debug, Clone)]
pub struct ApiKeys(Arc<[Key]>);

impl ApiKeys {
    /// Reads the keys of a section, and checks that its address may do without any.
    ///
    /// # Errors
    /// Names the setting at fault.
    pub fn new(
        section: &str,
        configs: &[ApiKeyConfig],
        listen: SocketAddr,
    ) -> Result<Self, ConfigError> {
        if configs.is_empty() && !listen.ip().is_loopback() {
            return Err(ConfigError::invalid(
                format!("{section}.api_keys"),
                format!(
                    "must hold a key when {section}.listen is not a loopback address, here {listen}; `tollgate key NAME` makes one"
                ),
            ));
        }
        let keys = configs.iter().enumerate().map(|(index, config)| {
            let hash = config
                .hash
                .strip_prefix("sha256:")
                .and_then(parse_hex)
                .ok_or_else(|| {
                    ConfigError::invalid(
                        format!("{section}.api_keys[{index}].hash"),
                        "expected sha256: and 64 hexadecimal digits; `tollgate key NAME` makes one",
                    )
                })?;
            Ok(Key {
                caller: Caller(config.name.as_str().into()),
                hash,
                scopes: config.scopes.clone(),
            })
        });
        keys.collect::<Result<Vec<_>, _>>()
            .map(|keys| Self(keys.into()))
    }

    /// Who sends this request, by `Authorization: Bearer …`, `X-API-Key: …`, or as the password of `Authorization: Basic …`,
    /// which is all that a Notifications subscription can send.
    ///
    /// # Errors
    /// Where nobody known does, or one who may not.
    pub fn identify(&self, headers: &HeaderMap, scope: Scope) -> Result<Caller, Denied> {
        if self.0.is_empty() {
            return Ok(Caller("anonymous".into()));
        }
        let given = headers
            .get(header::AUTHORIZATION)
            .and_then(|value| authorization(value.as_bytes()))
            .or_else(|| {
                let value = headers.get("x-api-key")?;
                Some(Cow::Borrowed(value.as_bytes()))
            })
            .ok_or(Denied::Unknown)?;
        let hash: [u8; 32] = Sha256::digest(given.trim_ascii()).into();
        // Every key is compared, so that the time tells nothing.
        let found = self.0.iter().fold(None, |found, key| {
            if key.hash.ct_eq(&hash).into() {
                Some(key)
            } else {
                found
            }
        });
        let key = found.ok_or(Denied::Unknown)?;
        if key.scopes.contains(&scope) {
            Ok(key.caller.clone())
        } else {
            Err(Denied::OutOfScope)
        }
    }

    /// The hash of a key as it stands in the settings.
    #[must_use]
    pub fn hash_of(key: &str) -> String {
        Sha256::digest(key)
            .iter()
            .fold("sha256:".to_owned(), |text, byte| {
                text + &format!("{byte:02x}")
            })
    }
}

fn parse_hex(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    for (index, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * index..2 * index + 2)?, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(listen: &str, scopes: &[Scope]) -> Result<ApiKeys, ConfigError> {
        let configs = match scopes {
            [] => vec![],
            _ => vec![ApiKeyConfig {
                name: "shop".into(),
                hash: ApiKeys::hash_of("k1"),
                scopes: scopes.to_vec(),
            }],
        };
        ApiKeys::new("ingest", &configs, listen.parse().unwrap())
    }

    fn with(name: &'static str, value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(
            header::HeaderName::from_static(name),
            value.parse().unwrap(),
        )])
    }

    #[test]
    fn a_key_opens_what_its_scopes_say_and_nothing_else() {
        let keys = keys("0.0.0.0:1", &[Scope::DecisionsRead]).unwrap();
        for headers in [
            with("authorization", "Bearer k1"),
            with("authorization", "bearer k1"),
            with("x-api-key", "k1"),
            // me:k1
            with("authorization", "Basic bWU6azE="),
        ] {
            assert_eq!(
                keys.identify(&headers, Scope::DecisionsRead),
                Ok(Caller("shop".into()))
            );
            assert_eq!(
                keys.identify(&headers, Scope::TransactionsWrite),
                Err(Denied::OutOfScope)
            );
        }
        assert_eq!(
            keys.identify(&with("x-api-key", "k2"), Scope::DecisionsRead),
            Err(Denied::Unknown)
        );
        assert_eq!(
            keys.identify(&HeaderMap::new(), Scope::DecisionsRead),
            Err(Denied::Unknown)
        );
    }

    #[test]
    fn listening_to_the_world_without_keys_is_refused() {
        assert!(keys("127.0.0.1:1", &[]).is_ok());
        assert!(keys("[::1]:1", &[]).is_ok());
        let message = keys("0.0.0.0:8080", &[]).unwrap_err().to_string();
        assert!(message.starts_with("ingest.api_keys: "), "{message}");
    }
}
