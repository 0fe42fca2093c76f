//! The audit of a store: appending, and reading for its verification.

use std::time::Duration;

use tollgate_service::database::{Database, DatabaseError};
use tollgate_service::resilience::CallError as _;
use tollgate_types::Timestamp;

use super::chain::{Broken, Head, Link, Verifier};
use super::event::AuditEvent;
use super::sql::{self, Change, Changed};
use crate::config::PersistenceConfig;

/// Entries read at once.
const PAGE: u32 = 1_000;

/// Why the audit of a store cannot be verified.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// An entry was changed, removed or inserted.
    #[error(transparent)]
    Broken(#[from] Broken),
    /// Nothing was ever audited in this store.
    #[error(
        "the store has no audit: nothing was recorded. persistence.audit.mode = \"required\" or \"best_effort\" turns it on; \"auto\", the default, does where callers need API keys"
    )]
    Off,
    /// The store does not answer.
    #[error(transparent)]
    Store(#[from] DatabaseError),
}

/// The audit of a store, with a connection of its own, so that neither readers nor the writer of decisions delay it.
/// Clones share it.
#[derive(Debug, Clone)]
pub struct AuditLog {
    database: Database,
    key: Vec<u8>,
    timeout: Duration,
}

impl AuditLog {
    /// The audit in the store of these settings. PostgreSQL may be down.
    ///
    /// # Errors
    /// Names the invalid setting.
    pub async fn open(config: &PersistenceConfig) -> anyhow::Result<Self> {
        let url = config.database_url.expose();
        Ok(Self {
            database: Database::open("persistence.database_url", url, 1).await?,
            key: config.audit.key.expose().as_bytes().to_vec(),
            timeout: config.query_timeout(),
        })
    }

    /// Creates or upgrades the table.
    ///
    /// # Errors
    /// The store does not answer, or is not usable.
    pub async fn migrate(&self) -> Result<(), DatabaseError> {
        sql::migrate(&self.database).await
    }

    /// Appends entries. They are in the store when it returns. The new head of the chain.
    ///
    /// # Errors
    /// The store does not answer in time; the entries may be there regardless.
    pub async fn append(&self, events: &[AuditEvent]) -> Result<Head, DatabaseError> {
        let entries: Vec<String> = events.iter().map(AuditEvent::text).collect();
        Ok(self.change(Change::Append(&entries)).await?.head)
    }

    /// Removes the oldest entries, some of those made before `before`, and appends an entry that names the head of what
    /// was removed. Returns that head and the number of entries; `None` when none are left.
    ///
    /// # Errors
    /// The store does not answer in time, or its role does not own the table.
    pub async fn expire(&self, before: Timestamp) -> Result<Option<(Head, u64)>, DatabaseError> {
        let now = tollgate_service::now();
        Ok(self.change(Change::Expire { before, now }).await?.removed)
    }

    async fn change(&self, change: Change<'_>) -> Result<Changed, DatabaseError> {
        let changed = sql::change(&self.database, &self.key, change);
        tokio::time::timeout(self.timeout, changed)
            .await
            .unwrap_or_else(|_| Err(DatabaseError::timed_out(self.timeout)))
    }

    /// Checks that the store has an audit.
    ///
    /// # Errors
    /// It has none, or it does not answer.
    pub async fn ensure_on(&self) -> Result<(), AuditError> {
        match sql::exists(&self.database).await? {
            true => Ok(()),
            false => Err(AuditError::Off),
        }
    }

    /// Calls `each` for every entry, in their order, until it fails.
    ///
    /// # Errors
    /// That of the store or of `each`.
    pub async fn read<E: From<DatabaseError>>(
        &self,
        mut each: impl FnMut(&Link) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut after = 0;
        loop {
            let links = sql::read(&self.database, after, PAGE).await?;
            let Some(last) = links.last() else {
                return Ok(());
            };
            after = last.head.seq;
            links.iter().try_for_each(&mut each)?;
        }
    }

    /// Checks every entry, and that the chain contains the head that was kept elsewhere. The head of the chain.
    ///
    /// # Errors
    /// The first entry that does not follow the one before, or the store has no audit.
    pub async fn verify(&self, expected: Option<Head>) -> Result<Head, AuditError> {
        self.ensure_on().await?;
        let mut verifier = Verifier::new(&self.key, expected);
        self.read(|link| Ok::<(), AuditError>(verifier.check(link)?))
            .await?;
        Ok(verifier.finish()?)
    }

    /// Closes the connection.
    pub async fn close(&self) {
        self.database.close().await;
    }
}
