//! The delivery log's statements for SQLite: sets of rows as JSON arrays, each statement idempotent.

use std::borrow::Cow;
use std::collections::HashSet;

use chrono::{DateTime, Utc};
use serde_json::json;
use sqlx::SqlitePool;
use sqlx::migrate::MigrateError;
use tollgate_service::database::{self, DatabaseError};

use crate::alert::AlertKey;

pub(super) async fn migrate(pool: &SqlitePool) -> Result<(), MigrateError> {
    let mut migrator = database::migrations(&[
        (
            "alert deliveries",
            include_str!("../../migrations/sqlite/0001_alert_deliveries.sql"),
        ),
        (
            "tenants and conflicts",
            include_str!("../../migrations/sqlite/0002_tenants_and_conflicts.sql"),
        ),
    ]);
    migrator.table_name = Cow::Borrowed(super::MIGRATIONS_TABLE);
    migrator.run(pool).await
}

/// SQLite follows a CROSS JOIN in its order: from each requested key into the primary key. With another join it scans all
/// deliveries of the sink.
const KNOWN: &str = "
    SELECT asked.key
      FROM json_each(?2) AS asked
     CROSS JOIN alert_deliveries AS known
        ON known.sink = ?1
       AND known.user_id = asked.value ->> 0
       AND known.transaction_id = asked.value ->> 1
       AND known.tenant = asked.value ->> 2
       AND known.conflict_amount = asked.value ->> 3";

pub(super) async fn delivered(
    pool: &SqlitePool,
    sink: &str,
    keys: &[&AlertKey],
) -> Result<HashSet<usize>, DatabaseError> {
    let asked: Vec<_> = keys
        .iter()
        .map(|key| {
            json!([
                key.user_id,
                key.transaction_id,
                key.tenant,
                key.conflict_amount
            ])
        })
        .collect();
    let found: Vec<i64> = sqlx::query_scalar(KNOWN)
        .bind(sink)
        .bind(json!(asked).to_string())
        .fetch_all(pool)
        .await?;
    Ok(found
        .into_iter()
        .filter_map(|index| usize::try_from(index).ok())
        .collect())
}

pub(super) async fn record(
    pool: &SqlitePool,
    rows: &[(&str, &AlertKey)],
    now: DateTime<Utc>,
) -> Result<(), DatabaseError> {
    let rows: Vec<_> = rows
        .iter()
        .map(|(sink, key)| {
            json!([
                sink,
                key.user_id,
                key.transaction_id,
                key.tenant,
                key.conflict_amount
            ])
        })
        .collect();
    let mut connection = pool.acquire().await?;
    // The setting of a connection, and cheap to repeat. A row that is lost in a power failure would be a second delivery.
    sqlx::query("PRAGMA synchronous = FULL")
        .execute(&mut *connection)
        .await?;
    sqlx::query(
        "INSERT INTO alert_deliveries (sink, user_id, transaction_id, tenant, conflict_amount, delivered_at)
         SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, ?2 FROM json_each(?1) WHERE true
             ON CONFLICT DO NOTHING",
    )
    .bind(json!(rows).to_string())
    .bind(now.timestamp_micros())
    .execute(&mut *connection)
    .await?;
    Ok(())
}

pub(super) async fn purge(
    pool: &SqlitePool,
    before: DateTime<Utc>,
    limit: i64,
) -> Result<u64, DatabaseError> {
    let deleted = sqlx::query(
        "DELETE FROM alert_deliveries
          WHERE (sink, user_id, transaction_id, tenant, conflict_amount) IN (
                SELECT sink, user_id, transaction_id, tenant, conflict_amount FROM alert_deliveries WHERE delivered_at < ?1 LIMIT ?2)",
    )
    .bind(before.timestamp_micros())
    .bind(limit)
    .execute(pool)
    .await?;
    Ok(deleted.rows_affected())
}

#[cfg(test)]
mod tests {
    use sqlx::Row as _;

    use super::*;

    #[tokio::test]
    async fn a_delivery_is_looked_up_by_its_whole_key() {
        let pool = sqlx::sqlite::SqlitePoolOptions::new()
            .max_connections(1)
            .connect("sqlite::memory:")
            .await
            .unwrap();
        migrate(&pool).await.unwrap();
        let plan = sqlx::query(sqlx::AssertSqlSafe(format!("EXPLAIN QUERY PLAN {KNOWN}")))
            .bind("sink")
            .bind("[]")
            .fetch_all(&pool)
            .await
            .unwrap();
        let steps: Vec<String> = plan.iter().map(|step| step.get("detail")).collect();
        let whole = |step: &String| {
            step.contains(
                "(sink=? AND user_id=? AND transaction_id=? AND tenant=? AND conflict_amount=?)",
            )
        };
        assert!(steps.iter().any(whole), "{steps:?}");
    }
}
