//! The file of keys: read at start, and again whenever it has changed.
//!
//! Invariant: a file that cannot be read, or holds an invalid or no key, changes nothing. The keys that were in force stay.

use std::path::Path;
use std::time::Duration;

use serde::Deserialize;
use tollgate_types::{JsonError, Timestamp};

use super::entry::{ApiKeyConfig, Key};
use super::{ApiKeys, Keys};
use crate::Shutdown;
use crate::config::toml_error;
use crate::files::read_regular;

/// How often the file is read. It is small, and compared by its content: Kubernetes replaces a mounted secret by a link.
const INTERVAL: Duration = Duration::from_secs(2);
/// The largest file that is read, in bytes.
const MAX_BYTES: u64 = 1024 * 1024;
/// A key that expires within this time is reported, in microseconds.
const EXPIRES_SOON: i64 = 7 * 24 * 3_600 * 1_000_000;

/// The content of the file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Content {
    #[serde(default)]
    api_keys: Vec<ApiKeyConfig>,
}

/// The text of the file.
pub(super) fn text(path: &Path) -> Result<String, String> {
    let bytes = read_regular(path, MAX_BYTES).map_err(|error| error.to_string())?;
    String::from_utf8(bytes).map_err(|_| "it is not UTF-8".to_owned())
}

/// The entries in the text: tables `[[api_keys]]` of TOML, or a JSON array, as the settings' environment variable has it.
pub(super) fn entries(text: &str) -> Result<Vec<ApiKeyConfig>, String> {
    // A TOML document that begins with one bracket before a brace or the end would be an invalid table.
    let json = text
        .trim_start()
        .strip_prefix('[')
        .is_some_and(|rest| !rest.starts_with('['));
    let content = if json {
        let read = serde_json::from_str(text).map(|api_keys| Content { api_keys });
        read.map_err(|error| JsonError::from(&error).to_string())?
    } else {
        toml::from_str(text).map_err(|error| toml_error(text, &error))?
    };
    if content.api_keys.is_empty() {
        return Err("holds no [[api_keys]]; to let nobody in, stop the service".to_owned());
    }
    Ok(content.api_keys)
}

impl ApiKeys {
    /// Reads the file again if there is one and its content has changed. The keys in force are replaced at once for all
    /// clones, or stay as they are.
    ///
    /// # Errors
    /// Why the new content cannot be used.
    pub fn reload(&self) -> Result<(), String> {
        let inner = &self.0;
        let Some(path) = &inner.file else {
            return Ok(());
        };
        let text = text(path)?;
        if self.current().text.as_deref() == Some(text.as_str()) {
            return Ok(());
        }
        let keys = inner
            .source
            .with(&text)
            .map_err(|error| error.to_string())?;
        let number = keys.len();
        self.replace(Keys {
            keys,
            text: Some(text),
        });
        metrics::counter!("tollgate_api_keys_reloads_total", "service" => inner.source.section)
            .increment(1);
        tracing::info!(path = %path.display(), number, "the API keys were read again");
        Ok(())
    }

    /// Reloads the file when it changes, and reports keys that expire, until the shutdown.
    pub async fn watch(self, shutdown: Shutdown) {
        let mut reported = None;
        loop {
            let keys = self.clone();
            let reloaded = tokio::task::spawn_blocking(move || keys.reload()).await;
            let failed = match reloaded {
                Ok(Ok(())) => None,
                Ok(Err(reason)) => Some(reason),
                Err(panic) => Some(panic.to_string()),
            };
            self.report(failed.is_some());
            if let Some(reason) = &failed
                && reported != failed
            {
                tracing::error!(%reason, "the file of API keys cannot be used; the keys that were in force stay");
            }
            reported = failed;
            tokio::select! {
                () = tokio::time::sleep(INTERVAL) => {}
                () = shutdown.begun() => return,
            }
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "a number of keys")]
    fn report(&self, broken: bool) {
        let service = self.0.source.section;
        let current = self.current();
        metrics::gauge!("tollgate_api_keys_file_broken", "service" => service)
            .set(u8::from(broken));
        metrics::gauge!("tollgate_api_keys", "service" => service).set(current.keys.len() as f64);
        metrics::gauge!("tollgate_api_keys_expiring", "service" => service)
            .set(expiring(&current.keys, crate::now()) as f64);
    }
}

/// How many callers have no key that is valid for 7 days more, and one that is valid now or expired within the last 7 days.
fn expiring(keys: &[Key], now: Timestamp) -> usize {
    let lasts = |key: &Key| key.expires.is_none_or(|at| at - now > EXPIRES_SOON);
    let counts = |key: &Key| key.expires.is_some_and(|at| now - at < EXPIRES_SOON);
    let mut names: Vec<&str> = keys
        .iter()
        .filter(|key| counts(key) && !lasts(key))
        .map(|key| key.caller.name())
        .filter(|name| {
            !keys
                .iter()
                .any(|key| key.caller.name() == *name && lasts(key))
        })
        .collect();
    names.sort_unstable();
    names.dedup();
    names.len()
}

#[cfg(test)]
mod tests {
    use super::super::Caller;
    use super::*;

    fn key(name: &str, expires: Option<&str>) -> Key {
        Key {
            caller: Caller::named(name),
            hash: Some([0; 32]),
            certificate: None,
            scopes: Vec::new(),
            expires: expires.map(|text| Timestamp::parse(text).unwrap()),
        }
    }

    #[test]
    fn a_caller_is_expiring_if_its_last_key_ends_within_seven_days() {
        let now = Timestamp::parse("2026-03-10T00:00:00Z").unwrap();
        let number = |keys: &[Key]| expiring(keys, now);
        assert_eq!(number(&[key("a", None)]), 0);
        assert_eq!(number(&[key("a", Some("2026-03-18T00:00:00Z"))]), 0);
        let soon = || key("a", Some("2026-03-16T00:00:00Z"));
        assert_eq!(number(&[soon(), key("b", None)]), 1);
        assert_eq!(number(&[soon(), soon()]), 1);
        // The new key of a rotation.
        assert_eq!(number(&[soon(), key("a", None)]), 0);
        // It has just expired, and an old one is forgotten.
        assert_eq!(number(&[key("a", Some("2026-03-09T00:00:00Z"))]), 1);
        assert_eq!(number(&[key("a", Some("2026-03-01T00:00:00Z"))]), 0);
    }
}
