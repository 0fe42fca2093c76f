//! A database of a test's own, on either store.

use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection, SqliteConnection};
use tempfile::TempDir;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Sqlite,
    Postgres,
}

/// A database that only one test uses.
pub(crate) struct TestStore {
    pub(crate) kind: Kind,
    pub(crate) url: String,
    name: String,
    _directory: TempDir,
}

fn postgres_url() -> String {
    std::env::var("TEST_POSTGRES_URL")
        .expect("the feature postgres-tests needs TEST_POSTGRES_URL=postgres://…/postgres")
}

impl TestStore {
    pub(super) async fn create(kind: Kind) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let name = format!("persistence_{:016x}", rand::random::<u64>());
        let url = match kind {
            Kind::Sqlite => format!("sqlite://{}/test.db", directory.path().display()),
            Kind::Postgres => {
                admin(&format!("CREATE DATABASE {name}")).await;
                let url = postgres_url();
                let (server, _) = url.rsplit_once('/').unwrap();
                format!("{server}/{name}")
            }
        };
        Self {
            kind,
            url,
            name,
            _directory: directory,
        }
    }

    pub(super) async fn remove(&self) {
        if self.kind == Kind::Postgres {
            admin(&format!("DROP DATABASE {} WITH (FORCE)", self.name)).await;
        }
    }

    async fn sqlite(&self) -> SqliteConnection {
        SqliteConnection::connect(&format!("{}?mode=rwc", self.url))
            .await
            .unwrap()
    }

    async fn postgres(&self) -> PgConnection {
        PgConnection::connect(&self.url).await.unwrap()
    }

    pub(crate) async fn execute(&self, sql: &str) {
        let sql = AssertSqlSafe(sql);
        match self.kind {
            Kind::Sqlite => drop(self.sqlite().await.execute(sql).await.unwrap()),
            Kind::Postgres => drop(self.postgres().await.execute(sql).await.unwrap()),
        }
    }

    /// As [`TestStore::execute`], for a statement that the store may refuse: its reason.
    pub(crate) async fn try_execute(&self, sql: &str) -> Result<(), String> {
        let sql = AssertSqlSafe(sql);
        let executed = match self.kind {
            Kind::Sqlite => self.sqlite().await.execute(sql).await.map(drop),
            Kind::Postgres => self.postgres().await.execute(sql).await.map(drop),
        };
        executed.map_err(|error| error.to_string())
    }

    /// What somebody with all rights over the store can do: the audit's rows can be changed from here on.
    pub(crate) async fn drop_audit_triggers(&self) {
        let statements: &[&str] = match self.kind {
            Kind::Sqlite => &[
                "DROP TRIGGER audit_rows_are_not_changed",
                "DROP TRIGGER audit_rows_are_not_deleted",
            ],
            Kind::Postgres => &["DROP TRIGGER audit_rows_are_kept ON audit"],
        };
        for sql in statements {
            self.execute(sql).await;
        }
    }

    pub(crate) async fn number(&self, sql: &str) -> i64 {
        let sql = AssertSqlSafe(sql);
        match self.kind {
            Kind::Sqlite => sqlx::query_scalar(sql)
                .fetch_one(&mut self.sqlite().await)
                .await
                .unwrap(),
            Kind::Postgres => sqlx::query_scalar(sql)
                .fetch_one(&mut self.postgres().await)
                .await
                .unwrap(),
        }
    }

    /// The first column of each row.
    pub(crate) async fn texts(&self, sql: &str) -> Vec<String> {
        let sql = AssertSqlSafe(sql);
        match self.kind {
            Kind::Sqlite => sqlx::query_scalar(sql)
                .fetch_all(&mut self.sqlite().await)
                .await
                .unwrap(),
            Kind::Postgres => sqlx::query_scalar(sql)
                .fetch_all(&mut self.postgres().await)
                .await
                .unwrap(),
        }
    }

    /// Makes the tables as version 0.1.0 left them.
    pub(crate) async fn migrate_to_previous(&self) {
        let texts: &[_] = match self.kind {
            Kind::Sqlite => &[(
                "decisions",
                include_str!("../../../migrations/sqlite/0001_decisions.sql"),
            )],
            Kind::Postgres => &[
                (
                    "decisions",
                    include_str!("../../../migrations/postgres/0001_decisions.sql"),
                ),
                (
                    "long lists of indicators",
                    include_str!("../../../migrations/postgres/0002_long_indicator_lists.sql"),
                ),
            ],
        };
        let mut migrator = tollgate_service::database::migrations(texts);
        migrator.dangerous_set_table_name("persistence_migrations");
        match self.kind {
            Kind::Sqlite => migrator.run(&mut self.sqlite().await).await,
            Kind::Postgres => migrator.run(&mut self.postgres().await).await,
        }
        .unwrap();
    }

    /// Makes the store unavailable to the writer: PostgreSQL to all connections, SQLite by a lock on the file.
    pub(crate) async fn break_down(&self) -> Outage<'_> {
        match self.kind {
            Kind::Sqlite => {
                let mut lock = self.sqlite().await;
                lock.execute("PRAGMA journal_mode = WAL").await.unwrap();
                lock.execute("BEGIN IMMEDIATE").await.unwrap();
                Outage {
                    store: self,
                    lock: Some(lock),
                }
            }
            Kind::Postgres => {
                admin(&format!(
                    "ALTER DATABASE {} ALLOW_CONNECTIONS false",
                    self.name
                ))
                .await;
                admin(&format!(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{}'",
                    self.name
                ))
                .await;
                Outage {
                    store: self,
                    lock: None,
                }
            }
        }
    }
}

/// A store that is down until it is repaired.
pub(crate) struct Outage<'a> {
    store: &'a TestStore,
    lock: Option<SqliteConnection>,
}

impl Outage<'_> {
    pub(crate) async fn repair(self) {
        match self.lock {
            Some(mut lock) => drop(lock.execute("ROLLBACK").await.unwrap()),
            None => {
                admin(&format!(
                    "ALTER DATABASE {} ALLOW_CONNECTIONS true",
                    self.store.name
                ))
                .await
            }
        }
    }
}

async fn admin(sql: &str) {
    let mut connection = PgConnection::connect(&postgres_url()).await.unwrap();
    connection.execute(AssertSqlSafe(sql)).await.unwrap();
}
