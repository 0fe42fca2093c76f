//! Section `kafka.authentication`.

use serde::{Deserialize, Serialize};
use tollgate_service::Secret;
use tollgate_service::config::ConfigError;

/// Whether services authenticate what they write to each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AuthenticationMode {
    /// Records are signed, and a record that should be and is not is dead-lettered.
    #[default]
    Required,
    /// Records are signed and checked, but what fails is only counted: for the time in which keys are introduced.
    Sign,
    /// Whoever can write to a topic is believed.
    Off,
}

/// Section `kafka.authentication`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AuthenticationConfig {
    /// What is signed and checked.
    pub mode: AuthenticationMode,
    /// The keys of the installation, the same for all of its services. The first signs, all of them are accepted.
    pub keys: Vec<MacKey>,
}

/// A key and the name by which records refer to it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MacKey {
    /// Names the key in the header `tollgate-mac`: up to 32 letters, digits, `-` and `_`.
    pub id: String,
    /// Random text of at least 32 bytes.
    pub secret: Secret,
}

/// SHA-256 has no use for more, and less could be guessed.
const MIN_SECRET_BYTES: usize = 32;
/// So that a header stays short.
const MAX_ID_BYTES: usize = 32;

impl AuthenticationConfig {
    /// Required, with one key.
    #[must_use]
    pub fn with_key(id: &str, secret: &str) -> Self {
        Self {
            mode: AuthenticationMode::Required,
            keys: vec![MacKey {
                id: id.to_owned(),
                secret: Secret::new(secret),
            }],
        }
    }

    /// Checks the keys.
    ///
    /// # Errors
    /// Names the setting at fault, without a secret.
    pub fn validate(&self) -> Result<(), ConfigError> {
        for (index, key) in self.keys.iter().enumerate() {
            let invalid = |member: &str, reason: &str| {
                let setting = format!("kafka.authentication.keys[{index}].{member}");
                Err(ConfigError::invalid(setting, reason))
            };
            let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
            if !(1..=MAX_ID_BYTES).contains(&key.id.len()) || !key.id.bytes().all(is_plain) {
                return invalid("id", "must be 1 to 32 letters, digits, - and _");
            }
            if self.keys[..index].iter().any(|other| other.id == key.id) {
                return invalid("id", "is the id of another key too");
            }
            if key.secret.expose().len() < MIN_SECRET_BYTES {
                return invalid(
                    "secret",
                    "must be at least 32 bytes of random text; `openssl rand -base64 32` makes one",
                );
            }
        }
        Ok(())
    }

    /// For a service on a log that other processes can reach.
    ///
    /// # Errors
    /// Where there is no key, although the mode needs one.
    pub(crate) fn require_keys(&self) -> Result<(), ConfigError> {
        if self.mode == AuthenticationMode::Off || !self.keys.is_empty() {
            return Ok(());
        }
        Err(ConfigError::invalid(
            "kafka.authentication.keys",
            "must be set: services sign what they write to each other, so that nobody else who reaches the log can write \
             decisions, alerts or replies. Give all services the same [{\"id\": \"…\", \"secret\": \"…\"}], with a secret of \
             `openssl rand -base64 32`; or, where nobody else can write to the log, set kafka.authentication.mode = \"off\"",
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_is_short_or_has_no_name_of_its_own_is_refused_without_showing_it() {
        let key = |id: &str, secret: &str| MacKey {
            id: id.to_owned(),
            secret: Secret::new(secret),
        };
        let long = "0123456789abcdef0123456789abcdef";
        for (keys, setting) in [
            (vec![key("", long)], "kafka.authentication.keys[0].id"),
            (vec![key("a:b", long)], "kafka.authentication.keys[0].id"),
            (
                vec![key("a", long), key("a", long)],
                "kafka.authentication.keys[1].id",
            ),
            (
                vec![key("a", long), key("b", "hunter2")],
                "kafka.authentication.keys[1].secret",
            ),
        ] {
            let config = AuthenticationConfig {
                keys,
                ..AuthenticationConfig::default()
            };
            let error = config.validate().unwrap_err().to_string();
            assert!(error.starts_with(&format!("{setting}: ")), "{error}");
            assert!(!error.contains("hunter2"), "{error}");
            let printed = toml::to_string(&config).unwrap();
            assert!(!printed.contains(long) && !printed.contains("hunter2"));
        }
    }
}
