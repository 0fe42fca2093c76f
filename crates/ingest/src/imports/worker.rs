//! The thread that reads the topic `imports` and starts what is to be done in this instance's partitions.
//!
//! A consumer group shares the partitions out, and nothing is ever committed under it: each owner reads from the
//! beginning. Invariant: an import runs only in the instance that owns its partition, as far as that knows.

use std::collections::{HashMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, mpsc};
use std::time::Duration;

use metrics::{counter, gauge};
use rdkafka::Message as _;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext, Rebalance};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::BorrowedMessage;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use tollgate_log::{Kafka, Profile, reports};
use tollgate_service::Shutdown;
use tollgate_service::health::Health;

use super::feed::{ImportOutcome, ImportWriter, import_object};
use super::journal::Journal;
use super::object::ImportContext;
use super::source::{Source, locate};

/// The component that `/readyz` names in its warnings.
const COMPONENT: &str = "imports";
/// How long one look for records takes when there are none.
const POLL: Duration = Duration::from_millis(100);

/// A partition of the topic, as long as it is this instance's.
struct Owned {
    /// Tells one ownership from the next.
    generation: u64,
    journal: Journal,
    /// Everything that was there when it was taken is known.
    caught_up: bool,
    cancel: CancellationToken,
    /// Begun here; an import that has ended stays in it until the journal says so too.
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

/// What the client library calls back into: partitions that go take their imports with them.
struct Partitions {
    owned: Mutex<HashMap<i32, Owned>>,
    generations: AtomicU64,
    stop: CancellationToken,
}

impl Partitions {
    fn lock(&self) -> MutexGuard<'_, HashMap<i32, Owned>> {
        self.owned.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClientContext for Partitions {
    fn error(&self, error: KafkaError, reason: &str) {
        reports::tell(&error, reason);
    }

    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        reports::log(level, facility, line);
    }
}

impl ConsumerContext for Partitions {
    fn pre_rebalance(&self, _: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        if let Rebalance::Revoke(list) = rebalance {
            let mut owned = self.lock();
            for element in list.elements() {
                if let Some(gone) = owned.remove(&element.partition()) {
                    gone.cancel.cancel();
                }
            }
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
    outcome: ImportOutcome,
}

pub(super) struct Worker {
    consumer: BaseConsumer<Partitions>,
    kafka: Kafka,
    sources: std::sync::Arc<[Source]>,
    writer: ImportWriter,
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
        kafka: &Kafka,
        sources: std::sync::Arc<[Source]>,
        writer: ImportWriter,
        parallel: usize,
        health: &Health,
        shutdown: &Shutdown,
    ) -> anyhow::Result<Self> {
        let mut config = kafka.consumer_config();
        config
            .set(
                "group.id",
                format!("{}tollgate-ingest-imports", kafka.config().topic_prefix),
            )
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("auto.offset.reset", "earliest")
            .set("enable.partition.eof", "true")
            .set("partition.assignment.strategy", "range,roundrobin");
        let own = |name: &str| kafka.config().properties.contains_key(name);
        if !own("session.timeout.ms") {
            // An instance that was killed is noticed in seconds, and another goes on.
            config.set("session.timeout.ms", "10000");
        }
        if kafka.config().profile() == Profile::Embedded && !own("fetch.wait.max.ms") {
            config.set("fetch.wait.max.ms", "50");
        }
        let partitions = Partitions {
            owned: Mutex::default(),
            generations: AtomicU64::new(0),
            stop: shutdown.token(),
        };
        let consumer: BaseConsumer<Partitions> = config.create_with_context(partitions)?;
        consumer.subscribe(&[&kafka.topics().imports])?;
        Ok(Self {
            consumer,
            kafka: kafka.clone(),
            sources,
            writer,
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

    fn read(&self) {
        match self.consumer.poll(POLL) {
            None => {}
            Some(Ok(message)) => {
                self.health.warn(COMPONENT, None);
                self.take(&message);
            }
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                self.health.warn(COMPONENT, None);
                self.with(partition, |owned| owned.caught_up = true);
            }
            Some(Err(error)) => match error.rdkafka_error_code() {
                Some(
                    RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic,
                ) => {
                    let topic = &self.kafka.topics().imports;
                    let reason =
                        format!("topic {topic} does not exist; `tollgate topics create` makes it");
                    self.health.warn(COMPONENT, Some(reason));
                }
                _ => reports::tell(&error, "imports are read"),
            },
        }
    }

    fn take(&self, message: &BorrowedMessage<'_>) {
        let payload = message.payload().unwrap_or_default();
        if let Some(log) = self.kafka.embedded() {
            log.release(
                message.topic(),
                message.partition(),
                message.key_len() + payload.len(),
            );
        }
        self.with(message.partition(), |owned| {
            if let Err(reason) = owned.journal.apply(payload) {
                let (partition, offset) = (message.partition(), message.offset());
                tracing::warn!(partition, offset, %reason, "a record of imports is passed over");
            }
        });
    }

    fn with(&self, partition: i32, change: impl FnOnce(&mut Owned)) {
        let partitions = self.consumer.context();
        let mut owned = partitions.lock();
        change(owned.entry(partition).or_insert_with(|| {
            let generation = partitions.generations.fetch_add(1, Ordering::Relaxed);
            Owned::new(&partitions.stop, generation)
        }));
    }

    /// Starts what is to be done, oldest first, as far as there is room.
    fn begin(&mut self) {
        let partitions = self.consumer.context().clone();
        let mut all = partitions.lock();
        for (partition, owned) in all.iter_mut().filter(|(_, owned)| owned.caught_up) {
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
                let context = ImportContext {
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
                let (writer, ended_sender) = (self.writer.clone(), self.ended.0.clone());
                let (request, progress) = (request.clone(), progress.clone());
                let (id, source) = (request.id.clone(), object.source.clone());
                let mut ended = Ended {
                    partition: *partition,
                    generation: *generation,
                    id: id.clone(),
                    object: object.url.clone(),
                    source: source.clone(),
                    outcome: ImportOutcome::Panicked,
                };
                let work = move || {
                    let fed = AssertUnwindSafe(|| {
                        import_object(&writer, &object, &request, progress, &context)
                    });
                    ended.outcome = catch_unwind(fed).unwrap_or(ImportOutcome::Panicked);
                    // The worker waits for everyone that it began.
                    let _ = ended_sender.send(ended);
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
        match ended.outcome {
            ImportOutcome::Done(progress) => {
                counter!("tollgate_imports_total", "outcome" => "done").increment(1);
                let (accepted, rejected) = (progress.accepted, progress.rejected);
                tracing::info!(id, object, accepted, rejected, "an import is done");
            }
            ImportOutcome::Failed(failure) => {
                counter!("tollgate_imports_total", "outcome" => "failed").increment(1);
                let (reason, rows) = (failure.reason, failure.progress.rows);
                tracing::error!(id, object, reason, rows, "an object cannot be imported");
            }
            ImportOutcome::Panicked => {
                tracing::error!(id, object, "an import ended by a defect of this program");
            }
            // Where the partition came back meanwhile, it has begun anew already.
            ImportOutcome::Cancelled => {
                let partitions = self.consumer.context();
                if let Some(owned) = partitions.lock().get_mut(&ended.partition)
                    && owned.generation == ended.generation
                {
                    owned.begun.remove(&id);
                }
            }
        }
    }
}
