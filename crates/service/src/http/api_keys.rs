//! API keys: random texts that callers send. The settings hold only their SHA-256.
//!
//! Keys are 256 random bits, so that a plain hash cannot be reversed by guessing. Invariant: the time of a comparison
//! does not depend on where it fails. Without configured keys every caller is let in, which only a loopback address may
//! do.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::Arc;

use axum::http::{HeaderMap, StatusCode, header};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::Problem;
use crate::config::ConfigError;

/// What a key allows, by name: `transactions:write`. The set is open: a service that needs another scope makes a
/// constant of it with [`Scope::new`] and passes it to [`ApiKeys::new`], so that its section accepts keys that have it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Scope(Cow<'static, str>);

impl Scope {
    /// Send transactions.
    pub const TRANSACTIONS_WRITE: Self = Self::new("transactions:write");
    /// Read decisions, summaries and statistics.
    pub const DECISIONS_READ: Self = Self::new("decisions:read");
    /// The scopes that any section may give to a key, so that several services can share a list of keys.
    pub const COMMON: [Self; 2] = [Self::TRANSACTIONS_WRITE, Self::DECISIONS_READ];

    /// A scope of this name.
    #[must_use]
    pub const fn new(name: &'static str) -> Self {
        Self(Cow::Borrowed(name))
    }

    /// The name, as in the settings.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0
    }
}

/// Reads a name of the form `transactions:write`, whether or not a service of this version has such a scope: two words
/// of lower-case letters, digits, `-` and `_`, separated by a colon.
impl FromStr for Scope {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let is_word = |word: &str| {
            let mut bytes = word.bytes();
            !word.is_empty()
                && bytes.all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_'))
        };
        match name.split_once(':') {
            Some((object, action)) if is_word(object) && is_word(action) => {
                Ok(Self(Cow::Owned(name.to_owned())))
            }
            _ => Err("expected a name such as transactions:write or decisions:read".to_owned()),
        }
    }
}

/// One key in the settings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApiKeyConfig {
    /// The caller, in logs and metrics.
    pub name: String,
    /// `sha256:` and 64 hexadecimal digits, as `tollgate key` prints it.
    pub hash: String,
    /// What the key allows.
    pub scopes: Vec<Scope>,
}

/// The owner of a key.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Caller(pub Arc<str>);

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
    /// Reads the keys of a section, and checks that its address may do without keys. A key may have the scopes of
    /// [`Scope::COMMON`] and those in `own_scopes`.
    ///
    /// # Errors
    /// Names the invalid setting.
    pub fn new(
        section: &str,
        configs: &[ApiKeyConfig],
        listen: SocketAddr,
        own_scopes: &[Scope],
    ) -> Result<Self, ConfigError> {
        if configs.is_empty() && !listen.ip().is_loopback() {
            return Err(ConfigError::invalid(
                format!("{section}.api_keys"),
                format!(
                    "must hold a key when {section}.listen is not a loopback address, here {listen}; `tollgate key NAME` makes one"
                ),
            ));
        }
        let common = Scope::COMMON;
        let known: Vec<&Scope> = common.iter().chain(own_scopes).collect();
        let keys = configs.iter().enumerate().map(|(index, config)| {
            let setting = format!("{section}.api_keys[{index}]");
            if let Some(scope) = config.scopes.iter().find(|scope| !known.contains(scope)) {
                let names: Vec<&str> = known.iter().map(|scope| scope.name()).collect();
                let (scope, names) = (scope.name(), names.join(", "));
                let reason = format!("unknown scope {scope:?}; known are {names}");
                return Err(ConfigError::invalid(format!("{setting}.scopes"), reason));
            }
            let hash = parse_hash(&config.hash).ok_or_else(|| {
                ConfigError::invalid(
                    format!("{setting}.hash"),
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

    /// The caller of a request with these headers, if its key has the scope. The key is sent as
    /// `Authorization: Bearer …`, as `X-API-Key: …`, or as the password of `Authorization: Basic …`, which is all that a
    /// subscription of Oracle's Notifications can send.
    ///
    /// # Errors
    /// 401 without a known key, 403 if the key lacks the scope.
    pub fn authorize(&self, headers: &HeaderMap, scope: &Scope) -> Result<Caller, Problem> {
        if self.0.is_empty() {
            return Ok(Caller("anonymous".into()));
        }
        let Some(key) = self.find(headers) else {
            return Err(Problem::new(
                StatusCode::UNAUTHORIZED,
                "send a known API key as `Authorization: Bearer …` or `X-API-Key: …`",
            ));
        };
        if key.scopes.contains(scope) {
            return Ok(key.caller.clone());
        }
        let detail = format!("this API key lacks the scope {}", scope.name());
        Err(Problem::new(StatusCode::FORBIDDEN, detail))
    }

    fn find(&self, headers: &HeaderMap) -> Option<&Key> {
        let given = headers
            .get(header::AUTHORIZATION)
            .and_then(|value| from_authorization(value.as_bytes()))
            .or_else(|| {
                let value = headers.get("x-api-key")?;
                Some(Cow::Borrowed(value.as_bytes()))
            })?;
        let hash: [u8; 32] = Sha256::digest(given.trim_ascii()).into();
        // Every key is compared, so that the time does not depend on which of them matches.
        self.0.iter().fold(None, |found, key| {
            if key.hash.ct_eq(&hash).into() {
                Some(key)
            } else {
                found
            }
        })
    }

    /// The hash of a key, as in the settings.
    #[must_use]
    pub fn hash_of(key: &str) -> String {
        format!("sha256:{}", HEXLOWER.encode(&Sha256::digest(key)))
    }
}

fn parse_hash(text: &str) -> Option<[u8; 32]> {
    let digits = text.strip_prefix("sha256:")?;
    let bytes = HEXLOWER_PERMISSIVE.decode(digits.as_bytes()).ok()?;
    bytes.try_into().ok()
}

/// The key in an `Authorization` header. The scheme is case-insensitive: RFC 9110, section 11.1.
fn from_authorization(value: &[u8]) -> Option<Cow<'_, [u8]>> {
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

#[cfg(test)]
mod tests {
    use super::*;

    const LABELS_WRITE: Scope = Scope::new("labels:write");

    fn keys(listen: &str, scopes: &[Scope]) -> Result<ApiKeys, ConfigError> {
        let configs = match scopes {
            [] => vec![],
            _ => vec![ApiKeyConfig {
                name: "shop".into(),
                hash: ApiKeys::hash_of("k1"),
                scopes: scopes.to_vec(),
            }],
        };
        ApiKeys::new("ingest", &configs, listen.parse().unwrap(), &[LABELS_WRITE])
    }

    fn with(name: &'static str, value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(
            header::HeaderName::from_static(name),
            value.parse().unwrap(),
        )])
    }

    fn status(keys: &ApiKeys, headers: &HeaderMap, scope: &Scope) -> u16 {
        keys.authorize(headers, scope)
            .map_or_else(|problem| problem.status().as_u16(), |_| 200)
    }

    #[test]
    fn a_key_allows_what_its_scopes_name_and_nothing_else() {
        let keys = keys("0.0.0.0:1", &[Scope::DECISIONS_READ]).unwrap();
        for headers in [
            with("authorization", "Bearer k1"),
            with("authorization", "bearer k1"),
            with("x-api-key", "k1"),
            // me:k1
            with("authorization", "Basic bWU6azE="),
        ] {
            let caller = keys.authorize(&headers, &Scope::DECISIONS_READ).unwrap();
            assert_eq!(caller, Caller("shop".into()));
            assert_eq!(status(&keys, &headers, &Scope::TRANSACTIONS_WRITE), 403);
        }
        for headers in [with("x-api-key", "k2"), HeaderMap::new()] {
            assert_eq!(status(&keys, &headers, &Scope::DECISIONS_READ), 401);
        }
    }

    #[test]
    fn a_service_adds_a_scope_by_naming_it_and_an_unknown_one_is_refused() {
        let added = keys("0.0.0.0:1", &[LABELS_WRITE]).unwrap();
        assert_eq!(status(&added, &with("x-api-key", "k1"), &LABELS_WRITE), 200);
        let refused = keys("0.0.0.0:1", &[Scope::new("label:write")]);
        let message = refused.unwrap_err().to_string();
        assert!(
            message.starts_with("ingest.api_keys[0].scopes: "),
            "{message}"
        );
        assert!(message.contains("transactions:write"), "{message}");
    }

    #[test]
    fn every_well_formed_name_is_a_scope() {
        for name in ["transactions:write", "decisions:read", "v2-x:read_all"] {
            assert_eq!(name.parse::<Scope>().unwrap().name(), name);
        }
        assert_eq!("labels:write".parse(), Ok(LABELS_WRITE));
        for name in ["", "write", ":", "a:", ":b", "a:b:c", "A:b", "a: b"] {
            assert!(name.parse::<Scope>().is_err(), "{name}");
        }
    }

    #[test]
    fn a_hash_is_read_as_it_is_printed() {
        let hash = ApiKeys::hash_of("k1");
        assert_eq!(hash.len(), 71);
        let expected: [u8; 32] = Sha256::digest("k1").into();
        assert_eq!(parse_hash(&hash), Some(expected));
        for text in ["", "sha256:", "sha256:00", &hash[1..], &format!("{hash}0")] {
            assert_eq!(parse_hash(text), None, "{text}");
        }
    }

    #[test]
    fn without_keys_only_a_loopback_address_is_accepted() {
        assert!(keys("127.0.0.1:1", &[]).is_ok());
        assert!(keys("[::1]:1", &[]).is_ok());
        let message = keys("0.0.0.0:8080", &[]).unwrap_err().to_string();
        assert!(message.starts_with("ingest.api_keys: "), "{message}");
    }
}
