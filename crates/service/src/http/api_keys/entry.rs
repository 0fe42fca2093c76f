//! Keys as the settings and the file of keys describe them.

use std::collections::HashMap;

use data_encoding::HEXLOWER_PERMISSIVE;
use serde::{Deserialize, Serialize};
use tollgate_types::Timestamp;

use super::caller::{Caller, owner};
use super::scope::Scope;
use crate::config::ConfigError;
use crate::http::ClientCertificate;
use crate::http::tls::is_certificate_name;

/// One key. During a rotation, the old and the new key are two entries of the same name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApiKeyConfig {
    /// The caller, in logs and metrics.
    pub name: String,
    /// `sha256:` and 64 hexadecimal digits, as `tollgate key` prints it. Not needed with a `certificate`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub hash: String,
    /// The name in a client certificate: `CN=…`, `DNS:…`, `URI:…` or `EMAIL:…`. With a `hash`, both are needed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<String>,
    /// What the key allows.
    pub scopes: Vec<Scope>,
    /// The tenant whose transactions the key sends and reads: the default tenant unless given; `*` reads all tenants.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// From this time on, RFC 3339, the key is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<String>,
}

/// A key in force.
#[derive(Debug)]
pub(super) struct Key {
    pub(super) caller: Caller,
    /// Without it the certificate is enough.
    pub(super) hash: Option<[u8; 32]>,
    pub(super) certificate: Option<String>,
    pub(super) scopes: Vec<Scope>,
    pub(super) expires: Option<Timestamp>,
}

impl Key {
    /// Whether the caller's certificate is the one of this key, if it needs one.
    pub(super) fn accepts(&self, certificate: Option<&ClientCertificate>) -> bool {
        self.certificate
            .as_deref()
            .is_none_or(|name| certificate.is_some_and(|own| own.has(name)))
    }

    pub(super) fn has_expired(&self, now: Timestamp) -> bool {
        self.expires.is_some_and(|expires| expires <= now)
    }
}

/// Reads the entries of a list of keys; `setting` names the list in errors. A key may have the scopes in `known`.
pub(super) fn read(
    setting: &str,
    entries: &[ApiKeyConfig],
    known: &[&Scope],
) -> Result<Vec<Key>, ConfigError> {
    let each = entries.iter().enumerate();
    each.map(|(index, entry)| key(&format!("{setting}[{index}]"), entry, known))
        .collect()
}

fn key(setting: &str, entry: &ApiKeyConfig, known: &[&Scope]) -> Result<Key, ConfigError> {
    let invalid =
        |member: &str, reason: String| ConfigError::invalid(format!("{setting}.{member}"), reason);
    if entry.name.is_empty() {
        return Err(invalid("name", "must not be empty".to_owned()));
    }
    if let Some(scope) = entry.scopes.iter().find(|scope| !known.contains(scope)) {
        let names: Vec<&str> = known.iter().map(|scope| scope.name()).collect();
        let (scope, names) = (scope.name(), names.join(", "));
        let reason = format!("unknown scope {scope:?}; known are {names}");
        return Err(invalid("scopes", reason));
    }
    if let Some(name) = &entry.certificate
        && !is_certificate_name(name)
    {
        let expected = "expected CN=…, DNS:…, URI:… or EMAIL:…, as in the certificate".to_owned();
        return Err(invalid("certificate", expected));
    }
    let hash = match entry.hash.as_str() {
        "" if entry.certificate.is_some() => None,
        text => Some(parse_hash(text).ok_or_else(|| {
            let expected =
                "expected sha256: and 64 hexadecimal digits; `tollgate key NAME` makes one"
                    .to_owned();
            invalid("hash", expected)
        })?),
    };
    let caller = owner(&entry.name, entry.tenant.as_deref())
        .map_err(|error| invalid("tenant", error.to_string()))?;
    let writes = |scope: &Scope| !scope.name().ends_with(":read");
    if caller.reads_only().is_none()
        && let Some(scope) = entry.scopes.iter().find(|scope| writes(scope))
    {
        let reason = format!(
            "a key of all tenants may only read, and has the scope {}",
            scope.name()
        );
        return Err(invalid("tenant", reason));
    }
    let expires = entry.expires.as_deref().map(Timestamp::parse).transpose();
    Ok(Key {
        caller,
        hash,
        certificate: entry.certificate.clone(),
        scopes: entry.scopes.clone(),
        expires: expires.map_err(|error| invalid("expires", error.to_string()))?,
    })
}

/// Checks what entries of one name have in common, over all lists.
pub(super) fn check_together(setting: &str, keys: &[Key]) -> Result<(), ConfigError> {
    let mut callers: HashMap<&str, &Key> = HashMap::new();
    for (index, key) in keys.iter().enumerate() {
        let is_same = |other: &Key| match key.hash {
            Some(_) => other.hash == key.hash,
            None => other.hash.is_none() && other.certificate == key.certificate,
        };
        if keys[..index].iter().any(is_same) {
            let reason = format!(
                "two entries have the hash, or without one the certificate, of a key of {:?}",
                key.caller.name()
            );
            return Err(ConfigError::invalid(setting, reason));
        }
        let first = callers.entry(key.caller.name()).or_insert(key);
        if first.caller != key.caller {
            let reason = format!(
                "the keys of {:?} have different tenants; the keys of a rotation belong to one",
                key.caller.name()
            );
            return Err(ConfigError::invalid(setting, reason));
        }
    }
    Ok(())
}

pub(super) fn parse_hash(text: &str) -> Option<[u8; 32]> {
    let digits = text.strip_prefix("sha256:")?;
    let bytes = HEXLOWER_PERMISSIVE.decode(digits.as_bytes()).ok()?;
    bytes.try_into().ok()
}
