//! The store behind a service: PostgreSQL in production, a SQLite file where nothing is to be installed.

use std::str::FromStr;
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous};

use crate::config::ConfigError;
use crate::secret::redacted_url;

/// A pool of connections to one of the two stores.
#[derive(Debug, Clone)]
pub enum Database {
    /// PostgreSQL.
    Postgres(PgPool),
    /// A SQLite file.
    Sqlite(SqlitePool),
}

/// What a caller does about a failed statement.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    /// Try again: the store is away, busy or chose this transaction as a victim.
    #[error("the store is not available: {0}")]
    Unavailable(#[source] sqlx::Error),
    /// Never try again: the store refuses these rows for what they are.
    #[error("the store refuses a row: {0}")]
    Refused(#[source] sqlx::Error),
    /// Stop: the store is not the one this version works with.
    #[error("the store does not fit: {0}")]
    Broken(#[source] sqlx::Error),
}

impl From<sqlx::Error> for DatabaseError {
    /// By SQLSTATE class for PostgreSQL (Appendix A of its manual), by primary result code for SQLite.
    fn from(error: sqlx::Error) -> Self {
        let code = match &error {
            sqlx::Error::Database(database) => database.code().map(|code| code.into_owned()),
            sqlx::Error::Io(_) | sqlx::Error::Tls(_) | sqlx::Error::Protocol(_) | sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed | sqlx::Error::WorkerCrashed => {
                return Self::Unavailable(error);
            }
            sqlx::Error::Encode(_) => return Self::Refused(error),
            _ => return Self::Broken(error),
        };
        match code.as_deref().unwrap_or_default() {
            // data exception, integrity violation, row too large, statement too complex
            code if code.starts_with("22") || code.starts_with("23") || code.starts_with("54") => Self::Refused(error),
            // syntax or access rule, invalid schema or catalogue, undefined feature
            code if ["42", "3F", "3D", "0A", "28"].iter().any(|class| code.starts_with(class)) => Self::Broken(error),
            // SQLITE_ERROR, SQLITE_CORRUPT, SQLITE_MISMATCH, SQLITE_MISUSE, SQLITE_NOTADB
            "1" | "11" | "21" | "26" => Self::Broken(error),
            // SQLITE_TOOBIG, SQLITE_CONSTRAINT and its extended codes, SQLITE_MISMATCH
            "18" | "19" | "20" | "275" | "787" | "1299" | "1555" | "2067" => Self::Refused(error),
            _ => Self::Unavailable(error),
        }
    }
}

impl Database {
    /// A pool for `url`. No connection is made yet for PostgreSQL, so that a service starts while its store is away.
    ///
    /// # Errors
    /// Where the URL is none of the two, or the SQLite file cannot be made.
    pub async fn open(setting: &str, url: &str, connections: u32) -> anyhow::Result<Self> {
        let invalid = |reason: String| ConfigError::invalid(setting, format!("{}: {reason}", redacted_url(url)));
        if url.starts_with("postgres://") || url.starts_with("postgresql://") {
            let options = PgConnectOptions::from_str(url).map_err(|error| invalid(error.to_string()))?;
            let pool = PgPoolOptions::new()
                .max_connections(connections)
                .acquire_timeout(Duration::from_secs(5))
                .connect_lazy_with(options.application_name("tollgate"));
            return Ok(Self::Postgres(pool));
        }
        if !url.starts_with("sqlite:") {
            return Err(invalid("expected postgres://… or sqlite://…".to_owned()).into());
        }
        let options = SqliteConnectOptions::from_str(url)
            .map_err(|error| invalid(error.to_string()))?
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Normal)
            .busy_timeout(Duration::from_secs(5));
        let pool = SqlitePoolOptions::new()
            .max_connections(connections)
            .acquire_timeout(Duration::from_secs(5))
            .connect_with(options)
            .await
            .map_err(|error| invalid(error.to_string()))?;
        Ok(Self::Sqlite(pool))
    }

    /// Whether the store answers.
    ///
    /// # Errors
    /// Where it does not.
    pub async fn ping(&self) -> Result<(), DatabaseError> {
        match self {
            Self::Postgres(pool) => sqlx::query("SELECT 1").execute(pool).await.map(drop)?,
            Self::Sqlite(pool) => sqlx::query("SELECT 1").execute(pool).await.map(drop)?,
        }
        Ok(())
    }

    /// Closes every connection.
    pub async fn close(&self) {
        match self {
            Self::Postgres(pool) => pool.close().await,
            Self::Sqlite(pool) => pool.close().await,
        }
    }
}
