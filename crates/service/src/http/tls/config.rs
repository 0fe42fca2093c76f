//! Section `tls`: the certificate of all listeners of the process.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::config::{ConfigError, Settings};

/// Section `tls`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TlsConfig {
    /// The certificate with its intermediates, PEM. Without it listeners are plain HTTP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate: Option<PathBuf>,
    /// Its private key, PEM, not encrypted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<PathBuf>,
    /// The authorities whose client certificates are accepted, PEM. A client without a certificate needs an API key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_ca: Option<PathBuf>,
    /// Whether admin ports have TLS too. They ask for no client certificate.
    pub admin: bool,
    /// How often it is checked whether the files have changed, in seconds.
    pub reload_seconds: u64,
}

impl Default for TlsConfig {
    fn default() -> Self {
        Self {
            certificate: None,
            key: None,
            client_ca: None,
            admin: true,
            reload_seconds: 10,
        }
    }
}

impl TlsConfig {
    /// Reads and checks the section. The files are read by the listeners.
    ///
    /// # Errors
    /// Names the invalid setting.
    pub fn read(settings: &Settings) -> Result<Self, ConfigError> {
        let config: Self = settings.section("tls")?;
        config.validate()?;
        Ok(config)
    }

    fn validate(&self) -> Result<(), ConfigError> {
        let invalid = |setting: &str, reason: &str| {
            Err(ConfigError::invalid(format!("tls.{setting}"), reason))
        };
        if self.certificate.is_some() != self.key.is_some() {
            let missing = if self.key.is_none() {
                "key"
            } else {
                "certificate"
            };
            return invalid(missing, "tls.certificate and tls.key belong together");
        }
        if self.client_ca.is_some() && self.certificate.is_none() {
            return invalid("client_ca", "needs tls.certificate and tls.key");
        }
        if !(1..=86_400).contains(&self.reload_seconds) {
            return invalid("reload_seconds", "must lie between 1 and 86400");
        }
        Ok(())
    }

    /// The section as it applies to admin ports.
    #[must_use]
    pub fn of_admin(&self) -> Self {
        if self.admin {
            Self {
                client_ca: None,
                ..self.clone()
            }
        } else {
            Self::default()
        }
    }

    /// `https` or `http`: how listeners with this section are reached.
    #[must_use]
    pub const fn scheme(&self) -> &'static str {
        match self.certificate {
            Some(_) => "https",
            None => "http",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_do_not_belong_together_are_refused_by_name() {
        let refusal = |name: &str| {
            let variables = [(format!("TOLLGATE_TLS__{name}"), "/x".to_owned())];
            let settings = Settings::load(None, variables.into_iter()).unwrap();
            TlsConfig::read(&settings).unwrap_err().to_string()
        };
        assert!(refusal("CERTIFICATE").starts_with("tls.key: "));
        assert!(refusal("KEY").starts_with("tls.certificate: "));
        assert!(refusal("CLIENT_CA").starts_with("tls.client_ca: "));
    }

    #[test]
    fn an_admin_port_asks_for_no_client_certificate_and_may_be_plain() {
        let config = TlsConfig {
            certificate: Some("/c".into()),
            key: Some("/k".into()),
            client_ca: Some("/ca".into()),
            ..TlsConfig::default()
        };
        let admin = config.of_admin();
        assert_eq!((admin.scheme(), admin.client_ca), ("https", None));
        let plain = TlsConfig {
            admin: false,
            ..config
        };
        assert_eq!(plain.of_admin().scheme(), "http");
    }
}
