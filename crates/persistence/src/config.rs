//! Section `persistence` of the configuration.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize, Serializer};
use tollgate_log::KafkaConfig;
use tollgate_service::config::{ConfigError, Settings};
use tollgate_service::database_tls::require_verified;
use tollgate_service::http::{ApiKeyConfig, HttpConfig, TlsConfig};
use tollgate_service::resilience::{BreakerConfig, DependencyConfig, RetryConfig};
use tollgate_service::secret::redacted_url;
use tollgate_service::telemetry::TelemetryConfig;
use tollgate_types::UserIdCase;

use crate::audit::AuditConfig;

/// Section `persistence`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PersistenceConfig {
    /// The read API.
    pub listen: SocketAddr,
    /// Probes and metrics.
    pub admin_listen: SocketAddr,
    /// Bounds on connections to the read API.
    pub http: HttpConfig,
    /// Section `tls`, which all services of the process share.
    #[serde(skip)]
    pub tls: TlsConfig,
    /// `postgres://…` or `sqlite://…`
    pub database_url: DatabaseUrl,
    /// Whether a PostgreSQL beyond loopback may be used without `sslmode=verify-full`.
    pub allow_unverified_database: bool,
    /// Connections of the read API. The writer has two of its own.
    pub connections: u32,
    /// Most decisions written in one database transaction.
    pub batch_max: usize,
    /// Most bytes of records written in one database transaction. A larger record is written alone.
    pub batch_max_bytes: usize,
    /// Timeout of one database transaction of the writer, in milliseconds.
    pub write_timeout_ms: u64,
    /// When a failed database transaction is retried.
    pub retry: RetryConfig,
    /// When the circuit of the store opens.
    pub breaker: BreakerConfig,
    /// Whether user ids that are asked for are folded, as ingest does with `ingest.user_id_case`.
    pub user_id_case: UserIdCase,
    /// Timeout of one request to the read API, in milliseconds.
    pub query_timeout_ms: u64,
    /// Decisions on a page without `limit`.
    pub page_default: u32,
    /// Most decisions on a page.
    pub page_max: u32,
    /// Most bytes of decisions on a page. A page has at least one decision.
    pub page_max_bytes: usize,
    /// Requests in flight, and answers that are not read yet, of all callers together.
    pub requests_max: usize,
    /// Of these, those of one API key.
    pub requests_per_key: usize,
    /// How long a caller may take nothing of an answer, in milliseconds.
    pub unread_timeout_ms: u64,
    /// Decisions older than this, by event time, are deleted. Unset: they are kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retention_days: Option<u32>,
    /// Decisions are kept until their whole month, in UTC, is older than the retention. PostgreSQL then drops each month at
    /// once, and no row is deleted by itself.
    pub retention_whole_months: bool,
    /// Keys of the read API. Without keys every caller may read, which only a loopback address allows.
    pub api_keys: Vec<ApiKeyConfig>,
    /// A TOML file with more keys, in tables `[[api_keys]]`. It is read again when it changes.
    pub api_keys_file: Option<PathBuf>,
    /// The audit of reads of personal data.
    pub audit: AuditConfig,
}

impl Default for PersistenceConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8082)),
            admin_listen: SocketAddr::from(([127, 0, 0, 1], 9103)),
            http: HttpConfig::default(),
            tls: TlsConfig::default(),
            database_url: DatabaseUrl::from("sqlite://tollgate.db"),
            allow_unverified_database: false,
            connections: 8,
            batch_max: 1_000,
            batch_max_bytes: 8 * 1024 * 1024,
            write_timeout_ms: 30_000,
            retry: RetryConfig::default(),
            breaker: BreakerConfig::default(),
            user_id_case: UserIdCase::Keep,
            query_timeout_ms: 5_000,
            page_default: 50,
            page_max: 1_000,
            page_max_bytes: 2 * 1024 * 1024,
            requests_max: 64,
            requests_per_key: 32,
            unread_timeout_ms: 10_000,
            retention_days: None,
            retention_whole_months: false,
            api_keys: Vec::new(),
            api_keys_file: None,
            audit: AuditConfig::default(),
        }
    }
}

/// What persistence must know of section `ingest`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct OfIngest {
    user_id_case: UserIdCase,
}

impl PersistenceConfig {
    /// Reads the section. Where it has no `user_id_case`, that of ingest counts, if the settings are those of both.
    ///
    /// # Errors
    /// Names the setting that is unknown or invalid.
    pub fn read(settings: &Settings) -> Result<Self, ConfigError> {
        let mut config: Self = settings.section("persistence")?;
        if !settings.is_set("persistence.user_id_case") {
            config.user_id_case = settings.section::<OfIngest>("ingest")?.user_id_case;
        }
        Ok(config)
    }

    /// Checks the ranges, and settings that depend on each other.
    ///
    /// # Errors
    /// Names the invalid setting.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let invalid = |setting: &str, reason: &str| {
            Err(ConfigError::invalid(
                format!("persistence.{setting}"),
                reason,
            ))
        };
        let at_least_one = [
            ("connections", u64::from(self.connections)),
            ("batch_max", self.batch_max as u64),
            ("batch_max_bytes", self.batch_max_bytes as u64),
            ("write_timeout_ms", self.write_timeout_ms),
            ("query_timeout_ms", self.query_timeout_ms),
            ("page_default", u64::from(self.page_default)),
            ("page_max_bytes", self.page_max_bytes as u64),
            ("requests_per_key", self.requests_per_key as u64),
            ("unread_timeout_ms", self.unread_timeout_ms),
        ];
        if let Some((setting, _)) = at_least_one.iter().find(|(_, value)| *value == 0) {
            return invalid(setting, "must be at least 1");
        }
        self.http.validate("persistence")?;
        require_verified(
            "persistence",
            "database_url",
            self.database_url.expose(),
            self.allow_unverified_database,
        )?;
        self.retry.validate("persistence.retry")?;
        self.breaker.validate("persistence.breaker")?;
        if self.page_default > self.page_max {
            return invalid("page_default", "must be at most persistence.page_max");
        }
        if self.requests_per_key > self.requests_max {
            return invalid(
                "requests_per_key",
                "must be at most persistence.requests_max",
            );
        }
        if self
            .retention_days
            .is_some_and(|days| !(1..=36_500).contains(&days))
        {
            return invalid("retention_days", "must lie between 1 and 36500");
        }
        let retention = self.audit.retention_days;
        if retention.is_some_and(|days| !(1..=36_500).contains(&days)) {
            return invalid("audit.retention_days", "must lie between 1 and 36500");
        }
        let url = self.database_url.expose();
        if url.starts_with("sqlite:") && (url.contains(":memory:") || url.contains("mode=memory")) {
            return invalid(
                "database_url",
                "must name a file, such as sqlite://tollgate.db: each connection would have a database of its own",
            );
        }
        Ok(())
    }

    /// How the writer calls the store.
    pub(crate) fn writes(&self) -> DependencyConfig {
        DependencyConfig {
            timeout: Duration::from_millis(self.write_timeout_ms),
            concurrency: 1,
            retry: self.retry.clone(),
            // The store refuses a row at once. Other failures are not caused by the rows.
            poison_after: None,
            breaker: self.breaker.clone(),
        }
    }

    /// How the read API calls it.
    pub(crate) fn reads(&self) -> DependencyConfig {
        DependencyConfig {
            timeout: self.query_timeout(),
            // More would only wait for a connection.
            concurrency: usize::try_from(self.connections).unwrap_or(usize::MAX),
            ..self.writes()
        }
    }

    pub(crate) const fn query_timeout(&self) -> Duration {
        Duration::from_millis(self.query_timeout_ms)
    }
}

/// The URL of the store. Its password is in no output.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct DatabaseUrl(String);

impl DatabaseUrl {
    /// The complete URL, for the connection.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl<T: Into<String>> From<T> for DatabaseUrl {
    fn from(url: T) -> Self {
        Self(url.into())
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&redacted_url(&self.0), f)
    }
}

impl Serialize for DatabaseUrl {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&redacted_url(&self.0))
    }
}

/// The settings of the process of the service.
#[derive(Debug, Clone, Serialize)]
pub struct ProcessConfig {
    /// Section `kafka`.
    pub kafka: KafkaConfig,
    /// Section `persistence`.
    pub persistence: PersistenceConfig,
    /// Section `telemetry`.
    pub telemetry: TelemetryConfig,
    /// Section `tls`.
    pub tls: TlsConfig,
}

impl ProcessConfig {
    /// Reads the sections.
    ///
    /// # Errors
    /// Names the setting at fault.
    pub fn read(settings: &Settings) -> anyhow::Result<Self> {
        let tls = TlsConfig::read(settings)?;
        let config = Self {
            kafka: settings.section("kafka")?,
            persistence: PersistenceConfig {
                tls: tls.clone(),
                ..PersistenceConfig::read(settings)?
            },
            telemetry: settings.section("telemetry")?,
            tls,
        };
        config.kafka.validate_for_service()?;
        config.persistence.validate()?;
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> anyhow::Result<ProcessConfig> {
        let variables = variables
            .iter()
            .map(|(name, text)| ((*name).to_owned(), (*text).to_owned()));
        ProcessConfig::read(&Settings::load(None, variables)?)
    }

    #[test]
    fn printed_settings_hold_no_password() {
        let config = read(&[(
            "TOLLGATE_PERSISTENCE__DATABASE_URL",
            "postgres://me:hunter2@127.0.0.1:5432/x",
        )])
        .unwrap();
        assert_eq!(
            config.persistence.database_url.expose(),
            "postgres://me:hunter2@127.0.0.1:5432/x"
        );
        assert!(!serde_json::to_string(&config).unwrap().contains("hunter2"));
        assert!(!format!("{config:?}").contains("hunter2"));
    }

    #[test]
    fn user_ids_are_folded_as_ingest_does_unless_persistence_has_a_setting_of_its_own() {
        let case = |variables: &[(&str, &str)]| read(variables).unwrap().persistence.user_id_case;
        let (of_ingest, own) = (
            ("TOLLGATE_INGEST__USER_ID_CASE", "fold"),
            ("TOLLGATE_PERSISTENCE__USER_ID_CASE", "keep"),
        );
        assert_eq!(case(&[]), UserIdCase::Keep);
        assert_eq!(case(&[of_ingest]), UserIdCase::Fold);
        assert_eq!(case(&[of_ingest, own]), UserIdCase::Keep);
    }

    #[test]
    fn settings_that_cannot_work_are_refused_by_name() {
        for (variable, text, setting) in [
            (
                "TOLLGATE_PERSISTENCE__DATABASE_URL",
                "sqlite::memory:",
                "persistence.database_url",
            ),
            (
                "TOLLGATE_PERSISTENCE__DATABASE_URL",
                "postgres://me@db:5432/x",
                "persistence.database_url",
            ),
            (
                "TOLLGATE_PERSISTENCE__BATCH_MAX",
                "0",
                "persistence.batch_max",
            ),
            (
                "TOLLGATE_PERSISTENCE__PAGE_MAX",
                "10",
                "persistence.page_default",
            ),
            (
                "TOLLGATE_PERSISTENCE__REQUESTS_MAX",
                "10",
                "persistence.requests_per_key",
            ),
            (
                "TOLLGATE_PERSISTENCE__AUDIT__RETENTION_DAYS",
                "0",
                "persistence.audit.retention_days",
            ),
            (
                "TOLLGATE_PERSISTENCE__BATCH_MAXI",
                "1",
                "TOLLGATE_PERSISTENCE__BATCH_MAXI",
            ),
        ] {
            let message = read(&[(variable, text)]).unwrap_err().to_string();
            assert!(message.starts_with(&format!("{setting}: ")), "{message}");
        }
    }
}
