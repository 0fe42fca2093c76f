//! What is stored of decisions that arrived again, to find those that differ.

use sqlx::PgPool;
use sqlx::sqlite::SqlitePool;
use tollgate_service::database::{Database, DatabaseError};
use tollgate_service::resilience::CallError as _;

use super::{PING, Store};
use crate::rows::Row;

/// The place of a row among those that arrived, and what is stored under its key: score, status and indicators.
type Known = (i64, f64, String, String);

/// A lookup for each row: by the key of the rows before the months, and by key and event time in the partition of the month.
const KNOWN_POSTGRES: &str = "
SELECT arrived.place - 1, a.fraud_score, a.status, a.fraud_indicators
FROM unnest($1::text[], $2::text[], $3::text[], $4::text[]) WITH ORDINALITY
         AS arrived (user_id, transaction_id, tenant, conflict_amount, place)
     CROSS JOIN LATERAL (
         (SELECT event_time FROM decision_keys
          WHERE (user_id, transaction_id, tenant, conflict_amount)
              = (arrived.user_id, arrived.transaction_id, arrived.tenant, arrived.conflict_amount))
         UNION ALL
         (SELECT event_time FROM fraud_analysis_before
          WHERE (user_id, transaction_id, tenant, conflict_amount)
              = (arrived.user_id, arrived.transaction_id, arrived.tenant, arrived.conflict_amount))
         LIMIT 1
     ) AS known
     CROSS JOIN LATERAL (
         SELECT fraud_score, status, fraud_indicators FROM fraud_analysis
         WHERE (user_id, transaction_id, tenant, conflict_amount, event_time)
             = (arrived.user_id, arrived.transaction_id, arrived.tenant, arrived.conflict_amount, known.event_time)
         LIMIT 1
     ) AS a";
const KNOWN_SQLITE: &str = "
SELECT CAST(arrived.key AS INTEGER), a.fraud_score, a.status, a.fraud_indicators
FROM json_each($1) AS arrived CROSS JOIN fraud_analysis a
     ON (a.user_id, a.transaction_id, a.tenant, a.conflict_amount)
      = (arrived.value->>0, arrived.value->>1, arrived.value->>2, arrived.value->>3)";

/// Decisions that differ from the stored ones on the same transactions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Different {
    /// How many.
    pub(crate) decisions: u64,
    /// The transaction of one of them, its stored status and the one that arrived.
    pub(crate) transaction_id: String,
    pub(crate) stored: String,
    pub(crate) arrived: &'static str,
}

impl Store {
    /// Those of the rows whose stored decision has another score, status or list of indicators. Makes one attempt.
    pub(crate) async fn different(
        &self,
        rows: &[Row<'_>],
    ) -> Result<Option<Different>, DatabaseError> {
        let known = async {
            match &self.writing {
                Database::Postgres(pool) => known_postgres(pool, rows).await,
                Database::Sqlite(pool) => known_sqlite(pool, rows).await,
            }
        };
        let known = tokio::time::timeout(PING, known)
            .await
            .map_err(|_| DatabaseError::timed_out(PING))??;
        Ok(differences(rows, &known))
    }
}

fn differences(rows: &[Row<'_>], known: &[Known]) -> Option<Different> {
    let mut found = known
        .iter()
        .filter_map(|(place, score, status, indicators)| {
            let row = rows.get(usize::try_from(*place).ok()?)?;
            let is_same = row.fraud_score.to_bits() == score.to_bits()
                && row.status.name() == status
                && row.fraud_indicators == *indicators;
            (!is_same).then_some((row, status))
        });
    let (row, status) = found.next()?;
    let (transaction_id, stored) = (row.transaction_id.to_string(), status.clone());
    Some(Different {
        transaction_id,
        stored,
        arrived: row.status.name(),
        decisions: 1 + found.count() as u64,
    })
}

async fn known_postgres(pool: &PgPool, rows: &[Row<'_>]) -> Result<Vec<Known>, sqlx::Error> {
    let column = |of: fn(&(&str, &str, &str, &str)) -> String| -> Vec<String> {
        rows.iter().map(|row| of(&row.key())).collect()
    };
    sqlx::query_as(KNOWN_POSTGRES)
        .bind(column(|key| key.0.to_owned()))
        .bind(column(|key| key.1.to_owned()))
        .bind(column(|key| key.2.to_owned()))
        .bind(column(|key| key.3.to_owned()))
        .fetch_all(pool)
        .await
}

async fn known_sqlite(pool: &SqlitePool, rows: &[Row<'_>]) -> Result<Vec<Known>, sqlx::Error> {
    let keys: Vec<_> = rows.iter().map(Row::key).collect();
    // Texts can always be serialised.
    let keys = serde_json::to_string(&keys).unwrap_or_default();
    sqlx::query_as(KNOWN_SQLITE)
        .bind(keys)
        .fetch_all(pool)
        .await
}
