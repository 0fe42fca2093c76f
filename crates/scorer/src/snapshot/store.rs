//! Where snapshots lie: `TOPIC/00003/00000000000001234567.snapshot` under a URL, and beside them the key of the hashes.

use std::fmt;
use std::sync::Arc;

use anyhow::Context as _;
use futures_util::TryStreamExt as _;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt as _, PutMode, PutPayload};

use super::open::open;
use crate::config::ScorerConfig;

const SUFFIX: &str = ".snapshot";
/// How many of a partition are kept: the newest, and one to fall back on.
const KEPT: usize = 2;

/// The snapshots of one topic.
#[derive(Clone)]
pub(crate) struct SnapshotStore {
    store: Arc<dyn ObjectStore>,
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
        let (store, prefix) = open(&config.snapshots, &config.snapshot_options)?;
        Ok(Self {
            store,
            root: prefix.join(topic),
            url: config.snapshots.clone(),
        })
    }

    fn partition(&self, partition: i32) -> Path {
        self.root.clone().join(format!("{partition:05}"))
    }

    /// The snapshots of a partition, newest first.
    pub(crate) async fn list(&self, partition: i32) -> object_store::Result<Vec<(i64, Path)>> {
        let all: Vec<_> = self
            .store
            .list(Some(&self.partition(partition)))
            .try_collect()
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

    pub(crate) async fn read(&self, path: &Path) -> object_store::Result<Vec<u8>> {
        Ok(self.store.get(path).await?.bytes().await?.to_vec())
    }

    /// Writes a snapshot, which appears whole or not at all, then takes away those that are not needed any more.
    pub(crate) async fn write(
        &self,
        partition: i32,
        offset: i64,
        snapshot: Vec<u8>,
    ) -> object_store::Result<()> {
        let path = self
            .partition(partition)
            .join(format!("{offset:020}{SUFFIX}"));
        self.store.put(&path, PutPayload::from(snapshot)).await?;
        // One beyond this offset is of another log, or of an owner that came after this one: not for us to judge.
        let older = self.list(partition).await?.into_iter();
        for (_, path) in older.filter(|(other, _)| *other <= offset).skip(KEPT) {
            match self.store.delete(&path).await {
                Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// The key of the hashes in all snapshots here, made by the first who asks.
    pub(crate) async fn hash_key(&self) -> anyhow::Result<[u8; 16]> {
        let path = self.root.clone().join("hash.key");
        let made = PutPayload::from(crate::random_key().to_vec());
        match self
            .store
            .put_opts(&path, made, PutMode::Create.into())
            .await
        {
            Ok(_) | Err(object_store::Error::AlreadyExists { .. }) => {}
            Err(error) => return Err(error).context(format!("cannot write to {}", self.url)),
        }
        let key = self
            .read(&path)
            .await
            .with_context(|| format!("cannot read from {}", self.url))?;
        key.try_into().map_err(|_| {
            anyhow::anyhow!("{}/{path} is damaged: it must be 16 bytes long", self.url)
        })
    }
}
