//! Brings transactions that the previous version stored to the text that JSON functions can read.
//!
//! Invariant: a row is changed only from its producer's text to the readable text beside that text. Repeating a step, or two
//! replicas doing the same one, changes nothing more.

use std::borrow::Cow;

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use futures_util::{Stream, TryStreamExt as _};
use tollgate_service::database::{Database, DatabaseError};
use tollgate_service::resilience::CallError as _;

use super::{STEP_TIMEOUT, Store};
use crate::queryable::queryable;

/// Rows that a step reads.
const STEP_ROWS: i64 = 2_000;
/// A step ends early once it has read this much.
const STEP_BYTES: usize = 8 * 1024 * 1024;
/// How long after the migration replicas of the previous version may still write, as in a rolling update.
const ROLLOUT: TimeDelta = TimeDelta::hours(1);

/// The key of a row: user, transaction, tenant, amount of a conflict. Empty before the first row.
pub(crate) type Key = (String, String, String, String);
/// A key and the text of the transaction.
type Body = (String, String, String, String, String);

const PAGE: &str = "
SELECT user_id, transaction_id, tenant, conflict_amount, CAST(body AS TEXT) FROM transactions
WHERE (user_id, transaction_id, tenant, conflict_amount) > ($1, $2, $3, $4) AND original IS NULL
ORDER BY user_id, transaction_id, tenant, conflict_amount LIMIT $5";

const REPAIR_POSTGRES: &str = "
UPDATE transactions SET body = $1::json, original = $2
WHERE (user_id, transaction_id, tenant, conflict_amount) = ($3, $4, $5, $6) AND original IS NULL AND CAST(body AS TEXT) = $2";
const REPAIR_SQLITE: &str = "
UPDATE transactions SET body = $1, original = $2
WHERE (user_id, transaction_id, tenant, conflict_amount) = ($3, $4, $5, $6) AND original IS NULL AND body = $2";

/// The rows of a step.
#[derive(Debug, Default)]
struct Page {
    /// The last one; `None` without rows.
    last: Option<Key>,
    unreadable: Vec<(Key, String)>,
}

impl Store {
    /// Whether every row is readable, and no replica of the previous version writes any more.
    pub(crate) async fn bodies_are_done(&self) -> Result<bool, DatabaseError> {
        const DONE: &str = "SELECT done FROM body_repair";
        self.check_migrated()?;
        Ok(match &self.reading {
            Database::Postgres(pool) => sqlx::query_scalar(DONE).fetch_one(pool).await?,
            Database::Sqlite(pool) => sqlx::query_scalar(DONE).fetch_one(pool).await?,
        })
    }

    /// Remembers the end of a pass, unless it began while replicas of the previous version could still write.
    pub(crate) async fn bodies_passed(&self, begun: DateTime<Utc>) -> Result<(), DatabaseError> {
        const PASSED: &str = "UPDATE body_repair SET done = true WHERE since < $1";
        let before = begun - ROLLOUT;
        match &self.writing {
            Database::Postgres(pool) => {
                sqlx::query(PASSED).bind(before).execute(pool).await?;
            }
            Database::Sqlite(pool) => {
                let before = before.to_rfc3339_opts(SecondsFormat::Micros, true);
                sqlx::query(PASSED).bind(before).execute(pool).await?;
            }
        }
        Ok(())
    }

    /// Repairs the rows after `after`, some of them. Returns the key to go on from, `None` at the end, and the number of
    /// rows that were changed.
    pub(crate) async fn repair_bodies(
        &self,
        after: &Key,
    ) -> Result<(Option<Key>, u64), DatabaseError> {
        let step = async {
            let page = self.bodies_after(after).await?;
            let mut repaired = 0;
            for (key, original) in &page.unreadable {
                repaired += self.repair_body(key, original).await?;
            }
            Ok((page.last, repaired))
        };
        match tokio::time::timeout(STEP_TIMEOUT, step).await {
            Ok(done) => done,
            Err(_) => Err(DatabaseError::timed_out(STEP_TIMEOUT)),
        }
    }

    async fn bodies_after(&self, (user, id, tenant, amount): &Key) -> Result<Page, DatabaseError> {
        Ok(match &self.reading {
            Database::Postgres(pool) => {
                let query = sqlx::query_as(PAGE).bind(user).bind(id).bind(tenant);
                collect(query.bind(amount).bind(STEP_ROWS).fetch(pool)).await?
            }
            Database::Sqlite(pool) => {
                let query = sqlx::query_as(PAGE).bind(user).bind(id).bind(tenant);
                collect(query.bind(amount).bind(STEP_ROWS).fetch(pool)).await?
            }
        })
    }

    async fn repair_body(
        &self,
        (user, id, tenant, amount): &Key,
        original: &str,
    ) -> Result<u64, DatabaseError> {
        let body = queryable(original).into_owned();
        Ok(match &self.writing {
            Database::Postgres(pool) => {
                let query = sqlx::query(REPAIR_POSTGRES).bind(body).bind(original);
                let query = query.bind(user).bind(id).bind(tenant).bind(amount);
                query.execute(pool).await?.rows_affected()
            }
            Database::Sqlite(pool) => {
                let query = sqlx::query(REPAIR_SQLITE).bind(body).bind(original);
                let query = query.bind(user).bind(id).bind(tenant).bind(amount);
                query.execute(pool).await?.rows_affected()
            }
        })
    }
}

async fn collect(rows: impl Stream<Item = Result<Body, sqlx::Error>>) -> Result<Page, sqlx::Error> {
    let (mut page, mut bytes) = (Page::default(), 0);
    let mut rows = std::pin::pin!(rows);
    while let Some((user, id, tenant, amount, body)) = rows.try_next().await? {
        let key = (user, id, tenant, amount);
        page.last = Some(key.clone());
        bytes += body.len();
        if matches!(queryable(&body), Cow::Owned(_)) {
            page.unreadable.push((key, body));
        }
        if bytes > STEP_BYTES {
            break;
        }
    }
    Ok(page)
}
