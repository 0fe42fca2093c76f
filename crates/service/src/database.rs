//! The database of a service: PostgreSQL in production, a SQLite file where nothing is to be installed.

use std::io;
use std::str::FromStr;
use std::time::Duration;

use sqlx::migrate::{MigrateError, Migration, MigrationType, Migrator};
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteError, SqliteJournalMode, SqlitePool, SqlitePoolOptions,
    SqliteSynchronous,
};
use sqlx::{Connection as _, PgConnection, Postgres, SqlSafeStr as _};

use crate::config::ConfigError;
use crate::resilience::{CallError, CallFailure};
use crate::secret::redacted_url;

/// Interval of the metrics of a pool.
const METRICS_INTERVAL: Duration = Duration::from_secs(2);
/// Timeout for closing the connections.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// A pool of connections to one of the two stores.
#[derive(Debug, Clone)]
pub enum Database {
    /// PostgreSQL.
    Postgres(PgPool),
    /// A SQLite file.
    Sqlite(SqlitePool),
}

impl Database {
    /// Reports the connections of the pool as metrics until it is closed. `name` is the label of the pool.
    pub fn watch(&self, name: &'static str) {
        let database = self.clone();
        tokio::spawn(async move {
            loop {
                let (size, idle, closed) = match &database {
                    Self::Postgres(pool) => (pool.size(), pool.num_idle(), pool.is_closed()),
                    Self::Sqlite(pool) => (pool.size(), pool.num_idle(), pool.is_closed()),
                };
                let idle = u32::try_from(idle).unwrap_or(u32::MAX).min(size);
                let connections = |state: &'static str| metrics::gauge!("tollgate_database_connections", "pool" => name, "state" => state);
                connections("idle").set(idle);
                connections("used").set(size - idle);
                if closed {
                    return;
                }
                tokio::time::sleep(METRICS_INTERVAL).await;
            }
        });
    }
}

/// The migrations of the tables of a service, in order: description and SQL. Their versions count from 1.
#[must_use]
pub fn migrations(texts: &[(&'static str, &'static str)]) -> Migrator {
    let numbered = (1..).zip(texts).map(|(version, (description, sql))| {
        let text = sql.into_sql_str();
        Migration::new(
            version,
            (*description).into(),
            MigrationType::Simple,
            text,
            false,
        )
    });
    Migrator::with_migrations(numbered.collect())
}

/// A failed statement, classified by what the caller does.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    /// Retry: the store is down, busy, or aborted this transaction because of a deadlock.
    #[error("the store is not available: {0}")]
    Unavailable(#[source] sqlx::Error),
    /// Do not retry: the store rejects these rows.
    #[error("the store refuses a row: {0}")]
    Refused(#[source] sqlx::Error),
    /// Stop: the store does not have the expected tables or rights.
    #[error("the store is not usable: {0}")]
    Broken(#[source] sqlx::Error),
}

impl DatabaseError {
    /// The class as a short stable word.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Unavailable(_) => "unavailable",
            Self::Refused(_) => "refused",
            Self::Broken(_) => "broken",
        }
    }
}

impl From<MigrateError> for DatabaseError {
    fn from(error: MigrateError) -> Self {
        match error {
            MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => error.into(),
            other => Self::Broken(sqlx::Error::Migrate(Box::new(other))),
        }
    }
}

impl From<sqlx::Error> for DatabaseError {
    fn from(error: sqlx::Error) -> Self {
        let of_store = match &error {
            sqlx::Error::Database(database) => {
                let code = database.code().unwrap_or_default();
                match database.try_downcast_ref::<SqliteError>() {
                    Some(_) => of_sqlite_code(code.parse().unwrap_or_default()),
                    None => of_sqlstate(&code),
                }
            }
            sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::Protocol(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed => Self::Unavailable,
            sqlx::Error::Encode(_) => Self::Refused,
            _ => Self::Broken,
        };
        of_store(error)
    }
}

impl CallError for DatabaseError {
    fn timed_out(limit: Duration) -> Self {
        unanswered(
            io::ErrorKind::TimedOut,
            format!("no answer within {limit:?}"),
        )
    }

    fn is_outage(&self) -> bool {
        matches!(self, Self::Unavailable(_))
    }
}

impl From<CallFailure<Self>> for DatabaseError {
    fn from(unserved: CallFailure<Self>) -> Self {
        match unserved {
            CallFailure::Rejected(error) | CallFailure::Unavailable(Some(error)) => error,
            CallFailure::Unavailable(None) => unanswered(
                io::ErrorKind::NotConnected,
                "its circuit is open: it did not answer before, and is probed soon".to_owned(),
            ),
        }
    }
}

fn unanswered(kind: io::ErrorKind, reason: String) -> DatabaseError {
    DatabaseError::Unavailable(sqlx::Error::Io(io::Error::new(kind, reason)))
}

/// By class: Appendix A of PostgreSQL's manual.
fn of_sqlstate(code: &str) -> fn(sqlx::Error) -> DatabaseError {
    match code.get(..2).unwrap_or_default() {
        // data exception, integrity violation, row too large or statement too complex
        "22" | "23" | "54" => DatabaseError::Refused,
        // syntax or access rule, invalid schema or catalogue, undefined feature, authorization
        "42" | "3F" | "3D" | "0A" | "28" => DatabaseError::Broken,
        _ => DatabaseError::Unavailable,
    }
}

/// By primary result code, the low byte of an extended one: https://www.sqlite.org/rescode.html
fn of_sqlite_code(code: u32) -> fn(sqlx::Error) -> DatabaseError {
    match code & 0xff {
        // TOOBIG, CONSTRAINT, MISMATCH
        18..=20 => DatabaseError::Refused,
        // ERROR, CORRUPT, MISUSE, NOTADB
        1 | 11 | 21 | 26 => DatabaseError::Broken,
        _ => DatabaseError::Unavailable,
    }
}

/// A connection of a pool, for one statement. If the statement is aborted, as by a timeout, the connection is closed:
/// returned to the pool, it would stay in use until the server answers, and a server that is gone never does.
#[derive(Debug)]
pub struct Lease(Option<PoolConnection<Postgres>>);

impl Lease {
    /// The next free connection.
    ///
    /// # Errors
    /// There is none in time.
    pub async fn of(pool: &PgPool) -> Result<Self, DatabaseError> {
        Ok(Self(Some(pool.acquire().await?)))
    }

    /// Runs the statement.
    ///
    /// # Errors
    /// The error of the statement.
    pub async fn run<T>(
        mut self,
        statement: impl AsyncFnOnce(&mut PgConnection) -> Result<T, sqlx::Error>,
    ) -> Result<T, DatabaseError> {
        let connection = self.0.as_mut().ok_or(sqlx::Error::WorkerCrashed)?;
        let result = statement(connection).await;
        // The statement has ended: the connection goes back to the pool.
        drop(self.0.take());
        Ok(result?)
    }

    /// Runs a statement of which the caller may leave rows unread. It then returns false beside its result, and the
    /// connection is closed: in the pool, it would first have to receive those rows.
    ///
    /// # Errors
    /// The error of the statement, or of reading a row.
    pub async fn run_partly<T>(
        mut self,
        statement: impl AsyncFnOnce(&mut PgConnection) -> Result<(T, bool), DatabaseError>,
    ) -> Result<T, DatabaseError> {
        let connection = self.0.as_mut().ok_or(sqlx::Error::WorkerCrashed)?;
        let (result, complete) = statement(connection).await?;
        if complete {
            drop(self.0.take());
        }
        Ok(result)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(connection) = self.0.take() {
            drop(connection.detach());
        }
    }
}

impl Database {
    /// A pool for `url`. With PostgreSQL no connection is opened yet, so that a service starts while its store is down.
    ///
    /// # Errors
    /// The URL is neither of the two, or the SQLite file cannot be created.
    pub async fn open(setting: &str, url: &str, connections: u32) -> anyhow::Result<Self> {
        let invalid = |reason: String| {
            let shown = redacted_url(url);
            // What the parser says may quote a part of the URL.
            let reason = match shown == url {
                true => reason,
                false => "cannot be used; its secrets are hidden, and so is the reason, which may quote them".to_owned(),
            };
            ConfigError::invalid(setting, format!("{shown}: {reason}"))
        };
        if url.starts_with("postgres://") || url.starts_with("postgresql://") {
            let options =
                PgConnectOptions::from_str(url).map_err(|error| invalid(error.to_string()))?;
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

    /// Checks that the store answers.
    ///
    /// # Errors
    /// It does not.
    pub async fn ping(&self) -> Result<(), DatabaseError> {
        self.ensure_there()?;
        match self {
            Self::Postgres(pool) => {
                let ping = async |connection: &mut PgConnection| connection.ping().await;
                Lease::of(pool).await?.run(ping).await?;
            }
            Self::Sqlite(pool) => sqlx::query("SELECT 1").execute(pool).await.map(drop)?,
        }
        Ok(())
    }

    /// Checks that a SQLite file was not deleted or moved: SQLite itself would go on writing to the deleted file. To be
    /// called before each write.
    ///
    /// # Errors
    /// It was.
    pub fn ensure_there(&self) -> Result<(), DatabaseError> {
        let Self::Sqlite(pool) = self else {
            return Ok(());
        };
        let options = pool.connect_options();
        let file = options.get_filename();
        // One in memory has no path.
        if file.exists() || file.to_string_lossy().starts_with("file:") {
            return Ok(());
        }
        let reason = format!(
            "the file {} was deleted or moved; put it back, or start again with a new one",
            file.display()
        );
        Err(unanswered(io::ErrorKind::NotFound, reason))
    }

    /// Closes every connection.
    pub async fn close(&self) {
        let closing = async {
            match self {
                Self::Postgres(pool) => pool.close().await,
                Self::Sqlite(pool) => pool.close().await,
            }
        };
        // A connection to a server that is gone does not close.
        if tokio::time::timeout(CLOSE_TIMEOUT, closing).await.is_err() {
            tracing::warn!("connections to the store did not close in time");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_deleted_file_is_noticed_before_a_write() {
        let path = std::env::temp_dir().join(format!("tollgate-{}.db", std::process::id()));
        let url = format!("sqlite://{}", path.display());
        let database = Database::open("a.setting", &url, 1).await.unwrap();
        assert!(database.ping().await.is_ok());
        std::fs::remove_file(&path).unwrap();
        let error = database.ping().await.unwrap_err();
        assert!(error.is_outage() && error.to_string().contains("was deleted or moved"));
        database.close().await;
        let memory = Database::open("a.setting", "sqlite::memory:", 1)
            .await
            .unwrap();
        assert!(memory.ping().await.is_ok());
    }

    #[test]
    fn a_code_of_one_store_is_not_taken_for_one_of_the_other() {
        let io = || sqlx::Error::PoolClosed;
        // IOERR_RDLOCK is 2314; class 23 of PostgreSQL is an integrity violation.
        assert!(matches!(
            of_sqlite_code(2314)(io()),
            DatabaseError::Unavailable(_)
        ));
        assert!(matches!(
            of_sqlstate("23514")(io()),
            DatabaseError::Refused(_)
        ));
        // CONSTRAINT_TRIGGER
        assert!(matches!(
            of_sqlite_code(1811)(io()),
            DatabaseError::Refused(_)
        ));
        assert!(matches!(
            of_sqlstate("40P01")(io()),
            DatabaseError::Unavailable(_)
        ));
    }
}
