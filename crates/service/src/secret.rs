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

/// A URL with its password hidden, for logs and `--print-config`.
#[must_use]
pub fn redacted_url(text: &str) -> String {
    let Ok(mut url) = url::Url::parse(text) else {
        // Without a valid URL it is unknown which part is the password.
        return if text.contains('@') {
            HIDDEN.to_owned()
        } else {
            text.to_owned()
        };
    };
    if url.password().is_none() && !text.contains("password=") {
        return text.to_owned();
    }
    if url.password().is_some() {
        // It fails only for URLs that cannot have a password.
        let _ = url.set_password(Some("hidden"));
    }
    let pairs: Vec<(String, String)> = url.query_pairs().into_owned().collect();
    if pairs.iter().any(|(name, _)| name == "password") {
        let shown = pairs.iter().map(|(name, value)| {
            (
                name,
                if name == "password" {
                    "hidden"
                } else {
                    value.as_str()
                },
            )
        });
        url.query_pairs_mut().clear().extend_pairs(shown);
    }
    url.to_string()
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
        ] {
            assert!(!redacted_url(url).contains("hunter2"), "{url}");
        }
        assert_eq!(redacted_url("sqlite://tollgate.db"), "sqlite://tollgate.db");
    }
}
