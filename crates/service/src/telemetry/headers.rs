//! The headers of every export. Pure.

use std::collections::BTreeMap;

use axum::http::HeaderName;

use crate::Secret;
use crate::config::ConfigError;

/// `name=value,name=value`, values percent-encoded.
pub(super) fn pairs(name: &str, text: &str) -> Result<BTreeMap<String, Secret>, ConfigError> {
    text.split(',')
        .filter(|pair| !pair.trim().is_empty())
        .map(|pair| {
            let (header, value) = pair
                .split_once('=')
                .ok_or_else(|| ConfigError::invalid(name, "must be name=value,name=value"))?;
            let value = percent_encoding::percent_decode_str(value.trim())
                .decode_utf8_lossy()
                .into_owned();
            Ok((header.trim().to_owned(), Secret::new(value)))
        })
        .collect()
}

/// Checks the headers, and puts their names into lower case, as HTTP/2 requires.
pub(super) fn checked(
    setting: &str,
    headers: BTreeMap<String, Secret>,
) -> Result<BTreeMap<String, Secret>, ConfigError> {
    // Set by the exporter or the connection.
    const TAKEN: [&str; 8] = [
        "connection",
        "content-encoding",
        "content-length",
        "content-type",
        "host",
        "te",
        "transfer-encoding",
        "user-agent",
    ];
    let check = |(name, value): (String, Secret)| {
        let lower = name.to_lowercase();
        let wrong = |what: String| Err(ConfigError::invalid(setting, what));
        if HeaderName::from_bytes(lower.as_bytes()).is_err() {
            // A wrong separator makes the value a part of the name.
            return wrong(
                "has a header whose name is not valid; the form is name=value,name=value"
                    .to_owned(),
            );
        }
        if TAKEN.contains(&&*lower) {
            return wrong(format!("{name} must not be set: the exporter sets it"));
        }
        let printable = |byte| matches!(byte, b' '..=b'~');
        if !value.expose().bytes().all(printable) {
            return wrong(format!(
                "the value of {name} has a character that cannot be sent"
            ));
        }
        Ok((lower, value))
    };
    headers.into_iter().map(check).collect()
}
