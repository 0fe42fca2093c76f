//! Section `ingest` of the configuration.
//!
//! Invariant: a transaction that ingest accepts fits into a record of the log, and the scorer accepts it.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tollgate_log::KafkaConfig;
use tollgate_service::Secret;
use tollgate_service::card_data::CardDataSettings;
use tollgate_service::config::ConfigError;
use tollgate_service::http::{ApiKeyConfig, ApiKeys, HttpConfig, TlsConfig};
use tollgate_types::{
    CardDataMode, CardIds, CardPolicy, MAX_TRANSACTION_BYTES, Tenant, Timestamp, UserIdCase,
};

use crate::body::BodyPace;
use crate::imports::SourceConfig;
use crate::reject_limits::RejectLimits;

/// Section `ingest`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct IngestConfig {
    /// The address of the API. Port 0 selects any free port.
    pub listen: SocketAddr,
    /// The address of probes and metrics.
    pub admin_listen: SocketAddr,
    /// Bounds on connections.
    pub http: HttpConfig,
    /// Section `tls`, which all services of the process share.
    #[serde(skip)]
    pub tls: TlsConfig,
    /// The largest body of a request, in bytes; beyond it 413.
    pub max_body_bytes: usize,
    /// The most transactions of a request; beyond it 413.
    pub max_items: usize,
    /// The largest transaction, in bytes; a larger item is rejected.
    pub max_transaction_bytes: usize,
    /// Whether user ids that differ only in case are one user: `keep` (they are not) or `fold`.
    pub user_id_case: UserIdCase,
    /// How old a timestamp may be, in hours, where API keys are configured and the key lacks the scope
    /// `transactions:backfill`; 0 is no limit.
    pub max_age_hours: u32,
    /// Older timestamps are rejected, of whomever: they are mostly the zero time of a program.
    pub earliest_timestamp: Timestamp,
    /// The most requests in flight, including those that wait for decisions; beyond it 503.
    pub max_in_flight: usize,
    /// The most bytes of bodies in memory, over all requests; beyond it 503.
    pub max_in_flight_bytes: usize,
    /// With several API keys: the most that one may hold of what it holds and what is free, in percent, of the requests in
    /// flight and of the bytes in memory; beyond it 429.
    pub max_key_share_percent: u8,
    /// The slowest that a body may arrive, in bytes a second, after two seconds; beyond it 408. 0 is no limit.
    pub min_body_bytes_per_second: u32,
    /// How long a request's body may take to arrive, in milliseconds; beyond it 408.
    pub request_timeout_ms: u64,
    /// How long the log may take to acknowledge a request, in milliseconds; beyond it 503.
    pub acknowledge_timeout_ms: u64,
    /// The rate limit of each API key.
    pub rate_limit: RateLimitConfig,
    /// The rate limit of each tenant, over all of its keys.
    pub tenant_rate_limit: RateLimitConfig,
    /// Rate limits of single tenants, by name, instead of `tenant_rate_limit`.
    pub tenant_rate_limits: BTreeMap<String, RateLimitConfig>,
    /// The API keys. If there are none, requests need no key; this is allowed on loopback addresses only.
    pub api_keys: Vec<ApiKeyConfig>,
    /// A TOML file with more keys, in tables `[[api_keys]]`. It is read again when it changes.
    pub api_keys_file: Option<PathBuf>,
    /// How long a batch at `/v1/functions/streaming` waits for its decisions, in milliseconds, without `Prefer: wait`.
    pub functions_wait_ms: u64,
    /// Subscriptions are confirmed at these hosts and their subdomains only.
    pub confirmation_hosts: Vec<String>,
    /// The sources of objects to import. If there are none, no object is imported.
    pub sources: Vec<SourceConfig>,
    /// The number of objects of one source that are imported concurrently.
    pub parallel_imports: usize,
    /// How long an import waits for others of its folder, with which it is ordered by time, in milliseconds.
    pub import_pause_ms: u64,
    /// Imported rows a second; 0 is no limit.
    pub import_rows_per_second: u32,
    /// How much of a request may be rejected before all of it is.
    pub request_rejects: RejectLimits,
    /// How much of an object may be rejected before its import fails.
    pub import_rejects: RejectLimits,
    /// The most bytes of rejected rows, which become dead letters, before an import fails.
    pub import_max_rejected_bytes: u64,
    /// How many times larger than a compressed object its content may be, from 16 MiB on.
    pub import_max_inflation: u64,
    /// How large the content of a compressed object may be, in bytes.
    pub import_max_inflated_bytes: u64,
    /// The most dead letters of one import with the same reason; the rows beyond share one.
    pub import_equal_letters: u64,
    /// The memory in which the rows of one object are sorted, in bytes.
    pub import_sort_memory_bytes: usize,
    /// The directory in which the rows of a larger object are sorted. Default: that for temporary files.
    pub import_sort_directory: Option<PathBuf>,
    /// How much older than the newest transaction of its user a late one is, in hours: the lookback of the scorer with its
    /// allowed lateness.
    pub late_after_hours: u32,
    /// What is done with card numbers in transactions: `mask`, `tokenise`, `reject` or `allow`.
    pub card_data: CardDataMode,
    /// The key of the tokens of card numbers, at least 32 bytes. Without one there are no tokens.
    pub card_token_key: Secret,
    /// Whether a transaction whose `user_id` or `transaction_id` has a card number is refused: `reject` or `allow`.
    pub card_data_ids: CardIds,
    /// Names of members in which no card number is looked for.
    pub card_data_exempt: Vec<String>,
}

/// A rate limit: a token bucket of transactions for each API key or tenant.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RateLimitConfig {
    /// Transactions a second; 0 is no limit.
    pub transactions_per_second: u32,
    /// Transactions that may be sent at once after a pause; 0 is the number of one second.
    pub burst: u32,
}

impl Default for IngestConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 8080)),
            admin_listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 9101)),
            http: HttpConfig::default(),
            tls: TlsConfig::default(),
            max_body_bytes: 8 * 1024 * 1024,
            max_items: 10_000,
            max_transaction_bytes: MAX_TRANSACTION_BYTES,
            user_id_case: UserIdCase::Keep,
            max_age_hours: 72,
            earliest_timestamp: Timestamp::YEAR_2000,
            max_in_flight: 512,
            max_in_flight_bytes: 256 * 1024 * 1024,
            max_key_share_percent: 75,
            min_body_bytes_per_second: 1_024,
            request_timeout_ms: 10_000,
            acknowledge_timeout_ms: 5_000,
            rate_limit: RateLimitConfig::default(),
            tenant_rate_limit: RateLimitConfig::default(),
            tenant_rate_limits: BTreeMap::new(),
            api_keys: Vec::new(),
            api_keys_file: None,
            functions_wait_ms: 5_000,
            confirmation_hosts: vec!["oraclecloud.com".to_owned()],
            sources: Vec::new(),
            parallel_imports: 2,
            import_pause_ms: 500,
            import_rows_per_second: 0,
            request_rejects: RejectLimits::REQUEST,
            import_rejects: RejectLimits::IMPORT,
            import_max_rejected_bytes: 16 * 1024 * 1024,
            import_max_inflation: 100,
            import_max_inflated_bytes: 64 * 1024 * 1024 * 1024,
            import_equal_letters: 1_000,
            import_sort_memory_bytes: 64 * 1024 * 1024,
            import_sort_directory: None,
            late_after_hours: 169,
            card_data: CardDataMode::default(),
            card_token_key: Secret::default(),
            card_data_ids: CardIds::default(),
            card_data_exempt: Vec::new(),
        }
    }
}

impl IngestConfig {
    /// Validates the settings and their relations, and parses the API keys.
    ///
    /// # Errors
    /// Names the setting at fault.
    pub fn validate(&self, kafka: &KafkaConfig) -> Result<ApiKeys, ConfigError> {
        let positive = [
            ("max_body_bytes", self.max_body_bytes),
            ("max_items", self.max_items),
            ("max_transaction_bytes", self.max_transaction_bytes),
            ("max_in_flight", self.max_in_flight),
            ("parallel_imports", self.parallel_imports),
            ("import_sort_memory_bytes", self.import_sort_memory_bytes),
        ];
        if let Some((setting, _)) = positive.iter().find(|(_, value)| *value == 0) {
            return invalid(setting, "must be at least 1");
        }
        for (setting, ms) in [
            ("request_timeout_ms", self.request_timeout_ms),
            ("acknowledge_timeout_ms", self.acknowledge_timeout_ms),
        ] {
            if !(1..=600_000).contains(&ms) {
                return invalid(setting, "must lie between 1 and 600000");
            }
        }
        if !(1..=100).contains(&self.max_key_share_percent) {
            return invalid("max_key_share_percent", "must lie between 1 and 100");
        }
        for (setting, limits) in [
            ("request_rejects", self.request_rejects),
            ("import_rejects", self.import_rejects),
        ] {
            if !(1..=100).contains(&limits.percent) {
                return invalid(&format!("{setting}.percent"), "must lie between 1 and 100");
            }
        }
        if self.import_max_inflation == 0 || self.import_max_inflated_bytes == 0 {
            return invalid(
                "import_max_inflation",
                "and import_max_inflated_bytes must be at least 1",
            );
        }
        if let Some(directory) = &self.import_sort_directory
            && !directory.is_dir()
        {
            return invalid("import_sort_directory", "must be a directory");
        }
        if self.import_pause_ms > 600_000 {
            return invalid("import_pause_ms", "must be at most 600000");
        }
        if self.functions_wait_ms > 30_000 {
            return invalid("functions_wait_ms", "must be at most 30000");
        }
        self.http.validate("ingest")?;
        for (index, source) in self.sources.iter().enumerate() {
            source.open(&format!("ingest.sources[{index}]"))?;
        }
        if self.max_in_flight_bytes < self.max_body_bytes {
            return invalid("max_in_flight_bytes", "must be at least max_body_bytes");
        }
        self.validate_record_size(kafka)?;
        self.validate_rate_limits()?;
        self.card_policy()?;
        if self.listen.port() != 0 && self.listen == self.admin_listen {
            return invalid(
                "admin_listen",
                "must not be the same address as ingest.listen",
            );
        }
        let file = self.api_keys_file.as_deref();
        ApiKeys::new("ingest", &self.api_keys, file, self.listen, &[])
    }

    fn validate_rate_limits(&self) -> Result<(), ConfigError> {
        let mut limits = vec![
            ("rate_limit".to_owned(), self.rate_limit),
            ("tenant_rate_limit".to_owned(), self.tenant_rate_limit),
        ];
        for (name, limit) in &self.tenant_rate_limits {
            let setting = format!("tenant_rate_limits.{name}");
            if let Err(error) = Tenant::parse(name) {
                return invalid(&setting, &error.to_string());
            }
            limits.push((setting, *limit));
        }
        for (setting, limit) in limits {
            if limit.burst > 0 && limit.transactions_per_second == 0 {
                return invalid(
                    &format!("{setting}.burst"),
                    "has no effect while transactions_per_second is 0; set both or none",
                );
            }
        }
        Ok(())
    }

    /// An accepted transaction must fit into a record. Otherwise every attempt to send it would fail.
    fn validate_record_size(&self, kafka: &KafkaConfig) -> Result<(), ConfigError> {
        kafka
            .check_transaction_bytes("ingest.max_transaction_bytes", self.max_transaction_bytes)?;
        if self.max_transaction_bytes > self.max_body_bytes {
            return invalid("max_transaction_bytes", "must fit into max_body_bytes");
        }
        Ok(())
    }

    /// How card data in transactions is treated.
    ///
    /// # Errors
    /// Names the setting at fault.
    pub fn card_policy(&self) -> Result<CardPolicy, ConfigError> {
        let settings = CardDataSettings {
            section: "ingest",
            mode: self.card_data,
            key: &self.card_token_key,
            ids: self.card_data_ids,
            exempt: &self.card_data_exempt,
        };
        settings.policy()
    }

    pub(crate) const fn body_pace(&self) -> BodyPace {
        BodyPace {
            timeout: self.request_timeout(),
            min_bytes_per_second: self.min_body_bytes_per_second,
        }
    }

    /// A transaction that ingest accepts must not be larger than those that the scorer accepts.
    ///
    /// # Errors
    /// Names the setting at fault.
    pub fn validate_scored_size(&self, scored: usize) -> Result<(), ConfigError> {
        if self.max_transaction_bytes <= scored {
            return Ok(());
        }
        invalid(
            "max_transaction_bytes",
            &format!(
                "must be at most scorer.max_transaction_bytes, {scored}: larger transactions would be \
                 accepted, and dead-lettered by the scorer; set both"
            ),
        )
    }

    /// What ingest accepts, the scorer of the same process must accept.
    ///
    /// # Errors
    /// Names the setting at fault.
    pub fn validate_scored_since(&self, scored: Timestamp) -> Result<(), ConfigError> {
        if self.earliest_timestamp >= scored {
            return Ok(());
        }
        invalid(
            "earliest_timestamp",
            &format!(
                "must be at least scorer.earliest_timestamp, {scored}: older transactions would be accepted, and dead-lettered by the scorer"
            ),
        )
    }

    const fn request_timeout(&self) -> Duration {
        Duration::from_millis(self.request_timeout_ms)
    }

    pub(crate) const fn acknowledge_timeout(&self) -> Duration {
        Duration::from_millis(self.acknowledge_timeout_ms)
    }
}

fn invalid<T>(setting: &str, reason: &str) -> Result<T, ConfigError> {
    Err(ConfigError::invalid(format!("ingest.{setting}"), reason))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(change: impl FnOnce(&mut IngestConfig)) -> String {
        let mut config = IngestConfig::default();
        change(&mut config);
        config
            .validate(&KafkaConfig::default())
            .unwrap_err()
            .to_string()
    }

    fn key(name: &str) -> ApiKeyConfig {
        ApiKeyConfig {
            name: name.into(),
            hash: ApiKeys::hash_of("k"),
            ..ApiKeyConfig::default()
        }
    }

    #[test]
    fn the_defaults_are_valid() {
        assert!(
            IngestConfig::default()
                .validate(&KafkaConfig::default())
                .is_ok()
        );
    }

    #[test]
    fn an_invalid_setting_is_refused_with_its_name() {
        type Change = fn(&mut IngestConfig);
        let cases: [(&str, Change); 15] = [
            ("ingest.max_items", |c| c.max_items = 0),
            ("ingest.max_in_flight", |c| c.max_in_flight = 0),
            ("ingest.max_in_flight_bytes", |c| c.max_in_flight_bytes = 1),
            ("ingest.max_transaction_bytes", |c| {
                c.max_transaction_bytes = 1_000_000;
            }),
            ("ingest.max_transaction_bytes", |c| c.max_body_bytes = 1_000),
            ("ingest.max_key_share_percent", |c| {
                c.max_key_share_percent = 0;
            }),
            ("ingest.request_timeout_ms", |c| c.request_timeout_ms = 0),
            ("ingest.acknowledge_timeout_ms", |c| {
                c.acknowledge_timeout_ms = 0;
            }),
            ("ingest.rate_limit.burst", |c| c.rate_limit.burst = 5),
            ("ingest.tenant_rate_limit.burst", |c| {
                c.tenant_rate_limit.burst = 5;
            }),
            ("ingest.tenant_rate_limits.ACME", |c| {
                c.tenant_rate_limits
                    .insert("ACME".into(), RateLimitConfig::default());
            }),
            ("ingest.admin_listen", |c| c.admin_listen = c.listen),
            ("ingest.api_keys[0].name", |c| c.api_keys = vec![key("")]),
            ("ingest.api_keys_file", |c| {
                c.api_keys_file = Some("/nonexistent/keys.toml".into());
            }),
            ("ingest.api_keys", |c| {
                c.listen = SocketAddr::from(([0, 0, 0, 0], 8080));
            }),
        ];
        for (setting, change) in cases {
            let message = refusal(change);
            assert!(
                message.starts_with(&format!("{setting}: ")),
                "{setting}: {message}"
            );
        }
    }

    #[test]
    fn a_larger_transaction_is_allowed_if_the_log_takes_larger_records() {
        let mut kafka = KafkaConfig {
            brokers: "b:9092".to_owned(),
            ..KafkaConfig::default()
        };
        kafka
            .properties
            .insert("message.max.bytes".into(), "4000000".into());
        let mut config = IngestConfig {
            max_transaction_bytes: 2_000_000,
            ..IngestConfig::default()
        };
        assert!(config.validate(&kafka).is_ok());
        let message = config
            .validate_scored_size(256 * 1024)
            .unwrap_err()
            .to_string();
        assert!(
            message.contains("scorer.max_transaction_bytes, 262144"),
            "{message}"
        );
        assert!(config.validate_scored_size(2_000_000).is_ok());
        assert!(config.validate_scored_since(Timestamp::YEAR_2000).is_ok());
        config.earliest_timestamp = Timestamp::MIN;
        let refused = config.validate_scored_since(Timestamp::YEAR_2000);
        let message = refused.unwrap_err().to_string();
        assert!(message.contains("ingest.earliest_timestamp"), "{message}");
    }
}
