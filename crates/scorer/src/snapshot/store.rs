//! Where snapshots are stored: `TOPIC/00003/00000000000001234567.snapshot` under a URL, and next to them the key of the hashes.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use futures_util::TryStreamExt as _;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt as _, PutMode, PutPayload};
use tokio_util::sync::CancellationToken;
use tollgate_service::objects;
use tollgate_service::resilience::{
    CallError, CallFailure, CallPolicy, Circuit, Dependency, DependencyConfig,
};

use crate::config::ScorerConfig;

const SUFFIX: &str = ".snapshot";
/// What a snapshot may have beside compressed histories: header, code, and what does not compress.
const MAX_OVERHEAD: u64 = 1024 * 1024;
/// How many of a partition are kept: the newest, and one to fall back on.
const KEPT: usize = 2;

/// Timeout of one request; a snapshot of millions of transactions is large.
const TIMEOUT: Duration = Duration::from_secs(120);
/// How long calls to a store that is down are retried, before the log is used or the next interval is waited for.
const MAX_RETRY_TIME: Duration = Duration::from_secs(20);

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    #[error(transparent)]
    Answered(#[from] object_store::Error),
    #[error("no answer within {0:?}")]
    TimedOut(Duration),
    #[error("the store of snapshots is down")]
    Down,
    #[error("it is larger than the limit of {limit} bytes")]
    TooLarge { limit: u64 },
}

impl CallError for StoreError {
    fn timed_out(limit: Duration) -> Self {
        Self::TimedOut(limit)
    }

    fn is_outage(&self) -> bool {
        match self {
            // A folder that cannot be written is a fault of the configuration: a retry does not help.
            Self::Answered(object_store::Error::Generic { store, .. }) => {
                *store != "LocalFileSystem"
            }
            Self::TimedOut(_) => true,
            Self::Answered(_) | Self::Down | Self::TooLarge { .. } => false,
        }
    }
}

impl From<CallFailure<Self>> for StoreError {
    fn from(unserved: CallFailure<Self>) -> Self {
        match unserved {
            CallFailure::Rejected(error) | CallFailure::Unavailable(Some(error)) => error,
            CallFailure::Unavailable(None) => Self::Down,
        }
    }
}

/// The snapshots of one topic.
#[derive(Clone)]
pub(crate) struct SnapshotStore {
    store: Arc<dyn ObjectStore>,
    dependency: Dependency,
    root: Path,
    url: String,
}

impl fmt::Debug for SnapshotStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SnapshotStore").field(&self.url).finish()
    }
}

impl SnapshotStore {
    /// The store of the settings, which have been checked.
    pub(crate) fn open(config: &ScorerConfig, topic: &str) -> anyhow::Result<Self> {
        let (store, prefix) = objects::open(config.snapshot_store())?;
        Ok(Self {
            store,
            dependency: Dependency::new("snapshots", &limits(), None),
            root: prefix.join(topic),
            url: config.snapshots.clone(),
        })
    }

    /// Sends a request, and retries it for [`MAX_RETRY_TIME`] if the store does not answer.
    async fn request<T, F>(&self, request: impl Fn() -> F) -> Result<T, StoreError>
    where
        F: Future<Output = object_store::Result<T>>,
    {
        let over = CancellationToken::new();
        // One that is known to be down was waited for already.
        let policy = match self.dependency.circuit() {
            Circuit::Open => CallPolicy::no_retry(),
            Circuit::Closed | Circuit::HalfOpen => CallPolicy::unlimited(),
        };
        let policy = policy.cancelled_by(over.clone());
        let call = self
            .dependency
            .call(policy, || async { Ok(request().await?) });
        tokio::pin!(call);
        let (_, result) = tokio::select! {
            ended = &mut call => ended,
            () = tokio::time::sleep(MAX_RETRY_TIME) => {
                over.cancel();
                call.await
            }
        };
        Ok(result?)
    }

    fn partition(&self, partition: i32) -> Path {
        self.root.clone().join(format!("{partition:05}"))
    }

    /// The snapshots of a partition, newest first.
    pub(crate) async fn list(&self, partition: i32) -> Result<Vec<(i64, Path)>, StoreError> {
        let folder = self.partition(partition);
        let all: Vec<_> = self
            .request(|| self.store.list(Some(&folder)).try_collect())
            .await?;
        let mut found: Vec<(i64, Path)> = all
            .into_iter()
            .filter_map(|object| {
                let name = object.location.filename()?;
                Some((name.strip_suffix(SUFFIX)?.parse().ok()?, object.location))
            })
            .collect();
        found.sort_by_key(|(offset, _)| std::cmp::Reverse(*offset));
        Ok(found)
    }

    /// Reads an object of at most `limit` bytes and a header; of a larger one, an error.
    pub(crate) async fn read(&self, path: &Path, limit: u64) -> Result<Vec<u8>, StoreError> {
        let read = || async {
            let object = self.store.get(path).await?;
            if object.meta.size > limit.saturating_add(MAX_OVERHEAD) {
                return Ok(None);
            }
            Ok(Some(object.bytes().await?.to_vec()))
        };
        self.request(read)
            .await?
            .ok_or(StoreError::TooLarge { limit })
    }

    /// Writes a snapshot, which appears whole or not at all, then deletes those that are no longer needed.
    pub(crate) async fn write(
        &self,
        partition: i32,
        offset: i64,
        snapshot: Vec<u8>,
    ) -> Result<(), StoreError> {
        let path = self
            .partition(partition)
            .join(format!("{offset:020}{SUFFIX}"));
        let snapshot = PutPayload::from(snapshot);
        self.request(|| self.store.put(&path, snapshot.clone()))
            .await?;
        // One beyond this offset is of another log, or of a later owner of the partition: it is left alone.
        let older = self.list(partition).await?.into_iter();
        for (_, path) in older.filter(|(other, _)| *other <= offset).skip(KEPT) {
            match self.request(|| self.store.delete(&path)).await {
                Ok(()) | Err(StoreError::Answered(object_store::Error::NotFound { .. })) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// The key of the hashes in all snapshots here, created by the first scorer that needs it.
    pub(crate) async fn hash_key(&self) -> anyhow::Result<[u8; 16]> {
        let path = self.root.clone().join("hash.key");
        let made = PutPayload::from(tollgate_service::random_key().to_vec());
        let make = || {
            self.store
                .put_opts(&path, made.clone(), PutMode::Create.into())
        };
        match self.request(make).await {
            Ok(_) | Err(StoreError::Answered(object_store::Error::AlreadyExists { .. })) => {}
            Err(error) => return Err(error).context(format!("cannot write to {}", self.url)),
        }
        let key = self
            .read(&path, MAX_OVERHEAD)
            .await
            .with_context(|| format!("cannot read from {}", self.url))?;
        key.try_into().map_err(|_| {
            anyhow::anyhow!("{}/{path} is damaged: it must be 16 bytes long", self.url)
        })
    }
}

fn limits() -> DependencyConfig {
    // Partitions are restored side by side, and their snapshots held in memory.
    DependencyConfig::new(TIMEOUT, 4)
}
