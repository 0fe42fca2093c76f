//! API keys: random texts that callers send. The settings hold only their SHA-256.
//!
//! Keys are 256 random bits, so that a plain hash cannot be reversed by guessing. Invariants: the time of a comparison
//! does not depend on where it fails; whose data a caller may write and read follows from its key, and from nothing else in
//! its request. Without configured keys every caller is let in, which only a loopback address may do.

mod caller;
mod entry;
mod file;
mod scope;

use std::borrow::Cow;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use axum::http::{HeaderMap, StatusCode, header};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use data_encoding::HEXLOWER;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::{ClientCertificate, Problem};
use crate::config::ConfigError;
pub use caller::Caller;
pub use entry::ApiKeyConfig;
use entry::Key;
pub use scope::Scope;

/// The keys in force. Clones share them.
#[derive(Debug, Clone)]
pub struct ApiKeys(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    source: Source,
    file: Option<PathBuf>,
    /// Whether callers need a key.
    required: bool,
    current: RwLock<Arc<Keys>>,
}

/// What the keys are read from, beside the file.
#[derive(Debug)]
struct Source {
    section: &'static str,
    configs: Vec<ApiKeyConfig>,
    own_scopes: Vec<Scope>,
}

/// The keys of one version of the file.
#[derive(Debug)]
struct Keys {
    keys: Vec<Key>,
    /// The text of the file.
    text: Option<String>,
}

impl Source {
    fn keys(&self, of_file: &[ApiKeyConfig]) -> Result<Vec<Key>, ConfigError> {
        let common = Scope::COMMON;
        let known: Vec<&Scope> = common.iter().chain(&self.own_scopes).collect();
        let setting = |name: &str| format!("{}.{name}", self.section);
        let mut keys = entry::read(&setting("api_keys"), &self.configs, &known)?;
        keys.extend(entry::read(&setting("api_keys_file"), of_file, &known)?);
        entry::check_together(&setting("api_keys"), &keys)?;
        Ok(keys)
    }

    /// The keys of the settings and of a file with this text.
    fn with(&self, text: &str) -> Result<Vec<Key>, ConfigError> {
        let invalid =
            |reason| ConfigError::invalid(format!("{}.api_keys_file", self.section), reason);
        self.keys(&file::entries(text).map_err(invalid)?)
    }
}

impl ApiKeys {
    /// Reads the keys of a section and of the file that it names, and checks that its address may do without keys. A key
    /// may have the scopes of [`Scope::COMMON`] and those in `own_scopes`. Changes of the file are noticed by
    /// [`ApiKeys::watch`].
    ///
    /// # Errors
    /// Names the invalid setting.
    pub fn new(
        section: &'static str,
        configs: &[ApiKeyConfig],
        file: Option<&Path>,
        listen: SocketAddr,
        own_scopes: &[Scope],
    ) -> Result<Self, ConfigError> {
        let required = !configs.is_empty() || file.is_some();
        if !required && !listen.ip().is_loopback() {
            return Err(ConfigError::invalid(
                format!("{section}.api_keys"),
                format!(
                    "must hold a key when {section}.listen is not a loopback address, here {listen}; `tollgate key NAME` makes one"
                ),
            ));
        }
        let source = Source {
            section,
            configs: configs.to_vec(),
            own_scopes: own_scopes.to_vec(),
        };
        let current = match file {
            None => Keys {
                keys: source.keys(&[])?,
                text: None,
            },
            Some(path) => {
                let text = file::text(path).map_err(|reason| {
                    let reason = format!("{}: {reason}", path.display());
                    ConfigError::invalid(format!("{section}.api_keys_file"), reason)
                })?;
                Keys {
                    keys: source.with(&text)?,
                    text: Some(text),
                }
            }
        };
        Ok(Self(Arc::new(Inner {
            source,
            file: file.map(Path::to_owned),
            required,
            current: RwLock::new(Arc::new(current)),
        })))
    }

    /// Whether callers need a key.
    #[must_use]
    pub fn are_required(&self) -> bool {
        self.0.required
    }

    /// The caller of a request with these headers, if its key has the scope. The key is sent as
    /// `Authorization: Bearer …`, as `X-API-Key: …`, or as the password of `Authorization: Basic …`, which is all that a
    /// subscription of Oracle's Notifications can send. Without a key, a client certificate may be the one of an entry that
    /// has no hash.
    ///
    /// # Errors
    /// 401 without a known key or with one that has expired, 403 if the key lacks the scope.
    pub fn authorize(
        &self,
        headers: &HeaderMap,
        certificate: Option<&ClientCertificate>,
        scope: &Scope,
    ) -> Result<Caller, Problem> {
        if !self.0.required {
            return Ok(Caller::anonymous());
        }
        let keys = self.current();
        let Some(key) = find(&keys.keys, headers, certificate) else {
            return Err(Problem::new(
                StatusCode::UNAUTHORIZED,
                "send a known API key as `Authorization: Bearer …` or `X-API-Key: …`",
            ));
        };
        if let Some(expired) = key.expires.filter(|_| key.has_expired(crate::now())) {
            let detail =
                format!("this API key expired at {expired}; send the key that replaced it");
            return Err(Problem::new(StatusCode::UNAUTHORIZED, detail));
        }
        if key.scopes.contains(scope) {
            return Ok(key.caller.clone());
        }
        let detail = format!("this API key lacks the scope {}", scope.name());
        Err(Problem::new(StatusCode::FORBIDDEN, detail))
    }

    /// Whose key a request has, whether or not it may be used at all. For records of what was refused.
    #[must_use]
    pub fn owner(
        &self,
        headers: &HeaderMap,
        certificate: Option<&ClientCertificate>,
    ) -> Option<Caller> {
        let keys = self.current();
        find(&keys.keys, headers, certificate).map(|key| key.caller.clone())
    }

    fn current(&self) -> Arc<Keys> {
        let current = self.0.current.read();
        Arc::clone(&current.unwrap_or_else(PoisonError::into_inner))
    }

    fn replace(&self, keys: Keys) {
        let mut current = self
            .0
            .current
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        *current = Arc::new(keys);
    }

    /// The hash of a key, as in the settings.
    #[must_use]
    pub fn hash_of(key: &str) -> String {
        format!("sha256:{}", HEXLOWER.encode(&Sha256::digest(key)))
    }
}

fn find<'k>(
    keys: &'k [Key],
    headers: &HeaderMap,
    certificate: Option<&ClientCertificate>,
) -> Option<&'k Key> {
    let given = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| from_authorization(value.as_bytes()))
        .or_else(|| {
            let value = headers.get("x-api-key")?;
            Some(Cow::Borrowed(value.as_bytes()))
        });
    let Some(given) = given else {
        let mut by_certificate = keys.iter().filter(|key| key.hash.is_none());
        return by_certificate.find(|key| key.accepts(certificate));
    };
    let hash: [u8; 32] = Sha256::digest(given.trim_ascii()).into();
    // Every key is compared, so that the time does not depend on which of them matches.
    let found = keys.iter().fold(None, |found, key| match key.hash {
        Some(own) if own.ct_eq(&hash).into() => Some(key),
        _ => found,
    });
    // A key that is bound to a certificate is worth nothing without it.
    found.filter(|key| key.accepts(certificate))
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
mod tests;
