//! The statements of the audit. The entries of a store are one chain: whoever appends holds a lock until its commit.

use sqlx::migrate::Migrator;
use sqlx::postgres::PgPool;
use sqlx::sqlite::SqlitePool;
use sqlx::{Connection as _, PgConnection, Row as _, SqliteConnection};
use tollgate_service::database::{self, Database, DatabaseError, Lease};

use super::chain::{Head, Link, parse_hash};

/// The key of the advisory lock in PostgreSQL: `audit` in ASCII.
const LOCK: i64 = 0x61_75_64_69_74;
const MIGRATIONS_TABLE: &str = "audit_migrations";

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

/// Appends the entries in one database transaction. The new head.
pub(super) async fn append(
    database: &Database,
    key: &[u8],
    entries: &[String],
) -> Result<Head, DatabaseError> {
    database.ensure_there()?;
    match database {
        Database::Postgres(pool) => {
            let lease = Lease::of(pool).await?;
            lease
                .run(async |connection| append_postgres(connection, key, entries).await)
                .await
        }
        Database::Sqlite(pool) => {
            let mut connection = pool.acquire().await?;
            let result = append_sqlite(&mut connection, key, entries).await;
            if result.is_err() {
                // After some errors SQLite itself has rolled back, which the client library does not notice.
                let _ = connection.close().await;
            }
            Ok(result?)
        }
    }
}

/// The entries with their places after this head.
fn links(mut head: Head, key: &[u8], entries: &[String]) -> Vec<Head> {
    let next = |entry: &String| {
        head = head.after(key, entry);
        head
    };
    entries.iter().map(next).collect()
}

fn last(heads: &[Head], before: Head) -> Head {
    heads.last().copied().unwrap_or(before)
}

async fn append_postgres(
    connection: &mut PgConnection,
    key: &[u8],
    entries: &[String],
) -> Result<Head, sqlx::Error> {
    let mut transaction = connection.begin().await?;
    sqlx::query("SELECT pg_advisory_xact_lock($1)")
        .bind(LOCK)
        .execute(&mut *transaction)
        .await?;
    let newest = sqlx::query("SELECT seq, hash FROM audit ORDER BY seq DESC LIMIT 1")
        .fetch_optional(&mut *transaction)
        .await?;
    let before = match newest {
        None => Head::default(),
        Some(row) => head(row.try_get("seq")?, &row.try_get::<String, _>("hash")?)?,
    };
    let heads = links(before, key, entries);
    let (numbers, hashes) = columns(&heads);
    sqlx::query("INSERT INTO audit (seq, hash, entry) SELECT * FROM unnest($1::bigint[], $2::text[], $3::text[])")
        .bind(numbers)
        .bind(hashes)
        .bind(entries)
        .execute(&mut *transaction)
        .await?;
    transaction.commit().await?;
    Ok(last(&heads, before))
}

async fn append_sqlite(
    connection: &mut SqliteConnection,
    key: &[u8],
    entries: &[String],
) -> Result<Head, sqlx::Error> {
    // An entry that is lost in a power failure would be an access that nobody knows of.
    sqlx::query("PRAGMA synchronous = FULL")
        .execute(&mut *connection)
        .await?;
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
    let newest = sqlx::query("SELECT seq, hash FROM audit ORDER BY seq DESC LIMIT 1")
        .fetch_optional(&mut *transaction)
        .await?;
    let before = match newest {
        None => Head::default(),
        Some(row) => head(row.try_get("seq")?, &row.try_get::<String, _>("hash")?)?,
    };
    let heads = links(before, key, entries);
    let (numbers, hashes) = columns(&heads);
    for ((number, hash), entry) in numbers.into_iter().zip(hashes).zip(entries) {
        sqlx::query("INSERT INTO audit (seq, hash, entry) VALUES (?, ?, ?)")
            .bind(number)
            .bind(hash)
            .bind(entry.as_str())
            .execute(&mut *transaction)
            .await?;
    }
    transaction.commit().await?;
    Ok(last(&heads, before))
}

fn columns(heads: &[Head]) -> (Vec<i64>, Vec<String>) {
    let number = |head: &Head| i64::try_from(head.seq).unwrap_or(i64::MAX);
    let hash = |head: &Head| data_encoding::HEXLOWER.encode(&head.hash);
    (
        heads.iter().map(number).collect(),
        heads.iter().map(hash).collect(),
    )
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
    let rows: Vec<(i64, String, String)> = match database {
        Database::Postgres(pool) => read_postgres(pool, after, limit).await?,
        Database::Sqlite(pool) => read_sqlite(pool, after, limit).await?,
    };
    let link = |(seq, hash, entry): (i64, String, String)| {
        let head = head(seq, &hash)?;
        Ok(Link { head, entry })
    };
    rows.into_iter().map(link).collect()
}

async fn read_postgres(
    pool: &PgPool,
    after: i64,
    limit: u32,
) -> Result<Vec<(i64, String, String)>, sqlx::Error> {
    sqlx::query_as("SELECT seq, hash, entry FROM audit WHERE seq > $1 ORDER BY seq LIMIT $2")
        .bind(after)
        .bind(i64::from(limit))
        .fetch_all(pool)
        .await
}

async fn read_sqlite(
    pool: &SqlitePool,
    after: i64,
    limit: u32,
) -> Result<Vec<(i64, String, String)>, sqlx::Error> {
    sqlx::query_as("SELECT seq, hash, entry FROM audit WHERE seq > ? ORDER BY seq LIMIT ?")
        .bind(after)
        .bind(i64::from(limit))
        .fetch_all(pool)
        .await
}
