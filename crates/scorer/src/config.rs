//! Section `scorer` of the configuration.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};
use tollgate_log::{KafkaConfig, StartingPosition};
use tollgate_service::card_data::CardDataSettings;
use tollgate_service::config::{ConfigError, Settings};
use tollgate_service::http::TlsConfig;
use tollgate_service::objects::{self, StoreSettings};
use tollgate_service::secret::Secret;
use tollgate_service::telemetry::TelemetryConfig;
use tollgate_types::{CardDataMode, CardIds, CardPolicy, Timestamp};

use tollgate_engine::Rules;
use tollgate_types::MAX_TRANSACTION_BYTES;

/// How records are consumed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// One record at a time in a partition: the next one starts when the last one's decision is acknowledged.
    Ordered,
    /// Partitions in parallel, and the users of one partition too; order is kept per user.
    #[default]
    Parallel,
    /// A batch at a time in each worker: the next one starts when the last one's decisions are acknowledged.
    Batch,
}

/// Section `scorer`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ScorerConfig {
    /// Probes and metrics.
    pub admin_listen: SocketAddr,
    /// Section `tls`, which all services of the process share.
    #[serde(skip)]
    pub tls: TlsConfig,
    /// How records are consumed.
    pub mode: Mode,
    /// Workers that score in parallel.
    pub parallelism: usize,
    /// Where a consumer group that has never committed begins.
    pub starting_position: StartingPosition,
    /// When a batch is complete, in the mode `batch`.
    pub batch: BatchConfig,
    /// Largest transaction; a larger one is dead-lettered.
    pub max_transaction_bytes: usize,
    /// How far a transaction's timestamp may be ahead of its record's own, in hours.
    pub max_ahead_hours: u32,
    /// A transaction with an older timestamp is dead-lettered: it is mostly the zero time of a program.
    pub earliest_timestamp: Timestamp,
    /// Most records in flight.
    pub max_in_flight_records: usize,
    /// Most bytes in flight.
    pub max_in_flight_bytes: usize,
    /// Time between commits, in milliseconds.
    pub commit_interval_ms: u64,
    /// Where snapshots of histories are stored, so that a start need not read 11 days of the log: `file:///…`,
    /// `s3://bucket/prefix` or `memory://`. Empty: nowhere.
    pub snapshots: String,
    /// Further options of that store, as the crate `object_store` names them, such as `aws_endpoint`.
    pub snapshot_options: BTreeMap<String, Secret>,
    /// The secret from which the key of the snapshots' authentication is derived. Empty: from `hash.key` in the store alone,
    /// which does not protect from somebody who can read and write the store.
    pub snapshot_key: Secret,
    /// Most bytes of histories in a snapshot, uncompressed; a larger one is not used.
    pub snapshot_max_bytes: u64,
    /// Longest time between two snapshots of a partition that has new records, in seconds.
    pub snapshot_interval_seconds: u64,
    /// Most records between two snapshots of a partition.
    pub snapshot_records: u32,
    /// What is done with card numbers in records that did not come through ingest: `mask`, `tokenise`, `reject` or `allow`.
    pub card_data: CardDataMode,
    /// The key of the tokens of card numbers: that of ingest, so that a card has one token.
    pub card_token_key: Secret,
    /// Whether a transaction whose `user_id` or `transaction_id` has a card number is dead-lettered: `reject` or `allow`.
    pub card_data_ids: CardIds,
    /// Names of members in which no card number is looked for.
    pub card_data_exempt: Vec<String>,
    /// Windows, thresholds, caps and weights.
    pub rules: Rules,
}

/// Section `scorer.batch`: a batch ends at whichever limit is reached first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BatchConfig {
    /// Records.
    pub max_messages: usize,
    /// Bytes.
    pub max_bytes: usize,
    /// Milliseconds since the first record.
    pub max_wait_ms: u64,
}

impl Default for BatchConfig {
    fn default() -> Self {
        Self {
            max_messages: 10,
            max_bytes: 64 * 1024,
            max_wait_ms: 5_000,
        }
    }
}

impl Default for ScorerConfig {
    fn default() -> Self {
        Self {
            admin_listen: SocketAddr::from(([127, 0, 0, 1], 9102)),
            tls: TlsConfig::default(),
            mode: Mode::Parallel,
            parallelism: 5,
            starting_position: StartingPosition::TrimHorizon,
            batch: BatchConfig::default(),
            max_transaction_bytes: MAX_TRANSACTION_BYTES,
            max_ahead_hours: 24,
            earliest_timestamp: Timestamp::YEAR_2000,
            max_in_flight_records: 100_000,
            max_in_flight_bytes: 64 * 1024 * 1024,
            commit_interval_ms: 200,
            snapshots: String::new(),
            snapshot_options: BTreeMap::new(),
            snapshot_key: Secret::default(),
            snapshot_max_bytes: 4 * 1024 * 1024 * 1024,
            snapshot_interval_seconds: 60,
            snapshot_records: 1_000_000,
            card_data: CardDataMode::default(),
            card_token_key: Secret::default(),
            card_data_ids: CardIds::default(),
            card_data_exempt: Vec::new(),
            rules: Rules::default(),
        }
    }
}

/// Each worker is a thread with an engine for every partition.
const MAX_PARALLELISM: usize = 256;

impl ScorerConfig {
    /// Checks each setting and how they relate.
    ///
    /// # Errors
    /// Names the setting at fault.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let at_least_one = [
            ("parallelism", self.parallelism),
            ("batch.max_messages", self.batch.max_messages),
            ("batch.max_bytes", self.batch.max_bytes),
            ("max_transaction_bytes", self.max_transaction_bytes),
            ("max_in_flight_records", self.max_in_flight_records),
            ("max_in_flight_bytes", self.max_in_flight_bytes),
            ("snapshot_records", self.snapshot_records as usize),
        ];
        for (setting, value) in at_least_one {
            if value == 0 {
                return Err(ConfigError::invalid(
                    format!("scorer.{setting}"),
                    "must be at least 1",
                ));
            }
        }
        if self.parallelism > MAX_PARALLELISM {
            return Err(ConfigError::invalid(
                "scorer.parallelism",
                format!("must be at most {MAX_PARALLELISM}; more workers than cores gain nothing"),
            ));
        }
        if !self.snapshot_key.is_empty() && self.snapshot_key.expose().len() < 32 {
            return Err(ConfigError::invalid(
                "scorer.snapshot_key",
                "must be at least 32 bytes long, such as what `openssl rand -base64 32` prints",
            ));
        }
        if self.snapshot_max_bytes == 0 {
            return Err(ConfigError::invalid(
                "scorer.snapshot_max_bytes",
                "must be at least 1",
            ));
        }
        if !self.snapshots.is_empty() {
            objects::open(self.snapshot_store())?;
        }
        self.card_policy()?;
        self.rules.validate().map_err(|error| {
            ConfigError::invalid(format!("scorer.rules.{}", error.setting), error.reason)
        })
    }

    /// A transaction that is scored must fit into the record of its decision.
    ///
    /// # Errors
    /// Names the setting at fault.
    pub fn validate_record_size(&self, kafka: &KafkaConfig) -> Result<(), ConfigError> {
        kafka.check_transaction_bytes("scorer.max_transaction_bytes", self.max_transaction_bytes)
    }

    /// How card data in records is treated.
    ///
    /// # Errors
    /// Names the setting at fault.
    pub fn card_policy(&self) -> Result<CardPolicy, ConfigError> {
        let settings = CardDataSettings {
            section: "scorer",
            mode: self.card_data,
            key: &self.card_token_key,
            ids: self.card_data_ids,
            exempt: &self.card_data_exempt,
        };
        settings.policy()
    }

    /// Where snapshots are kept.
    pub(crate) fn snapshot_store(&self) -> StoreSettings<'_> {
        StoreSettings {
            url: &self.snapshots,
            url_setting: "scorer.snapshots",
            options: &self.snapshot_options,
            options_setting: "scorer.snapshot_options",
        }
    }
}

/// The settings that the scorer's own process reads.
#[derive(Debug, Clone, Serialize)]
pub struct ProcessConfig {
    /// Section `kafka`.
    pub kafka: KafkaConfig,
    /// Section `scorer`.
    pub scorer: ScorerConfig,
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
            scorer: ScorerConfig {
                tls: tls.clone(),
                ..settings.section("scorer")?
            },
            telemetry: settings.section("telemetry")?,
            tls,
        };
        config.kafka.validate_for_service()?;
        config.scorer.validate()?;
        config.scorer.validate_record_size(&config.kafka)?;
        Ok(config)
    }
}
