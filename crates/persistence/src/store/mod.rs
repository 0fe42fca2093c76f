//! The store: writes a batch of decisions in one database transaction, and answers the read API.
//!
//! Invariant: a decision is in both tables or in neither, and an existing row is never changed. The writer has connections
//! of its own, so that readers cannot delay it.

mod bodies;
mod comparison;
mod erasure;
mod partitions;
mod postgres;
mod query;
mod sqlite;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use sqlx::migrate::Migrator;
use tollgate_service::database::{Database, DatabaseError};
use tollgate_service::health::Health;
use tollgate_service::resilience::{CallError as _, CallFailure, CallPolicy, Dependency};
use tollgate_service::telemetry::trace::SPAN_TARGET;
use tollgate_types::{Amount, Status, Timestamp};
use tracing::Instrument as _;

pub(crate) use self::bodies::Key;
pub(crate) use self::comparison::Different;
use self::partitions::Months;
use crate::config::PersistenceConfig;
use crate::cursor::Cursor;
use crate::retention::Expired;
use crate::rows::{Row, StoredDecision};

/// The component of the store in `/readyz`.
pub(crate) const COMPONENT: &str = "store";
/// Timeout of a probe.
const PING: Duration = Duration::from_secs(5);
/// Timeout of a step of the retention.
const STEP_TIMEOUT: Duration = Duration::from_secs(30);
/// Connections of the writer: one writes, the other replaces it when it breaks.
const WRITER_CONNECTIONS: u32 = 2;

/// The result of writing a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Written {
    /// New rows.
    pub(crate) stored: u64,
    /// Rows that were stored before.
    pub(crate) known: u64,
}

/// The decisions of a page, newest first.
#[derive(Debug, Clone, Default)]
pub(crate) struct Filter {
    /// Empty for the default tenant; `None` for all tenants.
    pub(crate) tenant: Option<String>,
    pub(crate) status: Option<Status>,
    pub(crate) user_id: Option<String>,
    /// Inclusive.
    pub(crate) from: Option<Timestamp>,
    /// Exclusive.
    pub(crate) to: Option<Timestamp>,
    pub(crate) after: Option<Cursor>,
}

/// Decisions up to a number of bytes.
#[derive(Debug)]
pub(crate) struct Rows {
    pub(crate) decisions: Vec<StoredDecision>,
    /// A decision was left out because of its size.
    pub(crate) cut: bool,
    bytes: usize,
    max_bytes: usize,
}

impl Rows {
    fn up_to(max_bytes: usize) -> Self {
        Self {
            decisions: Vec::new(),
            cut: false,
            bytes: 0,
            max_bytes,
        }
    }

    /// Adds a decision. False if it does not fit; the first one always does.
    fn add(&mut self, decision: StoredDecision) -> bool {
        self.bytes = self.bytes.saturating_add(decision.size());
        self.cut = self.bytes > self.max_bytes && !self.decisions.is_empty();
        if !self.cut {
            self.decisions.push(decision);
        }
        !self.cut
    }
}

/// The decisions of a user with the same status and indicators.
#[derive(Debug, Clone)]
pub(crate) struct UserGroup {
    pub(crate) status: String,
    pub(crate) fraud_indicators: String,
    pub(crate) decisions: i64,
    /// In ten-thousandths: a sum may exceed an [`Amount`].
    pub(crate) total: i128,
    pub(crate) largest: Amount,
    pub(crate) highest_score: f64,
    pub(crate) first: Timestamp,
    pub(crate) last: Timestamp,
}

/// The number of decisions with the same status, indicators and score bucket.
#[derive(Debug, Clone)]
pub(crate) struct Count {
    pub(crate) status: String,
    pub(crate) fraud_indicators: String,
    /// Ten points wide.
    pub(crate) score_bucket: i64,
    pub(crate) decisions: i64,
    pub(crate) last_processed: Timestamp,
}

/// All decisions, summed up.
#[derive(Debug, Clone)]
pub(crate) struct Counts {
    pub(crate) counts: Vec<Count>,
    pub(crate) first: Option<Timestamp>,
    pub(crate) last: Option<Timestamp>,
}

/// The store, with its connections. Clones share them.
#[derive(Debug, Clone)]
pub(crate) struct Store {
    writing: Database,
    reading: Database,
    migrated: Arc<AtomicBool>,
    writes: Dependency,
    reads: Dependency,
    health: Health,
    query_timeout: Duration,
    months: Arc<Months>,
}

impl Store {
    /// # Errors
    /// Names the invalid setting.
    pub(crate) async fn open(config: &PersistenceConfig, health: Health) -> anyhow::Result<Self> {
        let url = config.database_url.expose();
        let opened = Database::open("persistence.database_url", url, WRITER_CONNECTIONS).await?;
        let (writing, reading) = match opened {
            Database::Postgres(pool) => {
                let readers = postgres::readers(&pool, config);
                (Database::Postgres(pool), Database::Postgres(readers))
            }
            Database::Sqlite(pool) => {
                let (writers, readers) = (sqlite::writers(&pool), sqlite::readers(&pool, config));
                pool.close().await;
                (Database::Sqlite(writers), Database::Sqlite(readers))
            }
        };
        writing.watch("persistence writes");
        reading.watch("persistence reads");
        Ok(Self {
            writing,
            reading,
            migrated: Arc::default(),
            writes: Dependency::new("store", &config.writes(), Some((health.clone(), COMPONENT))),
            reads: Dependency::new("store for reading", &config.reads(), None),
            health,
            query_timeout: config.query_timeout(),
            months: Arc::default(),
        })
    }

    /// Brings the schema to that of this version. A newer schema is not changed: in a rolling update both versions run.
    pub(crate) async fn migrate(
        &self,
        policy: &CallPolicy,
    ) -> Result<(), CallFailure<DatabaseError>> {
        // An upgrade may take long.
        let unlimited = self.writes.with_timeout(Duration::MAX);
        let migrate = async || match &self.writing {
            Database::Postgres(pool) => for_this_service(postgres::migrations()).run(pool).await,
            Database::Sqlite(pool) => for_this_service(sqlite::migrations()).run(pool).await,
        };
        let call = unlimited.call(policy.clone(), async || Ok(migrate().await?));
        call.await.1?;
        self.migrated.store(true, Ordering::Release);
        Ok(())
    }

    /// Probes the store, and sets the readiness of the service.
    pub(crate) async fn ping(&self) {
        let quick = self.writes.with_timeout(PING);
        let (_, result) = quick
            .call(CallPolicy::no_retry(), || self.writing.ping())
            .await;
        // The dependency itself reports an outage.
        if let Err(CallFailure::Rejected(error)) = result {
            self.health.not_ready(COMPONENT, error.to_string());
        }
    }

    /// Stores all rows that are not stored yet, or none. The rows must be sorted by key, so that replicas that write the
    /// same rows cannot deadlock. Returns the number of attempts with the result.
    pub(crate) async fn write(
        &self,
        rows: &[Row<'_>],
        policy: &CallPolicy,
    ) -> (u32, Result<Written, CallFailure<DatabaseError>>) {
        let write = async || {
            let begun = Instant::now();
            self.writing.ensure_there()?;
            let stored = match &self.writing {
                Database::Postgres(pool) => postgres::write(pool, &self.months, rows).await,
                Database::Sqlite(pool) => sqlite::write(pool, rows).await,
            };
            metrics::histogram!("tollgate_persistence_write_duration_seconds")
                .record(begun.elapsed());
            let stored = stored?;
            let known = (rows.len() as u64).saturating_sub(stored);
            Ok(Written { stored, known })
        };
        self.writes.call(policy.clone(), write).await
    }

    /// The name of the database system, by OpenTelemetry's conventions.
    pub(crate) const fn system(&self) -> &'static str {
        match self.writing {
            Database::Postgres(_) => "postgresql",
            Database::Sqlite(_) => "sqlite",
        }
    }

    /// Makes one attempt: the caller of the API can retry.
    async fn read<T, F>(&self, table: &'static str, ask: impl Fn() -> F) -> Result<T, DatabaseError>
    where
        F: Future<Output = Result<T, DatabaseError>>,
    {
        self.check_migrated()?;
        let call = self.reads.call(CallPolicy::no_retry(), ask);
        // The timeout includes the wait for a slot of the bulkhead.
        let span = tracing::info_span!(
            target: SPAN_TARGET,
            "SELECT",
            otel.name = format!("SELECT {table}"),
            otel.kind = "client",
            db.system.name = self.system(),
            db.operation.name = "SELECT",
            db.collection.name = table,
            error.r#type = tracing::field::Empty,
            otel.status_code = tracing::field::Empty,
        );
        let asked = tokio::time::timeout(self.query_timeout, call);
        let answer = match asked.instrument(span.clone()).await {
            Ok((_, result)) => result.map_err(Into::into),
            Err(_) => Err(DatabaseError::timed_out(self.query_timeout)),
        };
        if let Err(error) = &answer {
            span.record("error.type", error.kind());
            span.record("otel.status_code", "error");
        }
        answer
    }

    /// The decisions on transactions with this id, at most two, first decisions before conflicts.
    pub(crate) async fn decisions(
        &self,
        tenant: Option<&str>,
        transaction_id: &str,
        user_id: Option<&str>,
    ) -> Result<Vec<StoredDecision>, DatabaseError> {
        let ask = async || match &self.reading {
            Database::Postgres(pool) => {
                postgres::decisions(pool, tenant, transaction_id, user_id).await
            }
            Database::Sqlite(pool) => {
                sqlite::decisions(pool, tenant, transaction_id, user_id).await
            }
        };
        self.read("fraud_analysis", ask).await
    }

    /// Up to `limit` conflicts with the first decision on a transaction, oldest first, as many as fit into `max_bytes`.
    pub(crate) async fn conflicts(
        &self,
        tenant: &str,
        transaction_id: &str,
        user_id: &str,
        limit: u32,
        max_bytes: usize,
    ) -> Result<Rows, DatabaseError> {
        let ask = async || match &self.reading {
            Database::Postgres(pool) => {
                postgres::conflicts(pool, tenant, transaction_id, user_id, limit, max_bytes).await
            }
            Database::Sqlite(pool) => {
                sqlite::conflicts(pool, tenant, transaction_id, user_id, limit, max_bytes).await
            }
        };
        self.read("fraud_analysis", ask).await
    }

    /// Up to `limit` decisions, newest first, as many as fit into `max_bytes`, but at least one.
    pub(crate) async fn page(
        &self,
        filter: &Filter,
        limit: u32,
        max_bytes: usize,
    ) -> Result<Rows, DatabaseError> {
        let ask = async || match &self.reading {
            Database::Postgres(pool) => postgres::page(pool, filter, limit, max_bytes).await,
            Database::Sqlite(pool) => sqlite::page(pool, filter, limit, max_bytes).await,
        };
        self.read("fraud_analysis", ask).await
    }

    /// The groups of the decisions of a user.
    pub(crate) async fn user(
        &self,
        tenant: Option<&str>,
        user_id: &str,
    ) -> Result<Vec<UserGroup>, DatabaseError> {
        let ask = async || match &self.reading {
            Database::Postgres(pool) => postgres::user(pool, tenant, user_id).await,
            Database::Sqlite(pool) => sqlite::user(pool, tenant, user_id).await,
        };
        self.read("fraud_analysis", ask).await
    }

    /// The numbers of the decisions of a tenant, or of all, by kind.
    pub(crate) async fn counts(&self, tenant: Option<&str>) -> Result<Counts, DatabaseError> {
        let ask = async || match &self.reading {
            Database::Postgres(pool) => postgres::counts(pool, tenant).await,
            Database::Sqlite(pool) => sqlite::counts(pool, tenant).await,
        };
        self.read("fraud_analysis", ask).await
    }

    /// Drops the months that have expired wholly, where each has tables of its own. Returns the number of their decisions.
    /// A month that is in use for long is left.
    pub(crate) async fn drop_expired(&self, expired: Expired) -> Result<u64, DatabaseError> {
        self.check_migrated()?;
        let mut dropped = 0;
        if let Database::Postgres(pool) = &self.writing {
            loop {
                let month = partitions::drop_oldest(pool, expired.before);
                match tokio::time::timeout(STEP_TIMEOUT, month).await {
                    Ok(Ok(Some(decisions))) => dropped += decisions,
                    Ok(Ok(None)) => break,
                    Ok(Err(error)) => return Err(error),
                    Err(_) => return Err(DatabaseError::timed_out(STEP_TIMEOUT)),
                }
            }
        }
        Ok(dropped)
    }

    /// Deletes some of the expired decisions, in one database transaction. Returns their number; 0 when none are left.
    pub(crate) async fn delete_expired(&self, expired: Expired) -> Result<u64, DatabaseError> {
        self.check_migrated()?;
        let delete = async {
            match &self.writing {
                Database::Postgres(pool) => postgres::delete_expired(pool, expired).await,
                Database::Sqlite(pool) => sqlite::delete_expired(pool, expired).await,
            }
        };
        match tokio::time::timeout(STEP_TIMEOUT, delete).await {
            Ok(deleted) => deleted,
            Err(_) => Err(DatabaseError::timed_out(STEP_TIMEOUT)),
        }
    }

    /// Deletes some keys of months that were dropped. False when none are left.
    pub(crate) async fn forget_keys(&self) -> Result<bool, DatabaseError> {
        match &self.writing {
            Database::Postgres(pool) => {
                let step = partitions::forget_keys(pool);
                match tokio::time::timeout(STEP_TIMEOUT, step).await {
                    Ok(more) => more,
                    Err(_) => Err(DatabaseError::timed_out(STEP_TIMEOUT)),
                }
            }
            Database::Sqlite(_) => Ok(false),
        }
    }

    /// Closes every connection.
    pub(crate) async fn close(&self) {
        self.reading.close().await;
        self.writing.close().await;
    }

    /// Fails as unavailable until the tables exist.
    fn check_migrated(&self) -> Result<(), DatabaseError> {
        if self.migrated.load(Ordering::Acquire) {
            return Ok(());
        }
        let reason = io::Error::new(
            io::ErrorKind::NotConnected,
            "its tables are not created yet",
        );
        Err(DatabaseError::Unavailable(sqlx::Error::Io(reason)))
    }
}

/// The delivery log of the notifier may be in the same database: each service has a table of migrations of its own.
fn for_this_service(mut migrator: Migrator) -> Migrator {
    migrator.set_ignore_missing(true);
    migrator.dangerous_set_table_name("persistence_migrations");
    migrator
}

/// The error of a column with a value that this version never writes.
fn unreadable(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> DatabaseError {
    DatabaseError::Broken(sqlx::Error::Decode(error.into()))
}
