//! The statements of the audit, once for both stores. The entries of a store are one chain: whoever changes it holds a lock
//! until its commit.

use sqlx::migrate::Migrator;
use sqlx::postgres::PgPool;
use sqlx::sqlite::SqlitePool;
use sqlx::{
    AssertSqlSafe, Connection as _, Encode, Executor, FromRow, IntoArguments, PgConnection,
    Postgres, QueryBuilder, Sqlite, SqliteConnection, Type,
};
use tollgate_service::database::{self, Database, DatabaseError, Lease};
use tollgate_types::Timestamp;

use super::chain::{Head, Link, parse_hash};
use super::event::AuditEvent;

/// The key of the advisory lock in PostgreSQL: `audit` in ASCII.
const LOCK: i64 = 0x61_75_64_69_74;
const MIGRATIONS_TABLE: &str = "audit_migrations";
/// Rows of one `INSERT`.
const ROWS: usize = 1_000;
/// Entries that the retention removes in one database transaction. Whoever appends waits for it.
const STEP: u32 = 2_000;

/// What is done to the chain in one database transaction.
#[derive(Debug, Clone, Copy)]
pub(super) enum Change<'a> {
    Append(&'a [String]),
    /// Removes the oldest entries, up to [`STEP`], that were made before this time, and appends an entry that names the
    /// head of what was removed.
    Expire {
        before: Timestamp,
        now: Timestamp,
    },
}

/// What a change came to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Changed {
    pub(super) head: Head,
    /// The head of what the retention removed, and the number of entries.
    pub(super) removed: Option<(Head, u64)>,
}

/// How an entry is read.
type Row = (i64, String, String);

/// The differences between the stores.
trait Chained: sqlx::Database {
    /// Lets entries be deleted, until [`Chained::KEEP`] in the same database transaction.
    const RELEASE: &'static str;
    const KEEP: &'static str;
}

impl Chained for Postgres {
    const RELEASE: &'static str = "ALTER TABLE audit DISABLE TRIGGER audit_rows_are_kept";
    const KEEP: &'static str = "ALTER TABLE audit ENABLE TRIGGER audit_rows_are_kept";
}

impl Chained for Sqlite {
    const RELEASE: &'static str = "DROP TRIGGER audit_rows_are_not_deleted";
    const KEEP: &'static str = "CREATE TRIGGER audit_rows_are_not_deleted BEFORE DELETE ON audit BEGIN \
                                SELECT RAISE(ABORT, 'the audit is append-only'); END";
}

/// Creates or upgrades the table.
pub(super) async fn migrate(database: &Database) -> Result<(), DatabaseError> {
    let migrator = |sql| -> Migrator {
        let mut migrator = database::migrations(&[("audit", sql)]);
        migrator.set_ignore_missing(true);
        migrator.dangerous_set_table_name(MIGRATIONS_TABLE);
        migrator
    };
    match database {
        Database::Postgres(pool) => {
            migrator(include_str!("../../migrations/postgres/audit_0001.sql"))
                .run(pool)
                .await?;
        }
        Database::Sqlite(pool) => {
            migrator(include_str!("../../migrations/sqlite/audit_0001.sql"))
                .run(pool)
                .await?;
        }
    }
    Ok(())
}

/// Whether the table is there.
pub(super) async fn exists(database: &Database) -> Result<bool, DatabaseError> {
    Ok(match database {
        Database::Postgres(pool) => {
            sqlx::query_scalar("SELECT to_regclass('audit') IS NOT NULL")
                .fetch_one(pool)
                .await?
        }
        Database::Sqlite(pool) => sqlx::query_scalar(
            "SELECT EXISTS (SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'audit')",
        )
        .fetch_one(pool)
        .await?,
    })
}

/// Changes the chain in one database transaction.
pub(super) async fn change(
    database: &Database,
    key: &[u8],
    change: Change<'_>,
) -> Result<Changed, DatabaseError> {
    database.ensure_there()?;
    match database {
        Database::Postgres(pool) => {
            let lease = Lease::of(pool).await?;
            lease
                .run(async |connection| change_postgres(connection, key, change).await)
                .await
        }
        Database::Sqlite(pool) => {
            let mut connection = pool.acquire().await?;
            let result = change_sqlite(&mut connection, key, change).await;
            if result.is_err() {
                // After some errors SQLite itself has rolled back, which the client library does not notice.
                let _ = connection.close().await;
            }
            Ok(result?)
        }
    }
}

async fn change_postgres(
    connection: &mut PgConnection,
    key: &[u8],
    change: Change<'_>,
) -> Result<Changed, sqlx::Error> {
    let mut transaction = connection.begin().await?;
    sqlx::query("SELECT pg_advisory_xact_lock($1)")
        .bind(LOCK)
        .execute(&mut *transaction)
        .await?;
    let changed = apply::<Postgres>(&mut transaction, key, change).await?;
    transaction.commit().await?;
    Ok(changed)
}

async fn change_sqlite(
    connection: &mut SqliteConnection,
    key: &[u8],
    change: Change<'_>,
) -> Result<Changed, sqlx::Error> {
    // An entry that is lost in a power failure would be an access that nobody knows of.
    sqlx::query("PRAGMA synchronous = FULL")
        .execute(&mut *connection)
        .await?;
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
    let changed = apply::<Sqlite>(&mut transaction, key, change).await?;
    transaction.commit().await?;
    Ok(changed)
}

/// Changes the chain while its lock is held.
async fn apply<DB>(
    connection: &mut DB::Connection,
    key: &[u8],
    change: Change<'_>,
) -> Result<Changed, sqlx::Error>
where
    DB: Chained<Arguments: Default + IntoArguments<DB>>,
    for<'c> &'c mut DB::Connection: Executor<'c, Database = DB>,
    for<'r> (i64, String): FromRow<'r, DB::Row>,
    for<'r> Row: FromRow<'r, DB::Row>,
    for<'q> i64: Encode<'q, DB> + Type<DB>,
    for<'q> String: Encode<'q, DB> + Type<DB>,
{
    let newest = sqlx::query_as::<DB, (i64, String)>(
        "SELECT seq, hash FROM audit ORDER BY seq DESC LIMIT 1",
    )
    .fetch_optional(&mut *connection)
    .await?;
    let mut last = match newest {
        None => Head::default(),
        Some((seq, hash)) => head(seq, &hash)?,
    };
    let (removed, of_retention) = match change {
        Change::Append(_) => (None, Vec::new()),
        Change::Expire { before, now } => {
            let oldest = sqlx::query_as::<DB, Row>(AssertSqlSafe(format!(
                "SELECT seq, hash, entry FROM audit ORDER BY seq LIMIT {STEP}"
            )))
            .fetch_all(&mut *connection)
            .await?;
            let young = oldest
                .iter()
                .position(|(_, _, entry)| !AuditEvent::was_before(entry, before));
            let old = &oldest[..young.unwrap_or(oldest.len())];
            let Some((seq, hash, _)) = old.last() else {
                return Ok(Changed {
                    head: last,
                    removed: None,
                });
            };
            let anchor = head(*seq, hash)?;
            let entry = AuditEvent::of_retention(anchor, now).text();
            (Some((anchor, old.len() as u64)), vec![entry])
        }
    };
    let entries = match change {
        Change::Append(entries) => entries,
        Change::Expire { .. } => &of_retention,
    };
    for entries in entries.chunks(ROWS) {
        let mut insert = QueryBuilder::<DB>::new("INSERT INTO audit (seq, hash, entry) ");
        insert.push_values(entries, |mut row, entry| {
            last = last.after(key, entry);
            row.push_bind(number(last))
                .push_bind(data_encoding::HEXLOWER.encode(&last.hash))
                .push_bind(entry.clone());
        });
        insert.build().execute(&mut *connection).await?;
    }
    if let Some((anchor, _)) = removed {
        connection.execute(DB::RELEASE).await?;
        let delete = AssertSqlSafe(format!("DELETE FROM audit WHERE seq <= {}", number(anchor)));
        connection.execute(delete).await?;
        connection.execute(DB::KEEP).await?;
    }
    Ok(Changed {
        head: last,
        removed,
    })
}

fn number(head: Head) -> i64 {
    i64::try_from(head.seq).unwrap_or(i64::MAX)
}

fn head(seq: i64, hash: &str) -> Result<Head, sqlx::Error> {
    let seq = u64::try_from(seq).ok();
    seq.zip(parse_hash(hash))
        .map(|(seq, hash)| Head { seq, hash })
        .ok_or_else(|| {
            sqlx::Error::Decode("a row of the audit has an invalid number or hash".into())
        })
}

/// Up to `limit` entries after the one of this number, in their order.
pub(super) async fn read(
    database: &Database,
    after: u64,
    limit: u32,
) -> Result<Vec<Link>, DatabaseError> {
    let after = i64::try_from(after).unwrap_or(i64::MAX);
    let rows: Vec<Row> = match database {
        Database::Postgres(pool) => read_postgres(pool, after, limit).await?,
        Database::Sqlite(pool) => read_sqlite(pool, after, limit).await?,
    };
    let link = |(seq, hash, entry): Row| {
        let head = head(seq, &hash)?;
        Ok(Link { head, entry })
    };
    rows.into_iter().map(link).collect()
}

const READ: &str = "SELECT seq, hash, entry FROM audit WHERE seq > $1 ORDER BY seq LIMIT $2";

async fn read_postgres(pool: &PgPool, after: i64, limit: u32) -> Result<Vec<Row>, sqlx::Error> {
    let query = sqlx::query_as(READ).bind(after).bind(i64::from(limit));
    query.fetch_all(pool).await
}

async fn read_sqlite(pool: &SqlitePool, after: i64, limit: u32) -> Result<Vec<Row>, sqlx::Error> {
    let query = sqlx::query_as(READ).bind(after).bind(i64::from(limit));
    query.fetch_all(pool).await
}
