//! Section `oci` of the configuration.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tollgate_service::Secret;
use tollgate_service::config::ConfigError;
use tollgate_service::http::is_loopback;
use url::Url;

/// The principal of the calls.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Auth {
    /// A profile of the configuration file of the OCI tools.
    #[default]
    ConfigFile,
    /// The API key of a user, in these settings.
    ApiKey,
    /// Version 2.2, from the environment of functions and containers.
    ResourcePrincipal,
    /// A pod's service account in an enhanced OKE cluster.
    WorkloadIdentity,
    /// The machine.
    InstancePrincipal,
}

/// Section `oci`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OciConfig {
    /// The principal of the calls.
    pub auth: Auth,
    /// Such as `eu-frankfurt-1`. Unset: that of the credentials.
    pub region: String,
    /// Second level of the realm's host names.
    pub domain: String,
    /// For `config-file`: the file; `~/` is the home directory.
    pub config_file: String,
    /// For `config-file`: the profile in it.
    pub profile: String,
    /// For `api-key`: OCID of the tenancy.
    pub tenancy: String,
    /// For `api-key`: OCID of the user.
    pub user: String,
    /// For `api-key`: of the public key, as the console shows it.
    pub fingerprint: String,
    /// For `api-key`: the private key, PEM.
    pub private_key: Secret,
    /// For `api-key`: a file with it instead, read again when the key is not accepted any more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub private_key_file: Option<PathBuf>,
    /// For `api-key`: of the private key, where it has one.
    pub passphrase: Secret,
    /// Where Notifications is, if not `https://notification.REGION.DOMAIN`.
    pub notifications_endpoint: String,
    /// The endpoint of Monitoring for metrics, if not `https://telemetry-ingestion.REGION.DOMAIN`.
    pub monitoring_endpoint: String,
    /// For `workload-identity`: where tokens are, if not port 12250 of the cluster's API server.
    pub workload_identity_endpoint: String,
    /// For `instance-principal`: where tokens are, if not `https://auth.REGION.DOMAIN`.
    pub federation_endpoint: String,
    /// For `instance-principal`: the machine's metadata.
    pub metadata_endpoint: String,
    /// How long one request may take, in milliseconds.
    pub timeout_ms: u64,
    /// Custom metrics.
    pub monitoring: MonitoringConfig,
}

/// Section `oci.monitoring`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MonitoringConfig {
    /// OCID of the compartment that gets the metrics. Unset: none are sent.
    pub compartment: String,
    /// Their namespace.
    pub namespace: String,
    /// Their resource group, such as `production`, if any.
    pub resource_group: String,
    /// Time between two posts, in seconds.
    pub interval_seconds: u64,
    /// Most calls a second by this process; the tenancy has 50, all processes together.
    pub calls_per_second: u32,
}

impl Default for OciConfig {
    fn default() -> Self {
        Self {
            auth: Auth::default(),
            region: String::new(),
            domain: "oraclecloud.com".to_owned(),
            config_file: "~/.oci/config".to_owned(),
            profile: "DEFAULT".to_owned(),
            tenancy: String::new(),
            user: String::new(),
            fingerprint: String::new(),
            private_key: Secret::default(),
            private_key_file: None,
            passphrase: Secret::default(),
            notifications_endpoint: String::new(),
            monitoring_endpoint: String::new(),
            workload_identity_endpoint: String::new(),
            federation_endpoint: String::new(),
            metadata_endpoint: "http://169.254.169.254".to_owned(),
            timeout_ms: 10_000,
            monitoring: MonitoringConfig::default(),
        }
    }
}

impl Default for MonitoringConfig {
    fn default() -> Self {
        Self {
            compartment: String::new(),
            namespace: "fraud_detection".to_owned(),
            resource_group: String::new(),
            interval_seconds: 60,
            calls_per_second: 5,
        }
    }
}

impl OciConfig {
    /// Checks everything that can be checked without a call.
    ///
    /// # Errors
    /// Names the setting at fault.
    pub fn validate(&self) -> Result<(), ConfigError> {
        for (setting, url) in [
            ("notifications_endpoint", &self.notifications_endpoint),
            ("monitoring_endpoint", &self.monitoring_endpoint),
            (
                "workload_identity_endpoint",
                &self.workload_identity_endpoint,
            ),
            ("federation_endpoint", &self.federation_endpoint),
        ] {
            if !url.is_empty() {
                check_endpoint(setting, url)?;
            }
        }
        if self.auth == Auth::ApiKey {
            for (setting, missing) in [
                ("tenancy", self.tenancy.is_empty()),
                ("user", self.user.is_empty()),
                ("fingerprint", self.fingerprint.is_empty()),
                (
                    "private_key",
                    self.private_key.is_empty() && self.private_key_file.is_none(),
                ),
                ("region", self.region.is_empty()),
            ] {
                if missing {
                    return invalid(setting, "must be set where oci.auth is api-key");
                }
            }
        }
        if !(1..=60_000).contains(&self.timeout_ms) {
            return invalid("timeout_ms", "must lie between 1 and 60000");
        }
        self.monitoring.validate()
    }

    pub(crate) const fn timeout(&self) -> Duration {
        Duration::from_millis(self.timeout_ms)
    }
}

impl MonitoringConfig {
    /// Whether metrics are sent.
    pub(crate) fn is_on(&self) -> bool {
        !self.compartment.is_empty()
    }

    /// <https://docs.oracle.com/iaas/api/#/en/monitoring/20180401/datatypes/MetricDataDetails>
    fn validate(&self) -> Result<(), ConfigError> {
        let plain = |text: &str, further: &str| {
            text.starts_with(|c: char| c.is_ascii_alphabetic())
                && text
                    .chars()
                    .all(|c| c.is_ascii_alphanumeric() || further.contains(c))
        };
        let namespace = &self.namespace;
        let reserved = namespace.starts_with("oci_") || namespace.starts_with("oracle_");
        if !plain(namespace, "_") || namespace.len() > 256 || reserved {
            return invalid(
                "monitoring.namespace",
                "must begin with a letter, hold letters, digits and _, and not begin with oci_ or oracle_",
            );
        }
        if !self.resource_group.is_empty() && !plain(&self.resource_group, "._-$") {
            return invalid(
                "monitoring.resource_group",
                "must begin with a letter and hold letters, digits and . _ - $",
            );
        }
        if !(1..=3_600).contains(&self.interval_seconds) {
            return invalid("monitoring.interval_seconds", "must lie between 1 and 3600");
        }
        if !(1..=50).contains(&self.calls_per_second) {
            return invalid("monitoring.calls_per_second", "must lie between 1 and 50");
        }
        Ok(())
    }
}

/// What is signed goes to Oracle over TLS, or to this machine.
fn check_endpoint(setting: &str, text: &str) -> Result<(), ConfigError> {
    let url = Url::parse(text).ok();
    let loopback = url.as_ref().is_some_and(is_loopback);
    let secure = url.is_some_and(|url| url.scheme() == "https" && url.host().is_some());
    if text.ends_with('/') || !(secure || loopback && text.starts_with("http://")) {
        return invalid(
            setting,
            "must be an https URL without a slash at its end; plain http will do on a loopback host",
        );
    }
    Ok(())
}

fn invalid(setting: &str, reason: &str) -> Result<(), ConfigError> {
    Err(ConfigError::invalid(format!("oci.{setting}"), reason))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_that_cannot_work_is_refused_by_its_name() {
        type Change = fn(&mut OciConfig);
        let cases: [(&str, Change); 7] = [
            ("oci.notifications_endpoint", |c| {
                c.notifications_endpoint = "http://notification.example.com".into();
            }),
            ("oci.monitoring_endpoint", |c| {
                c.monitoring_endpoint = "https://host/".into();
            }),
            ("oci.tenancy", |c| c.auth = Auth::ApiKey),
            ("oci.timeout_ms", |c| c.timeout_ms = 0),
            ("oci.monitoring.namespace", |c| {
                c.monitoring.namespace = "oci_mine".into();
            }),
            ("oci.monitoring.interval_seconds", |c| {
                c.monitoring.interval_seconds = 0;
            }),
            ("oci.monitoring.calls_per_second", |c| {
                c.monitoring.calls_per_second = 51;
            }),
        ];
        for (setting, change) in cases {
            let mut config = OciConfig::default();
            assert!(config.validate().is_ok());
            change(&mut config);
            let message = config.validate().unwrap_err().to_string();
            assert!(message.starts_with(&format!("{setting}: ")), "{message}");
        }
    }

    #[test]
    fn printed_settings_hold_no_key() {
        let config = OciConfig {
            private_key: Secret::new("hunter2"),
            passphrase: Secret::new("hunter2"),
            ..OciConfig::default()
        };
        assert!(!toml::to_string(&config).unwrap().contains("hunter2"));
    }
}
