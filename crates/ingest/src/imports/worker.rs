//! The thread that reads the topic `imports` and starts what is to be done in this instance's partitions.
//!
//! A consumer group shares the partitions out, and nothing is ever committed under it: each owner reads from the
//! beginning. Invariant: an import runs only in the instance that owns its partition, as far as that knows.

use std::collections::{HashMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use metrics::{counter, gauge};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use tollgate_log::{Log, LogError, RawRecord, ReaderEvent, TopicReader};
use tollgate_service::Shutdown;
use tollgate_service::health::Health;

use super::feed::{End, Line, feed};
use super::journal::Journal;
use super::object::Means;
use super::source::{Source, locate};

/// The component that `/readyz` names in its warnings.
const COMPONENT: &str = "imports";
/// How long one look for records takes when there are none.
const POLL: Duration = Duration::from_millis(100);

/// A partition of the topic, as long as it is this instance's.
struct Owned {
    /// Distinguishes this ownership from the next.
    generation: u64,
    journal: Journal,
    /// Everything that was there when it was assigned is in the journal.
    caught_up: bool,
    cancel: CancellationToken,
    /// Begun here; an import that has ended stays in it until the journal has its end too.
    begun: HashSet<String>,
}

impl Owned {
    fn new(parent: &CancellationToken, generation: u64) -> Self {
        Self {
            generation,
            journal: Journal::default(),
            caught_up: false,
            cancel: parent.child_token(),
            begun: HashSet::new(),
        }
    }
}

/// The partitions of this instance. Those that are taken away cancel their imports.
struct Partitions {
    owned: HashMap<i32, Owned>,
    generations: u64,
    stop: CancellationToken,
}

impl Partitions {
    fn assign(&mut self, partition: i32) {
        self.generations += 1;
        let owned = Owned::new(&self.stop, self.generations);
        if let Some(before) = self.owned.insert(partition, owned) {
            before.cancel.cancel();
        }
    }

    fn revoke(&mut self, partition: i32) {
        if let Some(gone) = self.owned.remove(&partition) {
            gone.cancel.cancel();
        }
    }

    fn apply(&mut self, record: &RawRecord<'_>) {
        let Some(owned) = self.owned.get_mut(&record.at.partition) else {
            return;
        };
        if let Err(reason) = owned.journal.apply(record.payload) {
            let (partition, offset) = (record.at.partition, record.offset);
            tracing::warn!(partition, offset, %reason, "a record of imports is skipped");
        }
    }
}

/// What an import leaves when it ends.
struct Ended {
    partition: i32,
    generation: u64,
    id: String,
    object: String,
    source: Source,
    end: End,
}

pub(super) struct Worker {
    reader: TopicReader,
    partitions: Partitions,
    sources: Arc<[Source]>,
    line: Line,
    /// Objects of one source that are read side by side.
    parallel: usize,
    handle: Handle,
    health: Health,
    shutdown: Shutdown,
    ended: (mpsc::Sender<Ended>, mpsc::Receiver<Ended>),
    running: usize,
}

impl Worker {
    pub(super) fn new(
        log: &Log,
        sources: Arc<[Source]>,
        line: Line,
        parallel: usize,
        health: &Health,
        shutdown: &Shutdown,
    ) -> anyhow::Result<Self> {
        Ok(Self {
            reader: log.shared_reader("ingest-imports", &[&log.topics().imports])?,
            partitions: Partitions {
                owned: HashMap::new(),
                generations: 0,
                stop: shutdown.token(),
            },
            sources,
            line,
            parallel,
            handle: Handle::current(),
            health: health.clone(),
            shutdown: shutdown.clone(),
            ended: mpsc::channel(),
            running: 0,
        })
    }

    /// Works until the shutdown, and until what is under way has stopped.
    pub(super) fn run(mut self) {
        while !self.shutdown.is_begun() {
            self.read();
            while let Ok(ended) = self.ended.1.try_recv() {
                self.note(ended);
            }
            self.begin();
        }
        while self.running > 0 {
            match self.ended.1.recv() {
                Ok(ended) => self.note(ended),
                Err(_) => break,
            }
        }
    }

    fn read(&mut self) {
        let Self {
            reader,
            partitions,
            health,
            ..
        } = self;
        let polled = reader.poll(POLL, &mut |event| match event {
            ReaderEvent::Record(record) => {
                health.warn(COMPONENT, None);
                partitions.apply(&record);
            }
            ReaderEvent::CaughtUp(at) => {
                health.warn(COMPONENT, None);
                if let Some(owned) = partitions.owned.get_mut(&at.partition) {
                    owned.caught_up = true;
                }
            }
            ReaderEvent::Assigned(given) => {
                given.iter().for_each(|at| partitions.assign(at.partition));
            }
            ReaderEvent::Revoked(taken) => {
                taken.iter().for_each(|at| partitions.revoke(at.partition));
            }
        });
        match polled {
            // The client recovers by itself, and has reported it.
            Ok(()) | Err(LogError::Client { .. }) => {}
            Err(error @ (LogError::NoTopic(_) | LogError::Refused(_))) => {
                health.warn(COMPONENT, Some(error.to_string()));
            }
        }
    }

    /// Starts what is to be done, oldest first, as far as there is room.
    fn begin(&mut self) {
        let all = self.partitions.owned.iter_mut();
        for (partition, owned) in all.filter(|(_, owned)| owned.caught_up) {
            let Owned {
                generation,
                journal,
                begun,
                cancel,
                ..
            } = owned;
            begun.retain(|id| journal.is_open(id));
            for (request, progress) in journal.open() {
                if begun.contains(&request.id) {
                    continue;
                }
                let object = match locate(&self.sources, &request.bucket, &request.object) {
                    Ok(object) => object,
                    Err(reason) => {
                        tracing::warn!(%reason, id = request.id, "an import waits: its source is gone from the settings");
                        begun.insert(request.id.clone());
                        continue;
                    }
                };
                if object.source.running.load(Ordering::Relaxed) >= self.parallel {
                    continue;
                }
                let means = Means {
                    partition: *partition,
                    handle: self.handle.clone(),
                    cancel: cancel.clone(),
                };
                tracing::info!(
                    id = request.id,
                    object = object.url,
                    from_row = progress.rows,
                    "an import begins"
                );
                let (line, told) = (self.line.clone(), self.ended.0.clone());
                let (request, progress) = (request.clone(), progress.clone());
                let (id, source) = (request.id.clone(), object.source.clone());
                let mut ended = Ended {
                    partition: *partition,
                    generation: *generation,
                    id: id.clone(),
                    object: object.url.clone(),
                    source: source.clone(),
                    end: End::Panicked,
                };
                let work = move || {
                    let fed = AssertUnwindSafe(|| feed(&line, &object, &request, progress, &means));
                    ended.end = catch_unwind(fed).unwrap_or(End::Panicked);
                    // The worker waits for everyone that it began.
                    let _ = told.send(ended);
                };
                let thread = std::thread::Builder::new().name("import".to_owned());
                match thread.spawn(work) {
                    Ok(_) => {
                        begun.insert(id);
                        self.running += 1;
                        source.running.fetch_add(1, Ordering::Relaxed);
                        gauge!("tollgate_imports_running").increment(1.0);
                    }
                    Err(error) => tracing::error!(%error, "an import cannot begin"),
                }
            }
        }
    }

    fn note(&mut self, ended: Ended) {
        self.running -= 1;
        ended.source.running.fetch_sub(1, Ordering::Relaxed);
        gauge!("tollgate_imports_running").decrement(1.0);
        let (id, object) = (ended.id, ended.object);
        match ended.end {
            End::Done(progress) => {
                counter!("tollgate_imports_total", "outcome" => "done").increment(1);
                let (accepted, rejected) = (progress.accepted, progress.rejected);
                tracing::info!(id, object, accepted, rejected, "an import is done");
            }
            End::Failed(failure) => {
                counter!("tollgate_imports_total", "outcome" => "failed").increment(1);
                let (reason, rows) = (failure.reason, failure.progress.rows);
                tracing::error!(id, object, reason, rows, "an object cannot be imported");
            }
            End::Panicked => {
                tracing::error!(id, object, "an import ended by a defect of this program");
            }
            // Where the partition came back meanwhile, it has begun anew already.
            End::Cancelled => {
                if let Some(owned) = self.partitions.owned.get_mut(&ended.partition)
                    && owned.generation == ended.generation
                {
                    owned.begun.remove(&id);
                }
            }
        }
    }
}
