//! The thread that reads the topic `imports` and starts the open imports of this instance's partitions.
//!
//! Imports of one folder run one after the other: see `queue`.
//! A consumer group assigns the partitions, and nothing is committed: each owner reads its partitions from the beginning.
//! Invariant: an import runs only in the instance to which its partition is assigned; a revoked partition cancels its
//! imports.

use std::collections::{HashMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use metrics::{counter, gauge};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use tollgate_log::{Log, LogError, RawRecord, ReaderEvent, TopicReader};
use tollgate_service::Shutdown;
use tollgate_service::health::Health;

use super::feed::{ImportOutcome, ImportWriter, first_timestamp, import_object};
use super::journal::{Journal, Progress, Request};
use super::object::ImportContext;
use super::queue::{Action, ImportQueue};
use super::source::{Located, Source, locate};
use tollgate_types::TopicKind;

/// The component that `/readyz` names in its warnings.
const COMPONENT: &str = "imports";
/// How long one poll waits for records. It bounds the delay of a start and of the end of the thread.
const POLL: Duration = Duration::from_millis(100);

/// A partition of the topic while it is assigned to this instance.
struct OwnedPartition {
    /// Distinguishes this assignment from the next one of the same partition.
    generation: u64,
    journal: Journal,
    /// Whether the journal has everything that was on the log at the assignment.
    caught_up: bool,
    cancel: CancellationToken,
    /// The imports started here. An ended import stays in it until the journal has its end.
    started: HashSet<String>,
}

impl OwnedPartition {
    fn new(parent: &CancellationToken, generation: u64) -> Self {
        Self {
            generation,
            journal: Journal::default(),
            caught_up: false,
            cancel: parent.child_token(),
            started: HashSet::new(),
        }
    }
}

/// The partitions that are assigned to this instance.
struct Partitions {
    owned: HashMap<i32, OwnedPartition>,
    generations: u64,
    stop: CancellationToken,
}

impl Partitions {
    fn assign(&mut self, partition: i32) {
        self.generations += 1;
        let owned = OwnedPartition::new(&self.stop, self.generations);
        if let Some(before) = self.owned.insert(partition, owned) {
            before.cancel.cancel();
        }
    }

    fn revoke(&mut self, partition: i32) {
        if let Some(gone) = self.owned.remove(&partition) {
            gone.cancel.cancel();
        }
    }

    fn apply(&mut self, log: &Log, record: &RawRecord<'_>) {
        let Some(owned) = self.owned.get_mut(&record.at.partition) else {
            return;
        };
        // Counted already; it could make this instance read any object, or believe that it has read one.
        if let Err(error) = log.authenticate_raw(TopicKind::Imports, record) {
            let (partition, offset) = (record.at.partition, record.offset);
            tracing::warn!(partition, offset, %error, "a record of imports is skipped");
            return;
        }
        if let Err(reason) = owned.journal.apply(record.payload) {
            let (partition, offset) = (record.at.partition, record.offset);
            tracing::warn!(partition, offset, %reason, "a record of imports is skipped");
        }
    }
}

/// An import that has ended, and how.
struct FinishedImport {
    partition: i32,
    generation: u64,
    id: String,
    object: String,
    folder: String,
    source: Source,
    outcome: ImportOutcome,
}

/// The beginning of an object was read.
struct Peeked {
    /// Of the import.
    id: String,
    /// The first timestamp, if there is one that can be read.
    first: Option<i64>,
    /// Reading it was cancelled: the partition was revoked, and may have been assigned again meanwhile.
    is_cancelled: bool,
}

/// How the worker starts imports.
#[derive(Debug, Clone, Copy)]
pub(super) struct WorkerLimits {
    /// The most concurrent imports of one source.
    pub(super) parallel: usize,
    /// How long an import waits for others of its folder.
    pub(super) pause: Duration,
}

pub(super) struct Worker {
    log: Log,
    reader: TopicReader,
    partitions: Partitions,
    sources: Arc<[Source]>,
    writer: ImportWriter,
    /// The most concurrent imports of one source.
    parallel: usize,
    handle: Handle,
    health: Health,
    shutdown: Shutdown,
    finished: (mpsc::Sender<FinishedImport>, mpsc::Receiver<FinishedImport>),
    running: usize,
    queue: ImportQueue,
    /// The folders of the running imports.
    folders: HashSet<String>,
    /// The first timestamps of objects, in microseconds.
    peeked: (mpsc::Sender<Peeked>, mpsc::Receiver<Peeked>),
}

impl Worker {
    pub(super) fn new(
        log: &Log,
        sources: Arc<[Source]>,
        writer: ImportWriter,
        limits: WorkerLimits,
        health: &Health,
        shutdown: &Shutdown,
    ) -> anyhow::Result<Self> {
        Ok(Self {
            log: log.clone(),
            reader: log.shared_reader("ingest-imports", &[&log.topics().imports])?,
            partitions: Partitions {
                owned: HashMap::new(),
                generations: 0,
                stop: shutdown.token(),
            },
            sources,
            writer,
            parallel: limits.parallel,
            handle: Handle::current(),
            health: health.clone(),
            shutdown: shutdown.clone(),
            finished: mpsc::channel(),
            running: 0,
            queue: ImportQueue::new(limits.pause),
            folders: HashSet::new(),
            peeked: mpsc::channel(),
        })
    }

    /// Runs until the shutdown, and then until all running imports have ended.
    pub(super) fn run(mut self) {
        while !self.shutdown.is_begun() {
            self.read();
            while let Ok(finished) = self.finished.1.try_recv() {
                self.record_outcome(finished);
            }
            self.start_imports();
        }
        while self.running > 0 {
            match self.finished.1.recv() {
                Ok(finished) => self.record_outcome(finished),
                Err(_) => break,
            }
        }
    }

    fn read(&mut self) {
        let Self {
            log,
            reader,
            partitions,
            health,
            ..
        } = self;
        let polled = reader.poll(POLL, &mut |event| match event {
            ReaderEvent::Record(record) => {
                health.warn(COMPONENT, None);
                partitions.apply(log, &record);
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

    /// Starts open imports, and reads the beginnings of those that are compared, up to the limit of each source.
    fn start_imports(&mut self) {
        let now = Instant::now();
        while let Ok(peeked) = self.peeked.1.try_recv() {
            if peeked.is_cancelled {
                self.queue.remove(&peeked.id);
            } else {
                self.queue.set_first(&peeked.id, peeked.first);
            }
        }
        let mut found: HashMap<String, i32> = HashMap::new();
        let all = self.partitions.owned.iter_mut();
        for (partition, owned) in all.filter(|(_, owned)| owned.caught_up) {
            let OwnedPartition {
                journal, started, ..
            } = owned;
            started.retain(|id| journal.is_open(id));
            for (request, progress) in journal.open() {
                if !started.contains(&request.id) {
                    let begun = progress.rows > 0;
                    self.queue.add(&request.id, || request.folder(), begun, now);
                    found.insert(request.id.clone(), *partition);
                }
            }
        }
        self.queue.retain(|id| found.contains_key(id));
        for (id, action) in self.queue.actions(&self.folders, now) {
            if let Some(partition) = found.get(&id) {
                self.act(&id, *partition, action);
            }
        }
    }

    fn act(&mut self, id: &str, partition: i32, action: Action) {
        let Some(owned) = self.partitions.owned.get_mut(&partition) else {
            return;
        };
        let Some((request, progress)) = owned.journal.open().find(|(open, _)| open.id == id) else {
            return;
        };
        let object = match locate(&self.sources, &request.bucket, &request.object) {
            Ok(object) => object,
            Err(reason) => {
                tracing::warn!(%reason, id, "an import waits: no source in the settings matches its object");
                owned.started.insert(id.to_owned());
                self.queue.remove(id);
                return;
            }
        };
        let context = ImportContext {
            partition,
            handle: self.handle.clone(),
            cancel: owned.cancel.clone(),
        };
        if action == Action::Peek {
            self.peek(id, object, context);
            return;
        }
        if object.source.running.load(Ordering::Relaxed) >= self.parallel {
            return;
        }
        tracing::info!(
            id,
            object = object.url,
            from_row = progress.rows,
            "an import starts"
        );
        let (request, progress) = (request.clone(), progress.clone());
        let finished = FinishedImport {
            partition,
            generation: owned.generation,
            id: id.to_owned(),
            object: object.url.clone(),
            folder: request.folder(),
            source: object.source.clone(),
            outcome: ImportOutcome::Panicked,
        };
        if self.spawn(object, request, progress, context, finished)
            && let Some(owned) = self.partitions.owned.get_mut(&partition)
        {
            owned.started.insert(id.to_owned());
            self.queue.remove(id);
        }
    }

    /// Starts an import. False if there is no thread for it.
    fn spawn(
        &mut self,
        object: Located,
        request: Request,
        progress: Progress,
        context: ImportContext,
        mut finished: FinishedImport,
    ) -> bool {
        let (writer, sender) = (self.writer.clone(), self.finished.0.clone());
        let (source, folder) = (finished.source.clone(), finished.folder.clone());
        let work = move || {
            let import =
                AssertUnwindSafe(|| import_object(&writer, &object, &request, progress, &context));
            finished.outcome = catch_unwind(import).unwrap_or(ImportOutcome::Panicked);
            // The worker receives until every import that it started has ended.
            let _ = sender.send(finished);
        };
        let thread = std::thread::Builder::new().name("import".to_owned());
        if let Err(error) = thread.spawn(work) {
            tracing::error!(%error, "an import failed to start");
            return false;
        }
        self.running += 1;
        self.folders.insert(folder);
        source.running.fetch_add(1, Ordering::Relaxed);
        gauge!("tollgate_imports_running").increment(1.0);
        true
    }

    /// Reads the first timestamp of an object.
    fn peek(&mut self, id: &str, object: Located, context: ImportContext) {
        let peeking = Arc::clone(&object.source.peeking);
        if peeking.load(Ordering::Relaxed) >= self.parallel {
            return;
        }
        let (writer, sender, of) = (self.writer.clone(), self.peeked.0.clone(), id.to_owned());
        let running = Arc::clone(&peeking);
        let work = move || {
            let read = AssertUnwindSafe(|| first_timestamp(&writer, &object, &context));
            let first = catch_unwind(read).unwrap_or_default();
            running.fetch_sub(1, Ordering::Relaxed);
            // The receiver is gone only if the service stops.
            let _ = sender.send(Peeked {
                id: of,
                first,
                is_cancelled: context.cancel.is_cancelled(),
            });
        };
        peeking.fetch_add(1, Ordering::Relaxed);
        let thread = std::thread::Builder::new().name("import-begin".to_owned());
        match thread.spawn(work) {
            Ok(_) => self.queue.set_requested(id),
            Err(error) => {
                peeking.fetch_sub(1, Ordering::Relaxed);
                tracing::error!(%error, "the beginning of an object is not read");
            }
        }
    }

    fn record_outcome(&mut self, finished: FinishedImport) {
        self.running -= 1;
        self.folders.remove(&finished.folder);
        finished.source.running.fetch_sub(1, Ordering::Relaxed);
        gauge!("tollgate_imports_running").decrement(1.0);
        let (id, object) = (finished.id, finished.object);
        match finished.outcome {
            ImportOutcome::Done(progress) => {
                counter!("tollgate_imports_total", "outcome" => "done").increment(1);
                let (accepted, rejected) = (progress.accepted, progress.rejected);
                let late = progress.late;
                tracing::info!(id, object, accepted, rejected, late, "an import is done");
            }
            ImportOutcome::Failed(failure) => {
                counter!("tollgate_imports_total", "outcome" => "failed").increment(1);
                let (reason, rows) = (failure.reason, failure.progress.rows);
                tracing::error!(id, object, reason, rows, "an import failed");
            }
            ImportOutcome::Panicked => {
                tracing::error!(id, object, "an import panicked");
            }
            // If the partition was assigned again meanwhile, the import has already been started anew.
            ImportOutcome::Cancelled => {
                if let Some(owned) = self.partitions.owned.get_mut(&finished.partition)
                    && owned.generation == finished.generation
                {
                    owned.started.remove(&id);
                }
            }
        }
    }
}
