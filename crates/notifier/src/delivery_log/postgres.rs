//! The delivery log's statements for PostgreSQL: sets of rows, each idempotent.

use std::borrow::Cow;
use std::collections::HashSet;

use chrono::{DateTime, Utc};
use sqlx::PgPool;
use sqlx::migrate::MigrateError;
use tollgate_service::database::{self, DatabaseError, Lease};

use crate::alert::AlertKey;

pub(super) async fn migrate(pool: &PgPool) -> Result<(), MigrateError> {
    let mut migrator = database::migrations(&[
        (
            "alert deliveries",
            include_str!("../../migrations/postgres/0001_alert_deliveries.sql"),
        ),
        (
            "tenants and conflicts",
            include_str!("../../migrations/postgres/0002_tenants_and_conflicts.sql"),
        ),
    ]);
    migrator.table_name = Cow::Borrowed(super::MIGRATIONS_TABLE);
    migrator.run(pool).await
}

pub(super) async fn delivered(
    pool: &PgPool,
    sink: &str,
    keys: &[&AlertKey],
) -> Result<HashSet<usize>, DatabaseError> {
    let column =
        |of: fn(&AlertKey) -> &str| -> Vec<&str> { keys.iter().map(|key| of(key)).collect() };
    let question = sqlx::query_scalar(
        "SELECT asked.number
           FROM unnest($2::text[], $3::text[], $4::text[], $5::text[]) WITH ORDINALITY
                AS asked (user_id, transaction_id, tenant, conflict_amount, number)
           JOIN alert_deliveries AS known
             ON known.sink = $1
            AND known.user_id = asked.user_id
            AND known.transaction_id = asked.transaction_id
            AND known.tenant = asked.tenant
            AND known.conflict_amount = asked.conflict_amount",
    )
    .bind(sink)
    .bind(column(|key| &key.user_id))
    .bind(column(|key| &key.transaction_id))
    .bind(column(|key| &key.tenant))
    .bind(column(|key| &key.conflict_amount));
    let lease = Lease::of(pool).await?;
    let found = lease.run(async |connection| question.fetch_all(connection).await);
    let found: Vec<i64> = found.await?;
    // Ordinality counts from 1.
    Ok(found
        .into_iter()
        .filter_map(|number| usize::try_from(number - 1).ok())
        .collect())
}

pub(super) async fn record(
    pool: &PgPool,
    rows: &[(&str, &AlertKey)],
    now: DateTime<Utc>,
) -> Result<(), DatabaseError> {
    let sinks: Vec<&str> = rows.iter().map(|(sink, _)| *sink).collect();
    let column =
        |of: fn(&AlertKey) -> &str| -> Vec<&str> { rows.iter().map(|(_, key)| of(key)).collect() };
    let insert = sqlx::query(
        "INSERT INTO alert_deliveries (sink, user_id, transaction_id, tenant, conflict_amount, delivered_at)
         SELECT sink, user_id, transaction_id, tenant, conflict_amount, $6
           FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[])
                AS delivered (sink, user_id, transaction_id, tenant, conflict_amount)
             ON CONFLICT DO NOTHING",
    )
    .bind(sinks)
    .bind(column(|key| &key.user_id))
    .bind(column(|key| &key.transaction_id))
    .bind(column(|key| &key.tenant))
    .bind(column(|key| &key.conflict_amount))
    .bind(now);
    let lease = Lease::of(pool).await?;
    let inserted = lease.run(async |connection| insert.execute(connection).await);
    inserted.await.map(drop)
}

pub(super) async fn purge(
    pool: &PgPool,
    before: DateTime<Utc>,
    limit: i64,
) -> Result<u64, DatabaseError> {
    let delete = sqlx::query(
        "DELETE FROM alert_deliveries
          WHERE ctid = ANY (ARRAY (SELECT ctid FROM alert_deliveries WHERE delivered_at < $1 LIMIT $2))",
    )
    .bind(before)
    .bind(limit);
    let lease = Lease::of(pool).await?;
    let deleted = lease.run(async |connection| delete.execute(connection).await);
    Ok(deleted.await?.rows_affected())
}
