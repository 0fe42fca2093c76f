//! Which sink has which alert: one row a delivery, asked before sending and written right after it.
//!
//! Invariant: [`DeliveryLog::record`] returns true only when the row is on disk. While the store is away nothing new is
//! sent, since nobody could say whether it was sent before; the log holds.

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

/// The delivery log's name among the reasons for not being ready.
pub(crate) const COMPONENT: &str = "delivery_log";
/// Most deliveries written in one statement.
const GROUP: usize = 256;
/// Rows that one statement of the purge deletes, so that it holds nobody up.
const PURGE_STEP: i64 = 5_000;
/// How long one statement may take.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Questions under way at once: one a sink, the writer, and the watch.
const CONCURRENCY: usize = 64;
/// Time between looks at the store while nothing else asks it.
const WATCH: Duration = Duration::from_secs(10);
/// Time between purges.
const PURGE: Duration = Duration::from_secs(3_600);
/// The delivery log may share its database with other tables that have migrations of their own.
const MIGRATIONS_TABLE: &str = "tollgate_notifier_migrations";

/// A delivery to remember.
#[derive(Debug)]
struct Entry {
    sink: String,
    key: AlertKey,
    recorded: oneshot::Sender<()>,
}

/// Asks and tells the delivery log. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct DeliveryLog {
    store: Store,
    entries: mpsc::Sender<Entry>,
}

/// Writes what was delivered, in the order of delivery, as many at a time as there are.
pub(crate) struct DeliveryLogWriter {
    store: Store,
    entries: mpsc::Receiver<Entry>,
}

/// Makes or upgrades the tables.
pub(crate) async fn migrate(database: &Database) -> Result<(), DatabaseError> {
    let migrated = match database {
        Database::Postgres(pool) => postgres::migrate(pool).await,
        Database::Sqlite(pool) => sqlite::migrate(pool).await,
    };
    Ok(migrated?)
}

/// Opens the delivery log. The database may be away.
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
    /// Which of the keys, by index, the sink has. None when the shutdown came before the store's answer.
    pub(crate) async fn known(
        &self,
        sink: &str,
        keys: &[&AlertKey],
    ) -> Result<Option<HashSet<usize>>, DatabaseError> {
        if keys.is_empty() {
            return Ok(Some(HashSet::new()));
        }
        let asked = self.store.insist(|| async {
            self.store.database.ensure_there()?;
            match &self.store.database {
                Database::Postgres(pool) => postgres::known(pool, sink, keys).await,
                Database::Sqlite(pool) => sqlite::known(pool, sink, keys).await,
            }
        });
        tokio::select! {
            known = asked => known.map(Some),
            () = self.store.stopped_and_away() => Ok(None),
        }
    }

    /// Remembers that the sink has the alerts. Whether all are on disk; if not, the writer has ended.
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
    /// Works until every [`DeliveryLog`] is gone. What was delivered is written even while the service stops.
    pub(crate) async fn run(mut self) -> anyhow::Result<()> {
        let mut group = Vec::with_capacity(GROUP);
        while self.entries.recv_many(&mut group, GROUP).await > 0 {
            let rows: Vec<(&str, &AlertKey)> = group
                .iter()
                .map(|entry| (entry.sink.as_str(), &entry.key))
                .collect();
            let store = &self.store;
            let rows = rows.as_slice();
            store.insist(|| store.record(rows, Utc::now())).await?;
            for entry in group.drain(..) {
                // A delivery that was cut off waits no more; its row is there all the same.
                let _ = entry.recorded.send(());
            }
        }
        Ok(())
    }
}

/// The store and what is known of its health.
#[derive(Debug, Clone)]
pub(crate) struct Store {
    pub(crate) database: Database,
    dependency: Dependency,
    health: Health,
    stop: Shutdown,
}

impl Store {
    /// Makes or upgrades the tables. False when the shutdown came before the store's answer.
    pub(crate) async fn prepare(&self) -> anyhow::Result<bool> {
        // An upgrade may take its time.
        let patient = self.dependency.with_timeout(Duration::MAX);
        let prepared = patient.call(CallPolicy::unlimited(), || migrate(&self.database));
        tokio::select! {
            (_, done) = prepared => Ok(done.map(|()| true).map_err(DatabaseError::from)?),
            () = self.stop.begun() => Ok(false),
        }
    }

    /// Looks after the store until the shutdown: whether it is there, and that it forgets what is older than that.
    pub(crate) async fn keep(self, retention: Duration) -> anyhow::Result<()> {
        let mut watch = tokio::time::interval(WATCH);
        let mut next_purge = tokio::time::Instant::now();
        loop {
            tokio::select! {
                () = self.stop.begun() => return Ok(()),
                _ = watch.tick() => {}
            }
            let (_, result) = self
                .dependency
                .call(CallPolicy::no_retry(), || self.database.ping())
                .await;
            // An outage shows by itself.
            if let Err(CallFailure::Rejected(error)) = result {
                self.health.not_ready(COMPONENT, error.to_string());
            }
            if tokio::time::Instant::now() < next_purge {
                continue;
            }
            match self.purge(Utc::now() - retention).await {
                Ok(rows) => {
                    tracing::debug!(rows, "the delivery log has forgotten old deliveries");
                    next_purge += PURGE;
                }
                // Nothing depends on it: it is tried again at the next look.
                Err(error) => tracing::warn!(%error, "old deliveries were not deleted"),
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

    /// Deletes what was delivered before that time, a step at a time. How many rows.
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

    /// Asks until the store answers, and says so while it does not.
    async fn insist<T, F>(&self, ask: impl Fn() -> F) -> Result<T, DatabaseError>
    where
        F: Future<Output = Result<T, DatabaseError>>,
    {
        let (_, result) = self.dependency.call(CallPolicy::unlimited(), ask).await;
        Ok(result?)
    }

    /// The service stops, and the store does not answer at once.
    async fn stopped_and_away(&self) {
        self.stop.begun().await;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}
