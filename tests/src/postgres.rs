//! A database of one's own on the PostgreSQL of `TEST_POSTGRES_URL`, dropped at the end.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::Context as _;
use sqlx::postgres::{PgPool, PgPoolOptions};
use sqlx::{Executor as _, Row as _};

use crate::offline::{Key, Scored};

static DATABASES: AtomicU32 = AtomicU32::new(0);

/// A database of one test.
#[derive(Debug)]
pub struct TestStore {
    admin_url: String,
    name: String,
    url: String,
    pool: PgPool,
}

impl TestStore {
    /// Makes it.
    ///
    /// # Errors
    /// Where PostgreSQL is not there.
    pub async fn create(test: &str) -> anyhow::Result<Self> {
        let admin_url = crate::variable("TEST_POSTGRES_URL")?;
        let number = DATABASES.fetch_add(1, Ordering::Relaxed);
        let name = format!("tollgate_{test}_{}_{number}", std::process::id());
        execute(&admin_url, format!("CREATE DATABASE \"{name}\"")).await?;
        let (server, _) = admin_url
            .rsplit_once('/')
            .context("TEST_POSTGRES_URL: expected postgres://…/database")?;
        let url = format!("{server}/{name}");
        let pool = PgPoolOptions::new().max_connections(2).connect_lazy(&url)?;
        Ok(Self {
            admin_url,
            name,
            url,
            pool,
        })
    }

    /// Where it is.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Rows of `transactions` and of `fraud_analysis`. None before the tables are made.
    ///
    /// # Errors
    /// Where the store does not answer.
    pub async fn counts(&self) -> anyhow::Result<(usize, usize)> {
        let there: bool = sqlx::query_scalar("SELECT to_regclass('fraud_analysis') IS NOT NULL")
            .fetch_one(&self.pool)
            .await?;
        if !there {
            return Ok((0, 0));
        }
        let row = sqlx::query(
            "SELECT (SELECT count(*) FROM transactions) AS transactions, (SELECT count(*) FROM fraud_analysis) AS analyses",
        )
        .fetch_one(&self.pool)
        .await?;
        let count =
            |name| -> anyhow::Result<usize> { Ok(usize::try_from(row.try_get::<i64, _>(name)?)?) };
        Ok((count("transactions")?, count("analyses")?))
    }

    /// Keys of `transactions`, without those of conflicts. A repeated key is an error.
    ///
    /// # Errors
    /// Where the store does not answer.
    pub async fn transactions(&self) -> anyhow::Result<HashMap<Key, String>> {
        let rows =
            sqlx::query("SELECT user_id, transaction_id, amount::text AS amount FROM transactions WHERE conflict_amount = ''")
                .fetch_all(&self.pool)
                .await?;
        let mut all = HashMap::with_capacity(rows.len());
        for row in rows {
            let key = (row.try_get("user_id")?, row.try_get("transaction_id")?);
            let twice = all.insert(key, row.try_get("amount")?).is_some();
            anyhow::ensure!(!twice, "a row of transactions is repeated");
        }
        Ok(all)
    }

    /// Rows of `fraud_analysis`, without those of conflicts. A repeated key is an error.
    ///
    /// # Errors
    /// Where the store does not answer, or holds what cannot be read.
    pub async fn analyses(&self) -> anyhow::Result<HashMap<Key, Scored>> {
        let rows = sqlx::query("SELECT user_id, transaction_id, fraud_score, status, fraud_indicators, late FROM fraud_analysis WHERE conflict_amount = ''")
            .fetch_all(&self.pool)
            .await?;
        let mut all = HashMap::with_capacity(rows.len());
        for row in rows {
            let status: String = row.try_get("status")?;
            let names: String = row.try_get("fraud_indicators")?;
            let score = row.try_get("fraud_score")?;
            let scored = Scored::of_row(score, &status, &names, row.try_get("late")?)?;
            let twice = all
                .insert(
                    (row.try_get("user_id")?, row.try_get("transaction_id")?),
                    scored,
                )
                .is_some();
            anyhow::ensure!(!twice, "a row of fraud_analysis is repeated");
        }
        Ok(all)
    }

    /// The transaction as it was stored, as text.
    ///
    /// # Errors
    /// Where it is not there.
    pub async fn body(&self, user_id: &str, transaction_id: &str) -> anyhow::Result<String> {
        let body = sqlx::query_scalar(
            "SELECT coalesce(original, body::text) FROM transactions WHERE user_id = $1 AND transaction_id = $2 AND conflict_amount = ''",
        )
        .bind(user_id)
        .bind(transaction_id)
        .fetch_one(&self.pool)
        .await?;
        Ok(body)
    }
}

async fn execute(url: &str, statement: String) -> anyhow::Result<()> {
    let pool = PgPoolOptions::new()
        .max_connections(1)
        .connect(url)
        .await
        .context("no PostgreSQL at TEST_POSTGRES_URL")?;
    let result = pool.execute(sqlx::AssertSqlSafe(statement)).await;
    pool.close().await;
    result.map(drop).map_err(Into::into)
}

impl Drop for TestStore {
    fn drop(&mut self) {
        let (url, drop) = (
            self.admin_url.clone(),
            format!("DROP DATABASE IF EXISTS \"{}\" WITH (FORCE)", self.name),
        );
        if let Err(error) = crate::kafka::blocking(execute(&url, drop)) {
            eprintln!("database {} stays: {error:#}", self.name);
        }
    }
}
