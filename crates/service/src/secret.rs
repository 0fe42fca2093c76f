//! A value that never reaches a log, an error or `--print-config`.

use std::fmt;

use serde::{Deserialize, Serialize, Serializer};

/// A secret text. `Debug` and `Serialize` show whether there is one, and not its value.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

const HIDDEN: &str = "(hidden)";

impl Secret {
    /// Wraps a text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself, for the one place that needs it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether nothing was given.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "\"\"" } else { HIDDEN })
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(if self.0.is_empty() { "" } else { HIDDEN })
    }
}

/// Schemes of the URLs in settings. What looks like another one may be a secret with a colon in it.
const SCHEMES: [&str; 8] = [
    "file",
    "http",
    "https",
    "memory",
    "postgres",
    "postgresql",
    "s3",
    "sqlite",
];

/// Parameters of a query that are shown: no secret is in them.
const SHOWN_PARAMETERS: [&str; 10] = [
    "application_name",
    "cache",
    "dbname",
    "host",
    "immutable",
    "mode",
    "port",
    "sslmode",
    "sslrootcert",
    "user",
];

/// The values of `sslmode`.
const SSL_MODES: [&str; 6] = [
    "disable",
    "allow",
    "prefer",
    "require",
    "verify-ca",
    "verify-full",
];

/// A URL for logs, errors and `--print-config`, with its password hidden, and with the parameters of its query and its
/// fragment, unless they are known to be no secrets. A text that is no URL is hidden as a whole: nobody knows what is in it.
#[must_use]
pub fn redacted_url(text: &str) -> String {
    if text.is_empty() {
        return String::new();
    }
    let known = |url: &url::Url| SCHEMES.contains(&url.scheme());
    let Some(mut url) = url::Url::parse(text).ok().filter(known) else {
        return HIDDEN.to_owned();
    };
    // A mode that does not exist may be a secret at the wrong place.
    let is_shown = |name: &str, value: &str| {
        SHOWN_PARAMETERS.contains(&name) && (name != "sslmode" || SSL_MODES.contains(&value))
    };
    let has_hidden = url
        .query_pairs()
        .any(|(name, value)| !is_shown(&name, &value));
    if url.password().is_none() && url.fragment().is_none() && !has_hidden {
        return text.to_owned();
    }
    if url.password().is_some() {
        // It fails only for URLs that cannot have a password.
        let _ = url.set_password(Some("hidden"));
    }
    url.set_fragment(None);
    let pairs: Vec<(String, String)> = url.query_pairs().into_owned().collect();
    if has_hidden {
        // A query without names is one name, and may be the secret itself.
        let shown = pairs.iter().filter(|(name, value)| is_shown(name, value));
        url.query_pairs_mut()
            .clear()
            .extend_pairs(shown)
            .append_key_only("hidden");
    }
    url.to_string()
}

/// A URL whose path may be a secret too, as that of many webhooks is: only scheme, host and port are shown.
#[must_use]
pub fn redacted_path(text: &str) -> String {
    match url::Url::parse(text) {
        Ok(url) if !SCHEMES.contains(&url.scheme()) => HIDDEN.to_owned(),
        Ok(url) if url.path() == "/" && url.query().is_none() => url.origin().ascii_serialization(),
        Ok(url) if url.has_host() => format!("{}/{HIDDEN}", url.origin().ascii_serialization()),
        Ok(_) | Err(_) => HIDDEN.to_owned(),
    }
}

/// As [`redacted_url`], for the printing of a setting.
///
/// # Errors
/// Those of the serializer.
pub fn serialize_redacted<S: Serializer>(url: &str, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&redacted_url(url))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_shows_in_no_output() {
        let secret = Secret::new("hunter2");
        assert!(!format!("{secret:?}").contains("hunter2"));
        assert!(!serde_json::to_string(&secret).unwrap().contains("hunter2"));
        for url in [
            "postgres://me:hunter2@db/x",
            "postgres://me:hunter2@db:port/x",
            "postgres://db/x?user=me&password=hunter2",
            "postgres://db/x?hunter2",
            "postgres://db/x?sslmode=require&sslkeypass=hunter2#hunter2",
            "https://otlp.example.com/?api-key=hunter2",
            "me:hunter2@db",
            "hunter2: hunter2",
            "hunter2",
        ] {
            assert!(!redacted_url(url).contains("hunter2"), "{url}");
            assert!(!redacted_path(url).contains("hunter2"), "{url}");
        }
        let path = "https://hooks.example.com/services/T0/hunter2";
        assert_eq!(redacted_path(path), "https://hooks.example.com/(hidden)");
        let shown = "postgres://db/x?user=me&sslmode=verify-full";
        assert_eq!(redacted_url(shown), shown);
        assert_eq!(redacted_url("sqlite://tollgate.db"), "sqlite://tollgate.db");
    }
}
