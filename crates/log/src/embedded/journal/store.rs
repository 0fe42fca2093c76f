//! The journal's file: its tables and its statements, over one connection. Blocks the thread that calls it.
//!
//! Invariant: when [`Store::append`] has returned, everything in its group is on disk (`synchronous = FULL`), or it has
//! failed and may be called again with the same group: what a failed commit has left behind is not written twice.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteRow, SqliteSynchronous};
use sqlx::{ConnectOptions as _, Connection as _, Row as _, SqliteConnection};
use tokio::runtime::Runtime;
use tollgate_service::database;

use crate::embedded::record::Run;

/// How long another process may hold the file, such as one that copies it.
const BUSY: Duration = Duration::from_secs(10);
/// Pages in the write-ahead log before they are copied into the file: 16 MiB.
const CHECKPOINT_PAGES: &str = "4000";
/// Most bytes that one read returns, unless one row alone is larger.
const READ_BYTES: usize = 1024 * 1024;

const APPEND: &str = "
    INSERT INTO batches (topic, partition, base, next, appended_at, records, checksum) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
        ON CONFLICT DO NOTHING";
/// A lower offset than the committed one changes nothing.
const COMMIT: &str = "
    INSERT INTO offsets (consumer_group, topic, partition, next, note) VALUES (?1, ?2, ?3, ?4, ?5)
        ON CONFLICT (consumer_group, topic, partition) DO UPDATE SET next = excluded.next, note = excluded.note
     WHERE excluded.next >= offsets.next";
/// From the row that holds the offset on.
const READ: &str = "
    SELECT base, next, appended_at, records, checksum FROM batches
     WHERE topic = ?1 AND partition = ?2
       AND base >= coalesce((SELECT max(base) FROM batches WHERE topic = ?1 AND partition = ?2 AND base <= ?3), ?3)
       AND base < ?4
     ORDER BY base";
/// Walks the index alone, from the oldest row on.
const APPENDED_SINCE: &str = "
    SELECT base FROM batches INDEXED BY batches_by_offset
     WHERE topic = ?1 AND partition = ?2 AND appended_at >= ?3 ORDER BY base LIMIT 1";
/// Looks at the oldest rows only: offsets and times ascend together. The newest row of a partition stays, for it holds the
/// offset to go on from.
const DELETE: &str = "
    DELETE FROM batches WHERE id IN (
        SELECT id FROM (
            SELECT id, base, next, appended_at FROM batches
             WHERE topic = ?1 AND partition = ?2 ORDER BY base LIMIT ?5)
         WHERE next <= ?3 AND appended_at < ?4
           AND base < (SELECT max(base) FROM batches WHERE topic = ?1 AND partition = ?2))";
const OLDEST: &str = "SELECT min(base) FROM batches WHERE topic = ?1 AND partition = ?2";

/// A partition of a topic, as the journal numbers them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(in crate::embedded) struct Place {
    pub(in crate::embedded) topic: i64,
    pub(in crate::embedded) partition: i32,
}

/// Consecutive records of one partition, written as one row.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) place: Place,
    /// Offset of the first record.
    pub(super) base: i64,
    /// Offset after the last one.
    pub(super) next: i64,
    /// Milliseconds since 1970.
    pub(super) appended_ms: i64,
    pub(super) records: Run,
}

/// The columns of [`READ`].
type StoredRow = (i64, i64, i64, Vec<u8>, i64);

/// A row as it is read.
#[derive(Debug)]
pub(super) struct StoredBatch {
    pub(super) base: i64,
    pub(super) next: i64,
    pub(super) appended_ms: i64,
    pub(super) records: Vec<u8>,
    checksum: i64,
}

impl From<StoredRow> for StoredBatch {
    fn from((base, next, appended_ms, records, checksum): StoredRow) -> Self {
        Self {
            base,
            next,
            appended_ms,
            records,
            checksum,
        }
    }
}

impl StoredBatch {
    /// Whether the row is as it was written. SQLite itself has no checksums.
    pub(super) fn is_intact(&self) -> bool {
        checksum(self.base, self.next, &self.records) == self.checksum
    }
}

/// CRC-32 of the offsets and the records.
fn checksum(base: i64, next: i64, records: &[u8]) -> i64 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&base.to_le_bytes());
    hasher.update(&next.to_le_bytes());
    hasher.update(records);
    i64::from(hasher.finalize())
}

/// How far a consumer group has come in a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::embedded) struct CommittedOffset {
    pub(in crate::embedded) group: String,
    pub(in crate::embedded) place: Place,
    /// The offset to go on from.
    pub(in crate::embedded) next: i64,
    /// What the group wrote beside it.
    pub(in crate::embedded) note: Option<String>,
}

/// What the file holds of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::embedded) struct Extent {
    pub(in crate::embedded) place: Place,
    /// Offset of the oldest record.
    pub(in crate::embedded) oldest: i64,
    /// Offset that the next record gets.
    pub(in crate::embedded) next: i64,
    /// When the last one was appended.
    pub(in crate::embedded) last_appended_ms: i64,
}

/// Records that need not be kept any more.
#[derive(Debug, Clone, Copy)]
pub(in crate::embedded) struct Expired {
    pub(in crate::embedded) place: Place,
    /// Only records before this offset …
    pub(in crate::embedded) before: i64,
    /// … that were appended before this time.
    pub(in crate::embedded) before_ms: i64,
}

/// See the module.
pub(super) struct Store {
    path: PathBuf,
    runtime: Runtime,
    connection: Option<SqliteConnection>,
    /// Whether the file may be made. Once it was opened, one that is missing is an error.
    create: bool,
}

impl Store {
    /// Opens the file, makes it where there is none, and brings its tables up to date.
    pub(super) fn open(path: &Path) -> anyhow::Result<Self> {
        let mut store = Self::open_existing(path)?;
        store.create = true;
        let migrated = store.with(async |connection| {
            database::migrations(&[("journal", include_str!("schema.sql"))])
                .run_direct(None, connection, false)
                .await
                .map_err(sqlx::Error::from)
        });
        migrated.with_context(|| format!("cannot prepare the journal {}", path.display()))?;
        store.create = false;
        Ok(store)
    }

    /// A second connection to a file that [`Store::open`] has opened.
    pub(super) fn open_existing(path: &Path) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .context("cannot start the journal's runtime")?;
        Ok(Self {
            path: path.to_owned(),
            runtime,
            connection: None,
            create: false,
        })
    }

    /// The number of a topic. A new one gets its number and its partitions.
    pub(super) fn topic(&mut self, name: &str, partitions: i32) -> Result<(i64, i32), sqlx::Error> {
        self.with(async |connection| {
            sqlx::query(
                "INSERT INTO topics (name, partitions) VALUES (?1, ?2) ON CONFLICT DO NOTHING",
            )
            .bind(name)
            .bind(partitions)
            .execute(&mut *connection)
            .await?;
            sqlx::query_as("SELECT id, partitions FROM topics WHERE name = ?1")
                .bind(name)
                .fetch_one(connection)
                .await
        })
    }

    /// What there is of each partition that holds records.
    pub(super) fn extents(&mut self) -> Result<Vec<Extent>, sqlx::Error> {
        self.with(async |connection| {
            let rows = sqlx::query(
                "SELECT topic, partition, min(base) AS oldest, max(base) AS newest FROM batches GROUP BY topic, partition",
            )
            .fetch_all(&mut *connection)
            .await?;
            let mut extents = Vec::with_capacity(rows.len());
            for row in rows {
                let place = Place {
                    topic: row.try_get("topic")?,
                    partition: row.try_get("partition")?,
                };
                let newest: (i64, i64) = sqlx::query_as(
                    "SELECT next, appended_at FROM batches WHERE topic = ?1 AND partition = ?2 AND base = ?3",
                )
                .bind(place.topic)
                .bind(place.partition)
                .bind(row.try_get::<i64, _>("newest")?)
                .fetch_one(&mut *connection)
                .await?;
                extents.push(Extent {
                    place,
                    oldest: row.try_get("oldest")?,
                    next: newest.0,
                    last_appended_ms: newest.1,
                });
            }
            Ok(extents)
        })
    }

    /// Every committed offset.
    pub(super) fn committed(&mut self) -> Result<Vec<CommittedOffset>, sqlx::Error> {
        self.with(async |connection| {
            let rows =
                sqlx::query("SELECT consumer_group, topic, partition, next, note FROM offsets")
                    .fetch_all(connection)
                    .await?;
            let read = |row: &SqliteRow| {
                Ok(CommittedOffset {
                    group: row.try_get("consumer_group")?,
                    place: Place {
                        topic: row.try_get("topic")?,
                        partition: row.try_get("partition")?,
                    },
                    next: row.try_get("next")?,
                    note: row.try_get("note")?,
                })
            };
            rows.iter().map(read).collect()
        })
    }

    /// Writes a group in one transaction.
    pub(super) fn append(
        &mut self,
        batches: &[Batch],
        commits: &[CommittedOffset],
    ) -> Result<(), sqlx::Error> {
        self.ensure_there()?;
        self.with(async |connection| {
            let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
            for batch in batches {
                sqlx::query(APPEND)
                    .bind(batch.place.topic)
                    .bind(batch.place.partition)
                    .bind(batch.base)
                    .bind(batch.next)
                    .bind(batch.appended_ms)
                    .bind(batch.records.bytes())
                    .bind(checksum(batch.base, batch.next, batch.records.bytes()))
                    .execute(&mut *transaction)
                    .await?;
            }
            for commit in commits {
                sqlx::query(COMMIT)
                    .bind(commit.group.as_str())
                    .bind(commit.place.topic)
                    .bind(commit.place.partition)
                    .bind(commit.next)
                    .bind(commit.note.as_deref())
                    .execute(&mut *transaction)
                    .await?;
            }
            transaction.commit().await
        })
    }

    /// The rows from the one on that holds `from`, up to the offset `until`, and no more than about [`READ_BYTES`].
    pub(super) fn read(
        &mut self,
        place: Place,
        from: i64,
        until: i64,
    ) -> Result<Vec<StoredBatch>, sqlx::Error> {
        use futures_util::TryStreamExt as _;
        self.with(async |connection| {
            let mut rows = sqlx::query_as::<_, StoredRow>(READ)
                .bind(place.topic)
                .bind(place.partition)
                .bind(from)
                .bind(until)
                .fetch(connection);
            let (mut read, mut bytes) = (Vec::new(), 0);
            while bytes < READ_BYTES
                && let Some(row) = rows.try_next().await?
            {
                let batch = StoredBatch::from(row);
                bytes += batch.records.len();
                read.push(batch);
            }
            Ok(read)
        })
    }

    /// The first offset of the oldest row that was appended at this time or later.
    pub(super) fn appended_since(
        &mut self,
        place: Place,
        time_ms: i64,
    ) -> Result<Option<i64>, sqlx::Error> {
        self.with(async |connection| {
            sqlx::query_scalar(APPENDED_SINCE)
                .bind(place.topic)
                .bind(place.partition)
                .bind(time_ms)
                .fetch_optional(connection)
                .await
        })
    }

    /// Deletes rows of which every record has expired, so many at most. How many they were, and the oldest offset now.
    pub(super) fn delete(
        &mut self,
        expired: Expired,
        limit: i64,
    ) -> Result<(u64, i64), sqlx::Error> {
        let Expired {
            place,
            before,
            before_ms,
        } = expired;
        self.with(async |connection| {
            let deleted = sqlx::query(DELETE)
                .bind(place.topic)
                .bind(place.partition)
                .bind(before)
                .bind(before_ms)
                .bind(limit)
                .execute(&mut *connection)
                .await?;
            let oldest = sqlx::query_scalar::<_, Option<i64>>(OLDEST)
                .bind(place.topic)
                .bind(place.partition)
                .fetch_one(connection)
                .await?;
            Ok((deleted.rows_affected(), oldest.unwrap_or_default()))
        })
    }

    /// Closes the file, so that it is whole without its write-ahead log.
    pub(super) fn close(&mut self) -> Result<(), sqlx::Error> {
        match self.connection.take() {
            Some(connection) => self.runtime.block_on(connection.close()),
            None => Ok(()),
        }
    }

    /// SQLite would go on writing to a file that was deleted or moved, and the records would be lost.
    fn ensure_there(&mut self) -> Result<(), sqlx::Error> {
        if self.path.exists() {
            return Ok(());
        }
        self.connection = None;
        let reason = format!("the file {} was deleted or moved", self.path.display());
        Err(sqlx::Error::Io(io::Error::new(
            io::ErrorKind::NotFound,
            reason,
        )))
    }

    /// Runs on the connection; after an error the next call gets a new one.
    fn with<T>(
        &mut self,
        work: impl AsyncFnOnce(&mut SqliteConnection) -> Result<T, sqlx::Error>,
    ) -> Result<T, sqlx::Error> {
        let options = || {
            SqliteConnectOptions::new()
                .filename(&self.path)
                .create_if_missing(self.create)
                .journal_mode(SqliteJournalMode::Wal)
                .synchronous(SqliteSynchronous::Full)
                .busy_timeout(BUSY)
                .pragma("wal_autocheckpoint", CHECKPOINT_PAGES)
        };
        let connection = self.connection.take();
        let (connection, result) = self.runtime.block_on(async {
            let mut connection = match connection {
                Some(connection) => connection,
                None => options().connect().await?,
            };
            let result = work(&mut connection).await;
            Ok::<_, sqlx::Error>((connection, result))
        })?;
        if result.is_ok() {
            self.connection = Some(connection);
        }
        result
    }
}
