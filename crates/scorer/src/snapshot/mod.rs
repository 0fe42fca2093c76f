//! Snapshots of histories, so that a scorer that is assigned a partition need not read 11 days of the log.
//!
//! A barrier comes after the same record in the queue of every worker, so the histories of all workers at the barrier are
//! one history, at one offset of the log. Invariant: it is stored only when the group has committed that offset, so that a
//! snapshot never holds a transaction whose decision may be written a second time.

mod requirements;
mod store;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use futures_util::StreamExt as _;
use metrics::{counter, gauge, histogram};
use tokio::runtime::Handle;
use tollgate_log::{Histories, Position, SnapshotRequirements};

use crate::config::{Mode, ScorerConfig};
use requirements::RulesNeed;
use store::SnapshotStore;
use tollgate_engine::snapshot::{self, Header, SnapshotKey, UnreadableHistory};
use tollgate_engine::{Engine, UserHasher};

/// Snapshots that are read at the same time.
const AT_ONCE: usize = 4;

/// The snapshots of a scorer.
pub(crate) struct Snapshots {
    store: SnapshotStore,
    runtime: Handle,
    hash_key: [u8; 16],
    key: SnapshotKey,
    max_bytes: u64,
    hasher: UserHasher,
    by_user: bool,
    workers: usize,
    needs: RulesNeed,
    state: Mutex<State>,
    changed: Condvar,
}

impl std::fmt::Debug for Snapshots {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Snapshots")
            .field("store", &self.store)
            .finish_non_exhaustive()
    }
}

#[derive(Default)]
struct State {
    /// Goes up with every assignment.
    epoch: u64,
    committed: HashMap<i32, i64>,
    /// Histories at a barrier that are not stored yet, by partition.
    pending: HashMap<i32, PendingSnapshot>,
    /// What the workers take over, by partition.
    restored: HashMap<i32, Restored>,
}

/// A history that was read.
struct Restored {
    histories: Arc<Vec<u8>>,
    /// Workers that have not taken their part yet.
    waiting: usize,
}

/// A history that is being collected from the workers.
struct PendingSnapshot {
    position: Position,
    /// The lowest format that can hold all parts.
    format: u32,
    parts: Vec<Vec<u8>>,
    writing: bool,
}

impl Snapshots {
    /// Opens the store of the settings.
    pub(crate) async fn open(config: &ScorerConfig, topic: &str) -> anyhow::Result<Self> {
        let store = SnapshotStore::open(config, topic)?;
        let hash_key = store.hash_key().await.context("scorer.snapshots")?;
        Ok(Self {
            store,
            runtime: Handle::current(),
            hash_key,
            key: SnapshotKey::derive(config.snapshot_key.expose().as_bytes(), hash_key),
            max_bytes: config.snapshot_max_bytes,
            hasher: UserHasher::new(hash_key),
            by_user: config.mode == Mode::Parallel,
            workers: config.parallelism,
            needs: RulesNeed {
                lookback_seconds: config.rules.lookback_seconds(),
                base_currency: config.rules.money.as_ref().map(|money| money.base),
            },
            state: Mutex::default(),
            changed: Condvar::new(),
        })
    }

    /// The key of the hashes in all histories.
    pub(crate) const fn hash_key(&self) -> [u8; 16] {
        self.hash_key
    }

    /// Fills the engine of a partition with what was restored for it, as far as it belongs to this worker.
    pub(crate) fn take_over(
        &self,
        partition: i32,
        worker: usize,
        engine: &mut Engine,
    ) -> Result<(), UnreadableHistory> {
        let mut state = self.lock();
        let Entry::Occupied(mut restored) = state.restored.entry(partition) else {
            return Ok(());
        };
        let histories = Arc::clone(&restored.get().histories);
        restored.get_mut().waiting -= 1;
        if restored.get().waiting == 0 {
            restored.remove();
        }
        drop(state);
        let worker_of_partition = partition.unsigned_abs() as usize % self.workers;
        engine.read_histories(&histories, |user| {
            worker
                == if self.by_user {
                    user.worker(self.workers)
                } else {
                    worker_of_partition
                }
        })
    }

    /// Adds a worker's part of the history at a barrier, which needs a snapshot format of at least `format`.
    pub(crate) fn collect(self: &Arc<Self>, position: Position, format: u32, part: Vec<u8>) {
        if let Some(pending) = self.lock().pending.get_mut(&position.partition)
            && pending.position == position
        {
            pending.format = pending.format.max(format);
            pending.parts.push(part);
        }
        self.write_what_is_due();
    }

    /// Writes every history that is complete and committed.
    fn write_what_is_due(self: &Arc<Self>) {
        let mut state = self.lock();
        let State {
            epoch,
            committed,
            pending,
            ..
        } = &mut *state;
        let epoch = *epoch;
        for (partition, pending) in pending {
            let is_committed = committed
                .get(partition)
                .is_some_and(|committed| *committed >= pending.position.offset);
            if pending.writing || pending.parts.len() < self.workers || !is_committed {
                continue;
            }
            pending.writing = true;
            let (position, format) = (pending.position, pending.format);
            let parts = std::mem::take(&mut pending.parts);
            let this = Arc::clone(self);
            self.runtime.spawn(async move {
                this.write(position, format, parts).await;
                let mut state = this.lock();
                if state.epoch == epoch {
                    state.pending.remove(&position.partition);
                }
                this.changed.notify_all();
            });
        }
    }

    async fn write(&self, position: Position, format: u32, parts: Vec<Vec<u8>>) {
        let begun = Instant::now();
        let bytes: usize = parts.iter().map(Vec::len).sum();
        let result = async {
            let header = Header {
                format,
                partition: position.partition,
                partitions: position.partitions,
                log: format!("{:016x}", position.log),
                offset: position.offset,
                lookback_seconds: self.needs.lookback_seconds,
                base_currency: self.needs.base_currency,
                written_at: tollgate_service::now(),
                bytes: bytes as u64,
            };
            let key = self.key.clone();
            let encode = move || snapshot::write(&header, &parts, &key);
            let encoded = tokio::task::spawn_blocking(encode).await??;
            let size = encoded.len();
            self.store
                .write(position.partition, position.offset, encoded)
                .await?;
            anyhow::Ok(size)
        };
        let partition = position.partition;
        match result.await {
            Ok(size) => {
                counter!("tollgate_scorer_snapshots_written_total").increment(1);
                histogram!("tollgate_scorer_snapshot_write_seconds").record(begun.elapsed());
                #[expect(clippy::cast_precision_loss, reason = "a gauge is a float")]
                gauge!("tollgate_scorer_snapshot_bytes", "partition" => partition.to_string())
                    .set(size as f64);
                #[expect(clippy::cast_precision_loss, reason = "a gauge is a float")]
                gauge!("tollgate_scorer_snapshot_timestamp_seconds", "partition" => partition.to_string())
                    .set((tollgate_service::now().micros() / 1_000_000) as f64);
                tracing::debug!(
                    partition,
                    offset = position.offset,
                    bytes,
                    size,
                    "snapshot written"
                );
            }
            Err(error) => {
                counter!("tollgate_scorer_snapshot_failures_total").increment(1);
                // The log still has all records: only the next start takes longer.
                tracing::warn!(
                    partition,
                    offset = position.offset,
                    error = format!("{error:#}"),
                    "a snapshot could not be written; the next one is due after the usual interval"
                );
            }
        }
    }

    /// The newest snapshot that may be used for this partition.
    async fn newest(&self, required: &SnapshotRequirements) -> Option<(i64, Vec<u8>)> {
        let committed = &required.committed;
        let partition = committed.partition;
        let listed = match self.store.list(partition).await {
            Ok(listed) => listed,
            Err(error) => {
                tracing::warn!(partition, %error, "snapshots cannot be listed; the history is rebuilt from the log");
                count_restored("log");
                return None;
            }
        };
        let mut fallback = false;
        for (offset, path) in listed {
            let used = match self.store.read(&path, self.max_bytes).await {
                Ok(bytes) => {
                    let (key, limit) = (self.key.clone(), self.max_bytes);
                    let read = move || snapshot::read(&bytes, &key, limit);
                    match tokio::task::spawn_blocking(read).await {
                        Ok(Ok((header, histories))) => {
                            requirements::check(&header, required, &self.needs)
                                .map(|()| (header.offset, histories))
                                .map_err(str::to_owned)
                        }
                        Ok(Err(unreadable)) => Err(unreadable.to_string()),
                        Err(error) => Err(error.to_string()),
                    }
                }
                Err(error) => Err(error.to_string()),
            };
            match used {
                Ok(found) => {
                    count_restored(if fallback {
                        "older_snapshot"
                    } else {
                        "snapshot"
                    });
                    return Some(found);
                }
                Err(reason) => {
                    fallback = true;
                    counter!("tollgate_scorer_snapshots_refused_total").increment(1);
                    tracing::warn!(partition, offset, reason, "a snapshot is not used");
                }
            }
        }
        tracing::info!(
            partition,
            "no snapshot; the history is rebuilt from the log"
        );
        count_restored("log");
        None
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The snapshots as the consumer of the log uses them.
#[derive(Debug)]
pub(crate) struct Kept(pub(crate) Arc<Snapshots>);

impl Histories for Kept {
    fn worker_hash(&self, key: &[u8]) -> u64 {
        self.0.hasher.key(key).spread()
    }

    fn restore(&self, wanted: &[SnapshotRequirements]) -> HashMap<i32, i64> {
        let begun = Instant::now();
        let snapshots = &*self.0;
        let all = futures_util::stream::iter(wanted)
            .map(|wanted| async move {
                Some((wanted.committed.partition, snapshots.newest(wanted).await?))
            })
            .buffer_unordered(AT_ONCE)
            .filter_map(std::future::ready)
            .collect::<Vec<_>>();
        let found = snapshots.runtime.block_on(all);
        let standing = found
            .iter()
            .map(|(partition, (offset, _))| (*partition, *offset))
            .collect();
        snapshots.lock().restored = found
            .into_iter()
            .map(|(partition, (_, histories))| {
                let restored = Restored {
                    histories: Arc::new(histories),
                    waiting: snapshots.workers,
                };
                (partition, restored)
            })
            .collect();
        histogram!("tollgate_scorer_snapshot_restore_seconds").record(begun.elapsed());
        standing
    }

    fn begin_barrier(&self, position: Position) -> bool {
        let mut state = self.0.lock();
        let Entry::Vacant(free) = state.pending.entry(position.partition) else {
            return false;
        };
        free.insert(PendingSnapshot {
            position,
            format: 0,
            parts: Vec::new(),
            writing: false,
        });
        true
    }

    fn committed(&self, partition: i32, offset: i64) {
        self.0.lock().committed.insert(partition, offset);
        self.0.write_what_is_due();
    }

    fn wait_until_written(&self, timeout: Duration) {
        let deadline = Instant::now() + timeout;
        let mut state = self.0.lock();
        while !state.pending.is_empty() {
            let Some(left) = deadline.checked_duration_since(Instant::now()) else {
                tracing::warn!(
                    "not every snapshot was written in time; the next owner reads more of the log"
                );
                return;
            };
            state = self
                .0
                .changed
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    fn forget(&self) {
        let mut state = self.0.lock();
        *state = State {
            epoch: state.epoch + 1,
            ..State::default()
        };
    }
}

fn count_restored(from: &'static str) {
    counter!("tollgate_scorer_histories_restored_total", "from" => from).increment(1);
}
