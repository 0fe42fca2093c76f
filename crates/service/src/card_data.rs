//! Settings for card data, which ingest and the scorer have in sections of their own.

use tollgate_types::{CardDataFound, CardDataMode, CardIds, CardPolicy, TokenKey};

use crate::Secret;
use crate::config::ConfigError;

/// The settings of a section.
#[derive(Debug, Clone, Copy)]
pub struct CardDataSettings<'a> {
    /// The section: `ingest`.
    pub section: &'a str,
    /// Setting `card_data`.
    pub mode: CardDataMode,
    /// Setting `card_token_key`.
    pub key: &'a Secret,
    /// Setting `card_data_ids`.
    pub ids: CardIds,
    /// Setting `card_data_exempt`.
    pub exempt: &'a [String],
}

impl CardDataSettings<'_> {
    /// The policy of these settings.
    ///
    /// # Errors
    /// Names the setting at fault.
    pub fn policy(self) -> Result<CardPolicy, ConfigError> {
        let invalid = |setting: &str, reason: &str| {
            ConfigError::invalid(format!("{}.{setting}", self.section), reason)
        };
        let key = match self.key.expose() {
            "" => None,
            text => Some(TokenKey::new(text.as_bytes()).ok_or_else(|| {
                let reason =
                    "must be at least 32 bytes long, such as what `openssl rand -base64 32` prints";
                invalid("card_token_key", reason)
            })?),
        };
        if self.mode == CardDataMode::Tokenise && key.is_none() {
            let reason =
                "`tokenise` needs card_token_key: without it a card could not be recognised";
            return Err(invalid("card_data", reason));
        }
        if self.exempt.iter().any(String::is_empty) {
            return Err(invalid("card_data_exempt", "must name members"));
        }
        Ok(CardPolicy::new(self.mode, key)
            .with_ids(self.ids)
            .with_exempt(self.exempt.iter().map(String::as_str)))
    }
}

/// Counts what was found by a stage.
pub fn count_card_data(stage: &'static str, found: CardDataFound) {
    if found.is_empty() {
        return;
    }
    for (kind, count) in found.by_kind() {
        if count > 0 {
            metrics::counter!("tollgate_card_data_found_total", "stage" => stage, "kind" => kind)
                .increment(count.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(mode: CardDataMode, key: &str, exempt: &[String]) -> String {
        let settings = CardDataSettings {
            section: "ingest",
            mode,
            key: &Secret::new(key),
            ids: CardIds::Reject,
            exempt,
        };
        settings.policy().unwrap_err().to_string()
    }

    #[test]
    fn a_setting_that_cannot_be_used_is_refused_with_its_name_and_without_the_key() {
        let short = refused(CardDataMode::Mask, "hunter2", &[]);
        assert!(short.starts_with("ingest.card_token_key: "), "{short}");
        assert!(!short.contains("hunter2"));
        assert!(refused(CardDataMode::Tokenise, "", &[]).starts_with("ingest.card_data: "));
        let exempt = [String::new()];
        assert!(refused(CardDataMode::Mask, "", &exempt).starts_with("ingest.card_data_exempt: "));
    }
}
