//! The tables of PostgreSQL by month of the event time.
//!
//! Invariant: a missing partition delays and refuses no row. Rows of its month go to the partition for all others, where the
//! retention deletes them one by one instead of dropping them.

use std::collections::{BTreeSet, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use chrono::{DateTime, Datelike as _, Utc};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection, PgPool};
use tollgate_service::database::DatabaseError;

/// The key of the advisory lock of whoever creates or drops partitions: `months` in ASCII.
const LOCK: i64 = 0x6d_6f_6e_74_68_73;
/// Partitions are made for the rows of so many months before the present one, and after it. Timestamps are what callers
/// say: each could otherwise be a month of its own.
const BEHIND: i32 = 36;
const AHEAD: i32 = 1;
/// After a failure to make a partition. Other queries wait for whoever waits for the lock on the tables.
const RETRY: Duration = Duration::from_secs(60);
/// SQLSTATE: invalid object definition.
const OVERLAP: &str = "42P17";
/// SQLSTATE: check violation.
const ROWS_THERE: &str = "23514";
/// SQLSTATE: insufficient privilege, as of a role that does not own the tables.
const NO_RIGHT: &str = "42501";
/// SQLSTATE: lock not available.
const LOCKED: &str = "55P03";
/// Blocks of the table of keys that a step reads: 16 MiB.
const BLOCKS: i64 = 2_048;
/// Queries wait for whoever waits for the lock on the tables.
const SHORT_WAIT: &str = "SET LOCAL lock_timeout = '3s'";

/// A month, counted from January of the year 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Month(i32);

impl Month {
    fn of(time: DateTime<Utc>) -> Self {
        // 0 to 11.
        let month = i32::try_from(time.month0()).unwrap_or_default();
        Self(time.year() * 12 + month)
    }

    /// As in the name of a partition. Years have four digits.
    fn suffix(self) -> String {
        let (year, month) = (self.0.div_euclid(12), self.0.rem_euclid(12) + 1);
        format!("y{year:04}m{month:02}")
    }

    fn of_suffix(text: &str) -> Option<Self> {
        let (year, month) = text.strip_prefix('y')?.split_once('m')?;
        let (year, month): (i32, i32) = (year.parse().ok()?, month.parse().ok()?);
        (1..=12)
            .contains(&month)
            .then_some(Self(year * 12 + month - 1))
    }

    /// Its first day.
    fn date(self) -> String {
        let (year, month) = (self.0.div_euclid(12), self.0.rem_euclid(12) + 1);
        format!("{year:04}-{month:02}-01")
    }

    const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// What is known about the partitions.
#[derive(Debug, Default)]
struct Known {
    /// The months for which nothing is left to do.
    done: HashSet<Month>,
    /// After a failure: when to try again.
    again: Option<Instant>,
}

/// The partitions that this process has made, or found.
#[derive(Debug, Default)]
pub(super) struct Months(Mutex<Known>);

impl Months {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the partitions of these times, and of this month and the next.
    pub(super) async fn ensure(&self, pool: &PgPool, times: impl Iterator<Item = DateTime<Utc>>) {
        let now = Month::of(Utc::now());
        let range = now.0 - BEHIND..=now.0 + AHEAD;
        let missing: BTreeSet<Month> = {
            let known = self.known();
            if known.again.is_some_and(|again| Instant::now() < again) {
                return;
            }
            times
                .map(Month::of)
                .filter(|month| range.contains(&month.0))
                .chain([now, now.next()])
                .filter(|month| !known.done.contains(month))
                .collect()
        };
        for month in missing {
            match create(pool, month).await {
                Ok(()) => {}
                // The range is that of the tables before the months, or such rows are among the others already.
                Err(error) if matches!(code(&error).as_deref(), Some(OVERLAP | ROWS_THERE)) => {
                    tracing::debug!(%error, month = month.date(), "a month has no partition of its own");
                }
                // The writer itself reports an outage of the store, and stores nothing meanwhile.
                Err(error) if is_outage(&error) => {
                    tracing::debug!(%error, "partitions could not be made");
                    return;
                }
                // The rows are stored among the others meanwhile.
                Err(error) => {
                    let month = month.date();
                    tracing::warn!(%error, month, "no partition could be made; the rows of this month are stored among the others, and this is tried again in a minute");
                    self.known().again = Some(Instant::now() + RETRY);
                    return;
                }
            }
            self.known().done.insert(month);
        }
    }
}

/// The SQLSTATE of an error of the server.
fn code(error: &sqlx::Error) -> Option<String> {
    Some(error.as_database_error()?.code()?.into_owned())
}

/// Whether the store as a whole is unavailable, and not only a lock on its tables.
fn is_outage(error: &sqlx::Error) -> bool {
    match code(error) {
        // Connection exceptions, and an operator's intervention as a restart is one.
        Some(code) => code.starts_with("08") || code.starts_with("57"),
        None => true,
    }
}

async fn begin(
    connection: &mut PgConnection,
) -> Result<sqlx::Transaction<'_, sqlx::Postgres>, sqlx::Error> {
    let mut transaction = connection.begin().await?;
    transaction.execute(SHORT_WAIT).await?;
    sqlx::query("SELECT pg_advisory_xact_lock($1)")
        .bind(LOCK)
        .execute(&mut *transaction)
        .await?;
    Ok(transaction)
}

/// Another replica may do the same at the same time.
async fn create(pool: &PgPool, month: Month) -> Result<(), sqlx::Error> {
    let mut connection = pool.acquire().await?;
    let mut transaction = begin(&mut connection).await?;
    let (suffix, from, to) = (month.suffix(), month.date(), month.next().date());
    for (table, index) in [("transactions", true), ("fraud_analysis", false)] {
        let there: bool = sqlx::query_scalar("SELECT to_regclass($1) IS NOT NULL")
            .bind(format!("{table}_{suffix}"))
            .fetch_one(&mut *transaction)
            .await?;
        if there {
            continue;
        }
        let create = format!(
            "CREATE TABLE {table}_{suffix} PARTITION OF {table} \
             FOR VALUES FROM ('{from} 00:00:00+00') TO ('{to} 00:00:00+00')"
        );
        transaction.execute(AssertSqlSafe(create)).await?;
        if index {
            // Not unique: keys are unique over all months by decision_keys.
            let create = format!(
                "CREATE INDEX {table}_{suffix}_by_key \
                 ON {table}_{suffix} (user_id, transaction_id, tenant, conflict_amount)"
            );
            transaction.execute(AssertSqlSafe(create)).await?;
        }
    }
    transaction.commit().await
}

/// Drops the oldest month that ended before this time. Returns the number of its decisions; `None` when none is left, or
/// when it cannot be dropped, as while others use the tables for long: then rows are deleted singly.
pub(super) async fn drop_oldest(
    pool: &PgPool,
    before: DateTime<Utc>,
) -> Result<Option<u64>, DatabaseError> {
    const PARTITIONS: &str = "
SELECT substr(c.relname, 16) FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
WHERE i.inhparent = 'fraud_analysis'::regclass AND c.relname LIKE 'fraud\\_analysis\\_y%' ORDER BY c.relname";
    let mut connection = pool.acquire().await?;
    let suffixes: Vec<String> = sqlx::query_scalar(PARTITIONS)
        .fetch_all(&mut *connection)
        .await?;
    let mut months = suffixes
        .iter()
        .filter_map(|suffix| Month::of_suffix(suffix));
    let Some(oldest) = months.find(|month| month.next() <= Month::of(before)) else {
        return Ok(None);
    };
    match drop_month(&mut connection, oldest).await {
        Ok(decisions) => {
            let month = oldest.date();
            tracing::info!(
                month,
                decisions,
                "a month of decisions expired and was dropped"
            );
            Ok(Some(decisions))
        }
        Err(error) if matches!(code(&error).as_deref(), Some(LOCKED | NO_RIGHT)) => {
            let month = oldest.date();
            tracing::info!(%error, month, "a month of decisions expired, and could not be dropped: its rows are deleted singly");
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

async fn drop_month(connection: &mut PgConnection, month: Month) -> Result<u64, sqlx::Error> {
    let mut transaction = begin(connection).await?;
    let (suffix, date, next) = (month.suffix(), month.date(), month.next().date());
    let drop = format!("DROP TABLE IF EXISTS transactions_{suffix}, fraud_analysis_{suffix}");
    transaction.execute(AssertSqlSafe(drop)).await?;
    let forget = format!("DELETE FROM decision_counts WHERE month = '{date}' RETURNING decisions");
    let counts: Vec<i64> = sqlx::query_scalar(AssertSqlSafe(forget))
        .fetch_all(&mut *transaction)
        .await?;
    let keys = format!(
        "INSERT INTO expired_keys AS kept (id, before, block) VALUES (1, '{next} 00:00:00+00', 0) \
         ON CONFLICT (id) DO UPDATE SET before = greatest(kept.before, excluded.before), block = 0"
    );
    transaction.execute(AssertSqlSafe(keys)).await?;
    transaction.commit().await?;
    Ok(u64::try_from(counts.iter().sum::<i64>()).unwrap_or_default())
}

/// Deletes some keys of dropped months, in the order of the table. False when none are left.
pub(super) async fn forget_keys(pool: &PgPool) -> Result<bool, DatabaseError> {
    let mut connection = pool.acquire().await?;
    let mut transaction = connection.begin().await?;
    let expired: Option<(DateTime<Utc>, i64, i64)> = sqlx::query_as(
        "SELECT before, block, pg_relation_size('decision_keys') / current_setting('block_size')::bigint \
         FROM expired_keys FOR UPDATE",
    )
    .fetch_optional(&mut *transaction)
    .await?;
    let Some((before, block, end)) = expired else {
        return Ok(false);
    };
    if block >= end {
        transaction.execute("DELETE FROM expired_keys").await?;
        transaction.commit().await?;
        return Ok(false);
    }
    let next = block.saturating_add(BLOCKS);
    sqlx::query(
        "DELETE FROM decision_keys WHERE ctid >= format('(%s,0)', $1::bigint)::tid \
         AND ctid < format('(%s,0)', $2::bigint)::tid AND event_time < $3",
    )
    .bind(block)
    .bind(next)
    .bind(before)
    .execute(&mut *transaction)
    .await?;
    sqlx::query("UPDATE expired_keys SET block = $1")
        .bind(next)
        .execute(&mut *transaction)
        .await?;
    transaction.commit().await?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_month_is_read_from_the_name_of_its_partition() {
        for (time, suffix, date, next) in [
            (
                "2026-12-31T23:59:59Z",
                "y2026m12",
                "2026-12-01",
                "2027-01-01",
            ),
            (
                "2027-01-01T00:00:00Z",
                "y2027m01",
                "2027-01-01",
                "2027-02-01",
            ),
            (
                "0000-02-01T00:00:00Z",
                "y0000m02",
                "0000-02-01",
                "0000-03-01",
            ),
        ] {
            let month = Month::of(time.parse().unwrap());
            assert_eq!((month.suffix(), month.date()), (suffix.into(), date.into()));
            assert_eq!(month.next().date(), next);
            assert_eq!(Month::of_suffix(suffix), Some(month));
        }
        for text in ["", "other", "y2026", "y2026m13", "yxm1", "before"] {
            assert_eq!(Month::of_suffix(text), None, "{text}");
        }
    }
}
