//! SQLite, the embedded default: inserts of several rows in a few sizes, so that statements are prepared once.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::LazyLock;

use chrono::{DateTime, SecondsFormat, Utc};
use futures_util::TryStreamExt as _;
use sqlx::migrate::Migrator;
use sqlx::sqlite::{SqlitePool, SqlitePoolOptions, SqliteRow};
use sqlx::{
    AssertSqlSafe, Connection as _, QueryBuilder, Row as _, SqlSafeStr as _, SqlStr, Sqlite,
    SqliteConnection,
};
use tollgate_service::database::{self, DatabaseError};
use tollgate_types::{Amount, Status, Timestamp};

use super::erasure;
use super::query::{self, Dialect};
use super::{Count, Counts, Filter, Rows, UserGroup, unreadable};
use crate::config::PersistenceConfig;
use crate::retention::Expired;
use crate::rows::{Columns, Row, StoredDecision, fixed_width};

/// Rows that a reader's connection reads before they are asked for. A row may be as large as a record.
const ROWS_AHEAD: usize = 4;

pub(super) fn migrations() -> Migrator {
    database::migrations(&[
        (
            "decisions",
            include_str!("../../migrations/sqlite/0001_decisions.sql"),
        ),
        (
            "tenants and conflicts",
            include_str!("../../migrations/sqlite/0002_tenants_and_conflicts.sql"),
        ),
        (
            "erased users",
            include_str!("../../migrations/sqlite/0003_erased_users.sql"),
        ),
        (
            "queryable transactions",
            include_str!("../../migrations/sqlite/0004_queryable_transactions.sql"),
        ),
    ])
}

/// Connections with more memory and fewer checkpoints than by default: users come in any order, and a batch touches pages
/// all over the indexes. Measured: twice as many rows a second.
pub(super) fn writers(opened: &SqlitePool) -> SqlitePool {
    let options = opened.connect_options().as_ref().clone();
    SqlitePoolOptions::new()
        .max_connections(opened.options().get_max_connections())
        .acquire_timeout(opened.options().get_acquire_timeout())
        .connect_lazy_with(
            options
                .pragma("cache_size", "-65536")
                .pragma("wal_autocheckpoint", "10000"),
        )
}

pub(super) fn readers(writers: &SqlitePool, config: &PersistenceConfig) -> SqlitePool {
    SqlitePoolOptions::new()
        .max_connections(config.connections)
        .acquire_timeout(config.query_timeout())
        .connect_lazy_with(
            writers
                .connect_options()
                .as_ref()
                .clone()
                .row_buffer_size(ROWS_AHEAD),
        )
}

/// The two inserts for one number of rows.
struct Inserts {
    rows: usize,
    transactions: SqlStr,
    fraud_analysis: SqlStr,
}

static INSERTS: LazyLock<[Inserts; 3]> = LazyLock::new(|| [100, 10, 1].map(Inserts::of));

impl Inserts {
    fn of(rows: usize) -> Self {
        let insert = |into: &str, columns: usize| {
            let one = format!("({})", vec!["?"; columns].join(", "));
            let mut sql = into.to_owned();
            for row in 0..rows {
                // Writing to memory cannot fail.
                let _ = write!(sql, "{} {one}", if row == 0 { " VALUES" } else { "," });
            }
            AssertSqlSafe(sql + " ON CONFLICT DO NOTHING").into_sql_str()
        };
        Self {
            rows,
            transactions: insert(
                "INSERT INTO transactions (user_id, transaction_id, amount, event_time, body, tenant, conflict_amount, original)",
                8,
            ),
            fraud_analysis: insert(
                "INSERT INTO fraud_analysis (user_id, transaction_id, fraud_score, status, fraud_indicators, event_time, \
                 processed_at, ruleset_version, late, contributions, tenant, conflict_amount)",
                12,
            ),
        }
    }
}

pub(super) async fn write(pool: &SqlitePool, rows: &[Row<'_>]) -> Result<u64, DatabaseError> {
    let mut connection = pool.acquire().await?;
    let result = write_at_once(&mut connection, rows).await;
    if result.is_err() {
        // After some errors, such as a full disk, SQLite itself has rolled back, which the client library does not notice:
        // this connection is not reused.
        let _ = connection.close().await;
    }
    result
}

async fn write_at_once(
    connection: &mut SqliteConnection,
    rows: &[Row<'_>],
) -> Result<u64, DatabaseError> {
    // Takes the write lock here: waiting for it at the first insert could deadlock.
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
    let kept = match erasure::without_erased(&mut transaction, rows).await? {
        Some(kept) => kept,
        None => rows.iter().collect(),
    };
    let (mut stored, mut rest) = (0, kept.as_slice());
    for inserts in INSERTS.iter() {
        while let Some((some, others)) = rest.split_at_checked(inserts.rows) {
            stored += insert(&mut transaction, inserts, some).await?;
            rest = others;
            if rest.is_empty() {
                break;
            }
        }
    }
    transaction.commit().await?;
    Ok(stored)
}

async fn insert(
    connection: &mut SqliteConnection,
    inserts: &Inserts,
    rows: &[&Row<'_>],
) -> Result<u64, sqlx::Error> {
    let mut query = sqlx::query(inserts.transactions.clone());
    for row in rows {
        query = query
            .bind(row.user_id.as_ref())
            .bind(row.transaction_id.as_ref())
            .bind(row.amount.to_string())
            .bind(fixed_width(row.event_time))
            .bind(row.body.as_ref())
            .bind(row.tenant.as_ref())
            .bind(row.conflict_amount.as_str())
            .bind(row.original);
    }
    query.execute(&mut *connection).await?;
    let mut query = sqlx::query(inserts.fraud_analysis.clone());
    for row in rows {
        query = query
            .bind(row.user_id.as_ref())
            .bind(row.transaction_id.as_ref())
            .bind(row.fraud_score)
            .bind(row.status.name())
            .bind(row.fraud_indicators.as_str())
            .bind(fixed_width(row.event_time))
            .bind(fixed_width(row.processed_at))
            .bind(row.ruleset_version.as_ref())
            .bind(row.late)
            .bind(row.contributions.as_str())
            .bind(row.tenant.as_ref())
            .bind(row.conflict_amount.as_str());
    }
    Ok(query.execute(&mut *connection).await?.rows_affected())
}

/// Rows that a step of the retention deletes, at most twice. The writer waits for a step.
const STEP: i64 = 500;

pub(super) async fn delete_expired(
    pool: &SqlitePool,
    expired: Expired,
) -> Result<u64, DatabaseError> {
    let text = |time: DateTime<Utc>| time.to_rfc3339_opts(SecondsFormat::Micros, true);
    let mut connection = pool.acquire().await?;
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
    let mut deleted = 0;
    for condition in ["event_time < ?1", "event_time > ?2 AND created_at < ?1"] {
        for table in ["transactions", "fraud_analysis"] {
            let sql = format!(
                "DELETE FROM {table} WHERE (user_id, transaction_id, tenant, conflict_amount) IN ( \
                 SELECT user_id, transaction_id, tenant, conflict_amount FROM fraud_analysis WHERE {condition} AND ?2 = ?2 \
                 ORDER BY event_time, user_id, transaction_id, conflict_amount, tenant LIMIT ?3)"
            );
            let done = sqlx::query(AssertSqlSafe(sql))
                .bind(text(expired.before))
                .bind(text(expired.ahead))
                .bind(STEP)
                .execute(&mut *transaction)
                .await?;
            // The rows of `transactions` are deleted first, and are as many.
            deleted += u64::from(table == "fraud_analysis") * done.rows_affected();
        }
    }
    transaction.commit().await?;
    Ok(deleted)
}

impl Dialect for Sqlite {
    const SELECT: &'static str = "
SELECT a.user_id, a.transaction_id, a.tenant, a.conflict_amount, a.fraud_score, a.status, a.fraud_indicators, a.event_time, a.processed_at,
       a.ruleset_version, a.late, a.contributions, coalesce(t.original, t.body) AS body
FROM ";
    const TRANSACTION: &'static str =
        " JOIN transactions t USING (user_id, transaction_id, tenant, conflict_amount)";
    const WITH_ID: (&'static [&'static str], &'static str) =
        (&["(SELECT * FROM fraud_analysis"], ") a");
    type Time = String;

    fn time(time: Timestamp) -> String {
        fixed_width(time)
    }

    fn status(status: Status) -> &'static str {
        match status {
            Status::Approved => "status = 'approved'",
            // SQLite uses the index of alerts only if its condition is in the statement.
            Status::Review => "status = 'review' AND status <> 'approved'",
            Status::Blocked => "status = 'blocked' AND status <> 'approved'",
        }
    }
}

pub(super) async fn decisions(
    pool: &SqlitePool,
    tenant: Option<&str>,
    transaction_id: &str,
    user_id: Option<&str>,
) -> Result<Vec<StoredDecision>, DatabaseError> {
    let query = query::decisions(tenant, transaction_id, user_id);
    Ok(read(pool, query, usize::MAX).await?.decisions)
}

pub(super) async fn conflicts(
    pool: &SqlitePool,
    tenant: &str,
    transaction_id: &str,
    user_id: &str,
    limit: u32,
    max_bytes: usize,
) -> Result<Rows, DatabaseError> {
    let query = query::conflicts(tenant, transaction_id, user_id, limit);
    read(pool, query, max_bytes).await
}

pub(super) async fn page(
    pool: &SqlitePool,
    filter: &Filter,
    limit: u32,
    max_bytes: usize,
) -> Result<Rows, DatabaseError> {
    read(pool, query::page(filter, limit), max_bytes).await
}

async fn read(
    pool: &SqlitePool,
    mut query: QueryBuilder<Sqlite>,
    max_bytes: usize,
) -> Result<Rows, DatabaseError> {
    let mut found = Rows::up_to(max_bytes);
    let mut rows = query.build().fetch(pool);
    while let Some(row) = rows.try_next().await? {
        if !found.add(stored(&row)?) {
            break;
        }
    }
    drop(rows);
    Ok(found)
}

/// The decisions on a user, oldest first.
pub(super) fn of_user(tenant: &str, user_id: &str) -> QueryBuilder<Sqlite> {
    query::of_user(tenant, user_id)
}

const USER: &str = "
SELECT a.status, a.fraud_indicators, a.fraud_score, a.event_time, t.amount
FROM fraud_analysis a JOIN transactions t USING (user_id, transaction_id, tenant, conflict_amount)
WHERE a.user_id = ?1 AND (?2 IS NULL OR a.tenant = ?2)";

/// Summed here: SQLite has no exact decimals.
pub(super) async fn user(
    pool: &SqlitePool,
    tenant: Option<&str>,
    user_id: &str,
) -> Result<Vec<UserGroup>, DatabaseError> {
    let mut groups: BTreeMap<(String, String), UserGroup> = BTreeMap::new();
    let query = sqlx::query(USER).bind(user_id).bind(tenant);
    for row in query.fetch_all(pool).await? {
        let (status, fraud_indicators): (String, String) =
            (row.try_get("status")?, row.try_get("fraud_indicators")?);
        let amount = Amount::parse_decimal(row.try_get("amount")?).map_err(unreadable)?;
        let (score, time): (f64, Timestamp) = (
            row.try_get("fraud_score")?,
            timestamp(row.try_get("event_time")?)?,
        );
        let group = groups
            .entry((status.clone(), fraud_indicators.clone()))
            .or_insert_with(|| UserGroup {
                status,
                fraud_indicators,
                decisions: 0,
                total: 0,
                largest: amount,
                highest_score: score,
                first: time,
                last: time,
            });
        group.decisions += 1;
        group.total += i128::from(amount.ten_thousandths());
        group.largest = group.largest.max(amount);
        group.highest_score = group.highest_score.max(score);
        group.first = group.first.min(time);
        group.last = group.last.max(time);
    }
    Ok(groups.into_values().collect())
}

pub(super) async fn counts(
    pool: &SqlitePool,
    tenant: Option<&str>,
) -> Result<Counts, DatabaseError> {
    let rows = sqlx::query("SELECT status, fraud_indicators, score_bucket, decisions, last_processed FROM decision_counts WHERE (?1 IS NULL OR tenant = ?1) AND decisions > 0")
        .bind(tenant)
        .fetch_all(pool)
        .await?;
    let read = |row: &SqliteRow| {
        Ok(Count {
            status: row.try_get("status")?,
            fraud_indicators: row.try_get("fraud_indicators")?,
            score_bucket: row.try_get("score_bucket")?,
            decisions: row.try_get("decisions")?,
            last_processed: timestamp(row.try_get("last_processed")?)?,
        })
    };
    let counts = rows
        .iter()
        .map(read)
        .collect::<Result<_, DatabaseError>>()?;
    // One at a time, each is one end of an index; together they would be a scan.
    let of = query::of_tenant(tenant, "?1");
    let span = sqlx::query(AssertSqlSafe(format!("SELECT (SELECT min(event_time) FROM fraud_analysis{of}) AS first, (SELECT max(event_time) FROM fraud_analysis{of}) AS last")))
        .bind(tenant.unwrap_or_default())
        .fetch_one(pool)
        .await?;
    Ok(Counts {
        counts,
        first: span
            .try_get::<Option<&str>, _>("first")?
            .map(timestamp)
            .transpose()?,
        last: span
            .try_get::<Option<&str>, _>("last")?
            .map(timestamp)
            .transpose()?,
    })
}

pub(super) fn stored(row: &SqliteRow) -> Result<StoredDecision, DatabaseError> {
    StoredDecision::new(Columns {
        user_id: row.try_get("user_id")?,
        transaction_id: row.try_get("transaction_id")?,
        tenant: row.try_get("tenant")?,
        conflict_amount: row.try_get("conflict_amount")?,
        event_time: timestamp(row.try_get("event_time")?)?,
        fraud_score: row.try_get("fraud_score")?,
        status: row.try_get("status")?,
        fraud_indicators: row.try_get("fraud_indicators")?,
        processed_at: timestamp(row.try_get("processed_at")?)?,
        ruleset_version: row.try_get("ruleset_version")?,
        late: row.try_get("late")?,
        contributions: row.try_get("contributions")?,
        body: row.try_get("body")?,
    })
    .map_err(unreadable)
}

fn timestamp(text: &str) -> Result<Timestamp, DatabaseError> {
    Timestamp::parse(text).map_err(unreadable)
}
