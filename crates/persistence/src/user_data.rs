//! The data of one user in the store, for `tollgate user`.

use chrono::Utc;
use tollgate_service::database::DatabaseError;
use tollgate_service::health::Health;
use tollgate_service::resilience::CallPolicy;

use crate::config::PersistenceConfig;
use crate::store::Store;

/// Reads and erases the data of one user. Works beside running services.
#[derive(Debug)]
pub struct UserData {
    store: Store,
}

/// What was erased.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Erased {
    /// Decisions with their transactions.
    pub rows: u64,
    /// The keyed hash under which the store remembers that the user was erased.
    pub user_hash: String,
}

impl UserData {
    /// Opens the store, and brings its tables to the schema of this version.
    ///
    /// # Errors
    /// Names the invalid setting, or holds the database's error.
    pub async fn open(config: &PersistenceConfig) -> anyhow::Result<Self> {
        config.validate()?;
        let store = Store::open(config, Health::starting(&[])).await?;
        let migrated = store.migrate(&CallPolicy::no_retry()).await;
        migrated.map_err(DatabaseError::from)?;
        Ok(Self { store })
    }

    /// The number of decisions on the user.
    ///
    /// # Errors
    /// The error of the database.
    pub async fn count(&self, tenant: &str, user_id: &str) -> anyhow::Result<u64> {
        Ok(self.store.count_user(tenant, user_id).await?)
    }

    /// Calls `each` with every decision on the user as JSON on one line, oldest event time first.
    ///
    /// # Errors
    /// The error of the database, or of `each`.
    pub async fn each(
        &self,
        tenant: &str,
        user_id: &str,
        mut each: impl FnMut(&[u8]) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let mut line = Vec::new();
        let write = |decision: &crate::rows::StoredDecision| {
            line.clear();
            decision.decision().write_to(&mut line);
            each(&line)
        };
        self.store.each_of_user(tenant, user_id, write).await
    }

    /// Deletes every decision on the user with its transaction. Decisions on what the user did before now are not stored
    /// again when they are read from the log once more.
    ///
    /// # Errors
    /// The error of the database. Erasing can be repeated.
    pub async fn erase(&self, tenant: &str, user_id: &str) -> anyhow::Result<Erased> {
        let (user_hash, rows) = self.store.erase_user(tenant, user_id, Utc::now()).await?;
        tracing::warn!(tenant, user_hash, decisions = rows, "a user was erased");
        Ok(Erased { rows, user_hash })
    }
}
