//! The delivery log: one row for each alert delivered to each sink, looked up before sending and written right after it.
//!
//! Invariant: [`DeliveryLog::record`] returns true only after the row is on disk. While the store is down no alert is sent,
//! since it may have been delivered before; the alerts stay in the log.

mod postgres;
mod sqlite;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::sync::{mpsc, oneshot};
use tollgate_service::Shutdown;
use tollgate_service::database::{Database, DatabaseError};
use tollgate_service::health::Health;
use tollgate_service::resilience::{
    CallFailure, CallPolicy, Dependency, DependencyConfig, RetryConfig,
};

use crate::alert::AlertKey;

/// The component of the delivery log in `/readyz`.
pub(crate) const COMPONENT: &str = "delivery_log";
/// Most deliveries written in one statement.
const GROUP: usize = 256;
/// Rows that one statement of the purge deletes, so that it delays no other statement for long.
const PURGE_STEP: i64 = 5_000;
/// Timeout of one statement.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Most calls in flight: one for each sink, the writer, and the probe.
const CONCURRENCY: usize = 64;
/// Time between probes of the store.
const PROBE: Duration = Duration::from_secs(10);
/// Time between purges.
const PURGE: Duration = Duration::from_secs(3_600);
/// The delivery log may share its database with other tables that have migrations of their own.
const MIGRATIONS_TABLE: &str = "tollgate_notifier_migrations";

/// A delivery to record.
#[derive(Debug)]
struct Entry {
    sink: String,
    key: AlertKey,
    recorded: oneshot::Sender<()>,
}

/// Looks up and records deliveries. Clones share the store.
#[derive(Debug, Clone)]
pub(crate) struct DeliveryLog {
    store: Store,
    entries: mpsc::Sender<Entry>,
}

/// Writes the deliveries in their order, in groups of as many as are waiting.
pub(crate) struct DeliveryLogWriter {
    store: Store,
    entries: mpsc::Receiver<Entry>,
}

/// Creates or upgrades the tables.
pub(crate) async fn migrate(database: &Database) -> Result<(), DatabaseError> {
    let migrated = match database {
        Database::Postgres(pool) => postgres::migrate(pool).await,
        Database::Sqlite(pool) => sqlite::migrate(pool).await,
    };
    Ok(migrated?)
}

/// Opens the delivery log. The database may be down.
pub(crate) fn open(
    database: Database,
    health: Health,
    stop: Shutdown,
) -> (DeliveryLog, DeliveryLogWriter, Store) {
    let (sender, entries) = mpsc::channel(GROUP);
    let limits = DependencyConfig {
        retry: RetryConfig {
            cap_ms: 5_000,
            ..RetryConfig::default()
        },
        ..DependencyConfig::new(TIMEOUT, CONCURRENCY)
    };
    let store = Store {
        database,
        dependency: Dependency::new("delivery_log", &limits, Some((health.clone(), COMPONENT))),
        health,
        stop,
    };
    let delivery_log = DeliveryLog {
        store: store.clone(),
        entries: sender,
    };
    let writer = DeliveryLogWriter {
        store: store.clone(),
        entries,
    };
    (delivery_log, writer, store)
}

impl DeliveryLog {
    /// The indexes of the keys that were delivered to the sink. `None` if the shutdown came before the answer of the store.
    pub(crate) async fn delivered(
        &self,
        sink: &str,
        keys: &[&AlertKey],
    ) -> Result<Option<HashSet<usize>>, DatabaseError> {
        if keys.is_empty() {
            return Ok(Some(HashSet::new()));
        }
        let lookup = self.store.call(|| async {
            self.store.database.ensure_there()?;
            match &self.store.database {
                Database::Postgres(pool) => postgres::delivered(pool, sink, keys).await,
                Database::Sqlite(pool) => sqlite::delivered(pool, sink, keys).await,
            }
        });
        tokio::select! {
            delivered = lookup => delivered.map(Some),
            () = self.store.stopped_without_answer() => Ok(None),
        }
    }

    /// Records that the alerts were delivered to the sink. True once all rows are on disk; false if the writer has ended.
    pub(crate) async fn record(&self, sink: &str, keys: impl Iterator<Item = &AlertKey>) -> bool {
        let mut written = Vec::new();
        for key in keys {
            let (recorded, done) = oneshot::channel();
            let entry = Entry {
                sink: sink.to_owned(),
                key: key.clone(),
                recorded,
            };
            if self.entries.send(entry).await.is_err() {
                return false;
            }
            written.push(done);
        }
        for done in written {
            if done.await.is_err() {
                return false;
            }
        }
        true
    }
}

impl DeliveryLogWriter {
    /// Works until every [`DeliveryLog`] is dropped: deliveries are recorded also while the service stops.
    pub(crate) async fn run(mut self) -> anyhow::Result<()> {
        let mut group = Vec::with_capacity(GROUP);
        while self.entries.recv_many(&mut group, GROUP).await > 0 {
            let rows: Vec<(&str, &AlertKey)> = group
                .iter()
                .map(|entry| (entry.sink.as_str(), &entry.key))
                .collect();
            let store = &self.store;
            let rows = rows.as_slice();
            store.call(|| store.record(rows, Utc::now())).await?;
            for entry in group.drain(..) {
                // The receiver is gone if the delivery was aborted; its row is written nevertheless.
                let _ = entry.recorded.send(());
            }
        }
        Ok(())
    }
}

/// The database of the delivery log, behind its circuit breaker.
#[derive(Debug, Clone)]
pub(crate) struct Store {
    pub(crate) database: Database,
    dependency: Dependency,
    health: Health,
    stop: Shutdown,
}

impl Store {
    /// Creates or upgrades the tables. False if the shutdown came before the answer of the store.
    pub(crate) async fn prepare(&self) -> anyhow::Result<bool> {
        // An upgrade may take long.
        let unlimited = self.dependency.with_timeout(Duration::MAX);
        let prepared = unlimited.call(CallPolicy::unlimited(), || migrate(&self.database));
        tokio::select! {
            (_, done) = prepared => Ok(done.map(|()| true).map_err(DatabaseError::from)?),
            () = self.stop.begun() => Ok(false),
        }
    }

    /// Probes the store until the shutdown, and deletes the rows that are older than `retention`.
    pub(crate) async fn maintain(self, retention: Duration) -> anyhow::Result<()> {
        let mut probe = tokio::time::interval(PROBE);
        let mut next_purge = tokio::time::Instant::now();
        loop {
            tokio::select! {
                () = self.stop.begun() => return Ok(()),
                _ = probe.tick() => {}
            }
            let (_, result) = self
                .dependency
                .call(CallPolicy::no_retry(), || self.database.ping())
                .await;
            // The dependency itself reports an outage.
            if let Err(CallFailure::Rejected(error)) = result {
                self.health.not_ready(COMPONENT, error.to_string());
            }
            if tokio::time::Instant::now() < next_purge {
                continue;
            }
            match self.purge(Utc::now() - retention).await {
                Ok(rows) => {
                    tracing::debug!(rows, "old rows of the delivery log were deleted");
                    next_purge += PURGE;
                }
                // Nothing depends on it: it is retried at the next probe.
                Err(error) => {
                    tracing::warn!(%error, "old rows of the delivery log were not deleted")
                }
            }
        }
    }

    async fn record(
        &self,
        rows: &[(&str, &AlertKey)],
        now: DateTime<Utc>,
    ) -> Result<(), DatabaseError> {
        self.database.ensure_there()?;
        match &self.database {
            Database::Postgres(pool) => postgres::record(pool, rows, now).await,
            Database::Sqlite(pool) => sqlite::record(pool, rows, now).await,
        }
    }

    /// Deletes the rows of deliveries before that time, in steps. Returns their number.
    async fn purge(&self, before: DateTime<Utc>) -> Result<u64, DatabaseError> {
        let mut rows = 0;
        loop {
            let step = async || match &self.database {
                Database::Postgres(pool) => postgres::purge(pool, before, PURGE_STEP).await,
                Database::Sqlite(pool) => sqlite::purge(pool, before, PURGE_STEP).await,
            };
            let deleted = self.dependency.call(CallPolicy::no_retry(), step).await.1?;
            rows += deleted;
            if deleted == 0 || self.stop.is_begun() {
                return Ok(rows);
            }
        }
    }

    /// Calls the store until it answers.
    async fn call<T, F>(&self, ask: impl Fn() -> F) -> Result<T, DatabaseError>
    where
        F: Future<Output = Result<T, DatabaseError>>,
    {
        let (_, result) = self.dependency.call(CallPolicy::unlimited(), ask).await;
        Ok(result?)
    }

    /// Waits until the service stops, then a second longer for the answer of the store.
    async fn stopped_without_answer(&self) {
        self.stop.begun().await;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}
