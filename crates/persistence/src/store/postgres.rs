//! PostgreSQL: sets of rows by `unnest`, with one statement, and so one round trip, for each batch.

use chrono::{DateTime, Utc};
use futures_util::TryStreamExt as _;
use sqlx::migrate::Migrator;
use sqlx::postgres::{PgPool, PgPoolOptions, PgRow};
use sqlx::{AssertSqlSafe, Executor as _, Postgres, QueryBuilder, Row as _};
use tollgate_service::database::{self, DatabaseError, Lease};
use tollgate_types::{Amount, Status, Timestamp};

use super::partitions::Months;
use super::query::{self, Dialect};
use super::{Count, Counts, Filter, Rows, UserGroup, unreadable};
use crate::config::PersistenceConfig;
use crate::retention::Expired;
use crate::rows::{Columns, Row, StoredDecision, utc};

pub(super) fn migrations() -> Migrator {
    database::migrations(&[
        (
            "decisions",
            include_str!("../../migrations/postgres/0001_decisions.sql"),
        ),
        (
            "long lists of indicators",
            include_str!("../../migrations/postgres/0002_long_indicator_lists.sql"),
        ),
        (
            "tenants and conflicts",
            include_str!("../../migrations/postgres/0003_tenants_and_conflicts.sql"),
        ),
        (
            "erased users",
            include_str!("../../migrations/postgres/0004_erased_users.sql"),
        ),
        (
            "queryable transactions",
            include_str!("../../migrations/postgres/0005_queryable_transactions.sql"),
        ),
        (
            "months",
            include_str!("../../migrations/postgres/0006_months.sql"),
        ),
    ])
}

/// Read-only connections with a statement timeout on the server.
pub(super) fn readers(writers: &PgPool, config: &PersistenceConfig) -> PgPool {
    let settings = format!(
        "SET default_transaction_read_only = on; SET statement_timeout = {}",
        config.query_timeout_ms
    );
    PgPoolOptions::new()
        .max_connections(config.connections)
        .acquire_timeout(config.query_timeout())
        .after_connect(move |connection, _| {
            let settings = settings.clone();
            Box::pin(async move { connection.execute(AssertSqlSafe(settings)).await.map(drop) })
        })
        .connect_lazy_with(writers.connect_options().as_ref().clone())
}

/// One statement is one database transaction, also if the connection breaks during it. The keys of the rows must differ, and
/// be in ascending order.
const WRITE: &str = r#"
WITH every AS (
    SELECT user_id COLLATE "C" AS user_id, transaction_id COLLATE "C" AS transaction_id, tenant COLLATE "C" AS tenant,
           conflict_amount COLLATE "C" AS conflict_amount, amount, event_time, body, fraud_score, status, fraud_indicators,
           processed_at, ruleset_version, late, contributions, original, place
    -- The setting is there before the first row: the triggers for the previous version look at it.
    FROM set_config('tollgate.keys', 'claimed', true),
         unnest($1::text[], $2::text[], $3::text[], $4::timestamptz[], $5::text[], $6::float8[], $7::text[],
                $8::text[], $9::timestamptz[], $10::text[], $11::bool[], $12::text[], $13::text[], $14::text[], $15::text[])
             WITH ORDINALITY
             AS every (user_id, transaction_id, amount, event_time, body, fraud_score, status, fraud_indicators,
                       processed_at, ruleset_version, late, contributions, tenant, conflict_amount, original, place)
), given AS (
    -- Users who were erased are left out: what they did before is still on the log.
    SELECT * FROM every WHERE NOT EXISTS (
        SELECT FROM erased_users e
        WHERE e.user_hash = encode(sha256(convert_to(
                  (SELECT key FROM erasure_key) || every.tenant || E'\x01' || every.user_id, 'UTF8')), 'hex')
          AND least(every.processed_at, every.event_time) <= e.erased_at)
), claimed AS (
    -- Keys are unique over all months. Those of the rows before the months are in their own table only.
    INSERT INTO decision_keys (user_id, transaction_id, tenant, conflict_amount, event_time)
    SELECT user_id, transaction_id, tenant, conflict_amount, event_time
    FROM given WHERE NOT EXISTS (
        SELECT FROM transactions_before b
        WHERE (b.user_id, b.transaction_id, b.tenant, b.conflict_amount)
            = (given.user_id, given.transaction_id, given.tenant, given.conflict_amount))
    ORDER BY place
    ON CONFLICT DO NOTHING
    RETURNING user_id, transaction_id, tenant, conflict_amount
), fresh AS (
    SELECT * FROM given JOIN claimed USING (user_id, transaction_id, tenant, conflict_amount)
), written AS (
    INSERT INTO transactions (user_id, transaction_id, amount, event_time, body, tenant, conflict_amount, original)
    SELECT user_id, transaction_id, amount::numeric, event_time, body::json, tenant, conflict_amount, original FROM fresh
)
INSERT INTO fraud_analysis (user_id, transaction_id, fraud_score, status, fraud_indicators, event_time,
                            processed_at, ruleset_version, late, contributions, tenant, conflict_amount)
SELECT user_id, transaction_id, fraud_score, status, fraud_indicators, event_time,
       processed_at, ruleset_version, late, contributions::json, tenant, conflict_amount
FROM fresh"#;

pub(super) async fn write(
    pool: &PgPool,
    months: &Months,
    rows: &[Row<'_>],
) -> Result<u64, DatabaseError> {
    let times = rows.iter().map(|row| utc(row.event_time));
    months.ensure(pool, times).await;
    // The first of each key.
    let mut rows: Vec<&Row<'_>> = rows.iter().collect();
    rows.dedup_by(|later, first| later.key() == first.key());
    let insert = sqlx::query(WRITE)
        .bind(
            rows.iter()
                .map(|row| row.user_id.as_ref())
                .collect::<Vec<&str>>(),
        )
        .bind(
            rows.iter()
                .map(|row| row.transaction_id.as_ref())
                .collect::<Vec<&str>>(),
        )
        .bind(
            rows.iter()
                .map(|row| row.amount.to_string())
                .collect::<Vec<_>>(),
        )
        .bind(
            rows.iter()
                .map(|row| utc(row.event_time))
                .collect::<Vec<_>>(),
        )
        .bind(
            rows.iter()
                .map(|row| row.body.as_ref())
                .collect::<Vec<&str>>(),
        )
        .bind(rows.iter().map(|row| row.fraud_score).collect::<Vec<_>>())
        .bind(
            rows.iter()
                .map(|row| row.status.name())
                .collect::<Vec<&str>>(),
        )
        .bind(
            rows.iter()
                .map(|row| row.fraud_indicators.as_str())
                .collect::<Vec<&str>>(),
        )
        .bind(
            rows.iter()
                .map(|row| utc(row.processed_at))
                .collect::<Vec<_>>(),
        )
        .bind(
            rows.iter()
                .map(|row| row.ruleset_version.as_ref())
                .collect::<Vec<&str>>(),
        )
        .bind(rows.iter().map(|row| row.late).collect::<Vec<_>>())
        .bind(
            rows.iter()
                .map(|row| row.contributions.as_str())
                .collect::<Vec<&str>>(),
        )
        .bind(
            rows.iter()
                .map(|row| row.tenant.as_ref())
                .collect::<Vec<&str>>(),
        )
        .bind(
            rows.iter()
                .map(|row| row.conflict_amount.as_str())
                .collect::<Vec<&str>>(),
        )
        .bind(
            rows.iter()
                .map(|row| row.original)
                .collect::<Vec<Option<&str>>>(),
        );
    let lease = Lease::of(pool).await?;
    let result = lease.run(async |connection| insert.execute(connection).await);
    Ok(result.await?.rows_affected())
}

/// Rows that a step of the retention deletes.
const STEP: i64 = 5_000;

/// The conditions on the event time leave out all partitions but those with expired rows.
const DELETE_EXPIRED: &str = r"
WITH old AS (
    (SELECT user_id, transaction_id, tenant, conflict_amount, event_time FROM fraud_analysis
     WHERE event_time < $1 LIMIT $3)
    UNION
    (SELECT user_id, transaction_id, tenant, conflict_amount, event_time FROM fraud_analysis
     WHERE event_time > $2 AND created_at < $1 LIMIT $3)
), gone AS (
    DELETE FROM transactions t USING old
    WHERE (t.user_id, t.transaction_id, t.tenant, t.conflict_amount, t.event_time)
        = (old.user_id, old.transaction_id, old.tenant, old.conflict_amount, old.event_time)
      AND (t.event_time < $1 OR t.event_time > $2)
), forgotten AS (
    DELETE FROM decision_keys k USING old
    WHERE (k.user_id, k.transaction_id, k.tenant, k.conflict_amount)
        = (old.user_id, old.transaction_id, old.tenant, old.conflict_amount)
)
DELETE FROM fraud_analysis a USING old
WHERE (a.user_id, a.transaction_id, a.tenant, a.conflict_amount, a.event_time)
    = (old.user_id, old.transaction_id, old.tenant, old.conflict_amount, old.event_time)
  AND (a.event_time < $1 OR a.event_time > $2)";

pub(super) async fn delete_expired(pool: &PgPool, expired: Expired) -> Result<u64, DatabaseError> {
    let delete = sqlx::query(DELETE_EXPIRED)
        .bind(expired.before)
        .bind(expired.ahead)
        .bind(STEP);
    let lease = Lease::of(pool).await?;
    let result = lease.run(async |connection| delete.execute(connection).await);
    Ok(result.await?.rows_affected())
}

impl Dialect for Postgres {
    const SELECT: &'static str = "
SELECT a.user_id, a.transaction_id, a.tenant, a.conflict_amount, a.fraud_score, a.status, a.fraud_indicators, a.event_time, a.processed_at,
       a.ruleset_version, a.late, a.contributions::text AS contributions, coalesce(t.original, t.body::text) AS body
FROM ";
    // A lookup for each decision: the partition that its event time names is the only one in which it is looked up.
    const TRANSACTION: &'static str = "
CROSS JOIN LATERAL (
    SELECT body, original, amount FROM transactions
    WHERE (user_id, transaction_id, tenant, conflict_amount, event_time)
        = (a.user_id, a.transaction_id, a.tenant, a.conflict_amount, a.event_time)
    LIMIT 1
) t";
    const WITH_ID: (&'static [&'static str], &'static str) = (
        &[
            "(SELECT user_id, transaction_id, tenant, conflict_amount, event_time FROM decision_keys",
            " UNION SELECT user_id, transaction_id, tenant, conflict_amount, event_time FROM fraud_analysis_before",
        ],
        ") k
CROSS JOIN LATERAL (
    SELECT * FROM fraud_analysis
    WHERE (user_id, transaction_id, tenant, conflict_amount, event_time)
        = (k.user_id, k.transaction_id, k.tenant, k.conflict_amount, k.event_time)
    LIMIT 1
) a",
    );
    type Time = DateTime<Utc>;

    fn time(time: Timestamp) -> DateTime<Utc> {
        utc(time)
    }

    fn status(status: Status) -> &'static str {
        match status {
            Status::Approved => "status = 'approved'",
            Status::Review => "status = 'review'",
            Status::Blocked => "status = 'blocked'",
        }
    }
}

pub(super) async fn decisions(
    pool: &PgPool,
    tenant: Option<&str>,
    transaction_id: &str,
    user_id: Option<&str>,
) -> Result<Vec<StoredDecision>, DatabaseError> {
    let query = query::decisions(tenant, transaction_id, user_id);
    Ok(read(pool, query, usize::MAX).await?.decisions)
}

pub(super) async fn conflicts(
    pool: &PgPool,
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
    pool: &PgPool,
    filter: &Filter,
    limit: u32,
    max_bytes: usize,
) -> Result<Rows, DatabaseError> {
    read(pool, query::page(filter, limit), max_bytes).await
}

async fn read(
    pool: &PgPool,
    mut query: QueryBuilder<Postgres>,
    max_bytes: usize,
) -> Result<Rows, DatabaseError> {
    let lease = Lease::of(pool).await?;
    lease
        .run_partly(async |connection| {
            let mut found = Rows::up_to(max_bytes);
            let mut rows = query.build().fetch(connection);
            while let Some(row) = rows.try_next().await? {
                if !found.add(stored(&row)?) {
                    return Ok((found, false));
                }
            }
            Ok((found, true))
        })
        .await
}

/// The decisions on a user, oldest first.
pub(super) fn of_user(tenant: &str, user_id: &str) -> QueryBuilder<Postgres> {
    query::of_user(tenant, user_id)
}

fn of_user_grouped() -> String {
    format!(
        "
SELECT a.status, a.fraud_indicators, count(*) AS decisions, (sum(t.amount) * 10000)::numeric(38, 0)::text AS total,
       max(t.amount)::text AS largest, max(a.fraud_score) AS highest_score, min(a.event_time) AS first,
       max(a.event_time) AS last
FROM fraud_analysis a{}
WHERE a.user_id = $1 AND ($2::text IS NULL OR a.tenant = $2)
GROUP BY a.status, a.fraud_indicators",
        Postgres::TRANSACTION
    )
}

pub(super) async fn user(
    pool: &PgPool,
    tenant: Option<&str>,
    user_id: &str,
) -> Result<Vec<UserGroup>, DatabaseError> {
    let lease = Lease::of(pool).await?;
    let rows = lease.run(async |connection| {
        let query = sqlx::query(AssertSqlSafe(of_user_grouped()));
        let query = query.bind(user_id).bind(tenant);
        query.fetch_all(connection).await
    });
    let rows = rows.await?;
    let read = |row: &PgRow| {
        Ok(UserGroup {
            status: row.try_get("status")?,
            fraud_indicators: row.try_get("fraud_indicators")?,
            decisions: row.try_get("decisions")?,
            total: row
                .try_get::<String, _>("total")?
                .parse()
                .map_err(unreadable)?,
            largest: Amount::parse_decimal(&row.try_get::<String, _>("largest")?)
                .map_err(unreadable)?,
            highest_score: row.try_get("highest_score")?,
            first: timestamp(row.try_get("first")?)?,
            last: timestamp(row.try_get("last")?)?,
        })
    };
    rows.iter().map(read).collect()
}

pub(super) async fn counts(pool: &PgPool, tenant: Option<&str>) -> Result<Counts, DatabaseError> {
    let lease = Lease::of(pool).await?;
    let found = lease.run(async |connection| {
        let rows = sqlx::query("SELECT status, fraud_indicators, score_bucket, sum(decisions)::bigint AS decisions, max(last_processed) AS last_processed FROM decision_counts WHERE ($1::text IS NULL OR tenant = $1) GROUP BY 1, 2, 3 HAVING sum(decisions) > 0")
            .bind(tenant)
            .fetch_all(&mut *connection)
            .await?;
        // Both ends of an index.
        let span = sqlx::query(AssertSqlSafe(format!("SELECT min(event_time) AS first, max(event_time) AS last FROM fraud_analysis{}", query::of_tenant(tenant, "$1::text"))))
            .bind(tenant.unwrap_or_default())
            .fetch_one(connection)
            .await?;
        Ok((rows, span))
    });
    let (rows, span) = found.await?;
    let read = |row: &PgRow| {
        Ok(Count {
            status: row.try_get("status")?,
            fraud_indicators: row.try_get("fraud_indicators")?,
            score_bucket: i64::from(row.try_get::<i16, _>("score_bucket")?),
            decisions: row.try_get("decisions")?,
            last_processed: timestamp(row.try_get("last_processed")?)?,
        })
    };
    let counts = rows
        .iter()
        .map(read)
        .collect::<Result<_, DatabaseError>>()?;
    Ok(Counts {
        counts,
        first: span
            .try_get::<Option<_>, _>("first")?
            .map(timestamp)
            .transpose()?,
        last: span
            .try_get::<Option<_>, _>("last")?
            .map(timestamp)
            .transpose()?,
    })
}

pub(super) fn stored(row: &PgRow) -> Result<StoredDecision, DatabaseError> {
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

fn timestamp(time: DateTime<Utc>) -> Result<Timestamp, DatabaseError> {
    Timestamp::from_micros(time.timestamp_micros()).ok_or_else(|| unreadable("a time out of range"))
}
