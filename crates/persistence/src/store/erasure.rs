//! The data of one user: read whole, and erased.
//!
//! Invariant: what is erased stays erased. A keyed hash of the user is committed before the rows are deleted, and the
//! writer leaves out decisions on what the user did before that time, however often the log is read again.

use chrono::{DateTime, SecondsFormat, Utc};
use data_encoding::HEXLOWER;
use futures_util::TryStreamExt as _;
use sha2::{Digest as _, Sha256};
use sqlx::sqlite::SqlitePool;
use sqlx::{Connection as _, PgPool, SqliteConnection};
use tollgate_service::database::{Database, DatabaseError};
use tollgate_types::Timestamp;

use super::{Store, postgres, sqlite, unreadable};
use crate::rows::{Row, StoredDecision, fixed_width};

/// The hash under which an erased user is remembered. PostgreSQL computes the same in its insert.
fn user_hash(key: &str, tenant: &str, user_id: &str) -> String {
    let mut hash = Sha256::new();
    for part in [key, tenant, "\u{1}", user_id] {
        hash.update(part.as_bytes());
    }
    HEXLOWER.encode(&hash.finalize())
}

/// A new key: 256 random bits.
fn new_key() -> String {
    HEXLOWER.encode(&rand::random::<[u8; 32]>())
}

impl Store {
    /// The number of rows of a user.
    pub(crate) async fn count_user(
        &self,
        tenant: &str,
        user_id: &str,
    ) -> Result<u64, DatabaseError> {
        const COUNT: &str =
            "SELECT count(*) FROM fraud_analysis WHERE user_id = $1 AND tenant = $2";
        let count: i64 = match &self.writing {
            Database::Postgres(pool) => {
                let query = sqlx::query_scalar(COUNT).bind(user_id).bind(tenant);
                query.fetch_one(pool).await?
            }
            Database::Sqlite(pool) => {
                let query = sqlx::query_scalar(COUNT).bind(user_id).bind(tenant);
                query.fetch_one(pool).await?
            }
        };
        u64::try_from(count).map_err(unreadable)
    }

    /// Calls `each` with every decision on a user, oldest first, one at a time.
    pub(crate) async fn each_of_user(
        &self,
        tenant: &str,
        user_id: &str,
        mut each: impl FnMut(&StoredDecision) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        match &self.writing {
            Database::Postgres(pool) => {
                let mut query = postgres::of_user(tenant, user_id);
                let mut rows = query.build().fetch(pool);
                while let Some(row) = rows.try_next().await? {
                    each(&postgres::stored(&row)?)?;
                }
            }
            Database::Sqlite(pool) => {
                let mut query = sqlite::of_user(tenant, user_id);
                let mut rows = query.build().fetch(pool);
                while let Some(row) = rows.try_next().await? {
                    each(&sqlite::stored(&row)?)?;
                }
            }
        }
        Ok(())
    }

    /// Deletes every row of a user, and keeps the writer from storing what the user did until now. Returns the keyed hash
    /// of the user and the number of rows.
    pub(crate) async fn erase_user(
        &self,
        tenant: &str,
        user_id: &str,
        now: DateTime<Utc>,
    ) -> Result<(String, u64), DatabaseError> {
        match &self.writing {
            Database::Postgres(pool) => erase_postgres(pool, tenant, user_id, now).await,
            Database::Sqlite(pool) => erase_sqlite(pool, tenant, user_id, now).await,
        }
    }
}

async fn erase_postgres(
    pool: &PgPool,
    tenant: &str,
    user_id: &str,
    now: DateTime<Utc>,
) -> Result<(String, u64), DatabaseError> {
    let mut connection = pool.acquire().await?;
    sqlx::query("INSERT INTO erasure_key (id, key) VALUES (1, $1) ON CONFLICT DO NOTHING")
        .bind(new_key())
        .execute(&mut *connection)
        .await?;
    let key: String = sqlx::query_scalar("SELECT key FROM erasure_key")
        .fetch_one(&mut *connection)
        .await?;
    let hash = user_hash(&key, tenant, user_id);
    // Committed at once: every insert that begins from here on leaves the user out.
    sqlx::query(
        "INSERT INTO erased_users AS kept (user_hash, erased_at) VALUES ($1, $2) \
         ON CONFLICT (user_hash) DO UPDATE SET erased_at = greatest(kept.erased_at, excluded.erased_at)",
    )
    .bind(&hash)
    .bind(now)
    .execute(&mut *connection)
    .await?;
    let mut transaction = connection.begin().await?;
    // Waits for the inserts that began earlier. Readers go on.
    sqlx::query("LOCK TABLE transactions, fraud_analysis IN SHARE ROW EXCLUSIVE MODE")
        .execute(&mut *transaction)
        .await?;
    sqlx::query("DELETE FROM transactions WHERE user_id = $1 AND tenant = $2")
        .bind(user_id)
        .bind(tenant)
        .execute(&mut *transaction)
        .await?;
    let deleted = sqlx::query("DELETE FROM fraud_analysis WHERE user_id = $1 AND tenant = $2")
        .bind(user_id)
        .bind(tenant)
        .execute(&mut *transaction)
        .await?;
    transaction.commit().await?;
    // Reads the table whole, so that keys without rows go too; writers go on meanwhile.
    sqlx::query("DELETE FROM decision_keys WHERE user_id = $1 AND tenant = $2")
        .bind(user_id)
        .bind(tenant)
        .execute(&mut *connection)
        .await?;
    Ok((hash, deleted.rows_affected()))
}

async fn erase_sqlite(
    pool: &SqlitePool,
    tenant: &str,
    user_id: &str,
    now: DateTime<Utc>,
) -> Result<(String, u64), DatabaseError> {
    let mut connection = pool.acquire().await?;
    // What is deleted is overwritten in the file.
    sqlx::query("PRAGMA secure_delete = ON")
        .execute(&mut *connection)
        .await?;
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
    sqlx::query("INSERT INTO erasure_key (id, key) VALUES (1, ?) ON CONFLICT DO NOTHING")
        .bind(new_key())
        .execute(&mut *transaction)
        .await?;
    let key: String = sqlx::query_scalar("SELECT key FROM erasure_key")
        .fetch_one(&mut *transaction)
        .await?;
    let hash = user_hash(&key, tenant, user_id);
    sqlx::query(
        "INSERT INTO erased_users (user_hash, erased_at) VALUES (?, ?) \
         ON CONFLICT (user_hash) DO UPDATE SET erased_at = max(erased_at, excluded.erased_at)",
    )
    .bind(&hash)
    .bind(now.to_rfc3339_opts(SecondsFormat::Micros, true))
    .execute(&mut *transaction)
    .await?;
    sqlx::query("DELETE FROM transactions WHERE user_id = ? AND tenant = ?")
        .bind(user_id)
        .bind(tenant)
        .execute(&mut *transaction)
        .await?;
    let deleted = sqlx::query("DELETE FROM fraud_analysis WHERE user_id = ? AND tenant = ?")
        .bind(user_id)
        .bind(tenant)
        .execute(&mut *transaction)
        .await?;
    transaction.commit().await?;
    // The log of the file still holds the deleted pages. Readers may delay this; a later checkpoint does the same.
    sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)")
        .execute(&mut *connection)
        .await?;
    Ok((hash, deleted.rows_affected()))
}

/// The rows that are not about erased users, in a transaction that has the write lock.
pub(super) async fn without_erased<'r, 'a>(
    connection: &mut SqliteConnection,
    rows: &'r [Row<'a>],
) -> Result<Option<Vec<&'r Row<'a>>>, sqlx::Error> {
    let key: Option<String> = sqlx::query_scalar("SELECT key FROM erasure_key")
        .fetch_optional(&mut *connection)
        .await?;
    let Some(key) = key else {
        return Ok(None);
    };
    let mut kept = Vec::with_capacity(rows.len());
    for row in rows {
        let erased: Option<String> =
            sqlx::query_scalar("SELECT erased_at FROM erased_users WHERE user_hash = ?")
                .bind(user_hash(&key, &row.tenant, &row.user_id))
                .fetch_optional(&mut *connection)
                .await?;
        let before = |time: Timestamp| erased.as_ref().is_some_and(|at| fixed_width(time) <= *at);
        if !before(row.processed_at) && !before(row.event_time) {
            kept.push(row);
        }
    }
    Ok(Some(kept))
}
