//! One worker: scores the records of its queue, in order, and writes the results.
//!
//! Invariant: a batch is complete only when every record that it caused is acknowledged: decision, alert, reply, dead
//! letter, or the record forwarded to its user's partition. The worker waits in between only in the modes `ordered` and
//! `batch`.

mod output;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::SystemTime;

use anyhow::Context as _;
use tokio::sync::mpsc;
use tollgate_log::{
    Acks, Batch, DeliveryFailure, Event, Log, Position, Producer, Provenance, Reads, Record,
    SendError, Unauthenticated, WorkerQueue,
};
use tollgate_service::Shutdown;
use tollgate_service::card_data::count_card_data;
use tollgate_service::config::ConfigError;
use tollgate_service::health::Health;
use tollgate_service::telemetry::trace::{
    Array, Span, StringValue, Value, begin_always, begin_kept,
};
use tollgate_types::{
    CardPolicy, Indicator, Rejection, ReplyAddress, Stage, Tenant, Timestamp, TopicKind,
    TraceContext, Transaction, headers,
};

use crate::config::{Mode, ScorerConfig};
use crate::measure::Measures;
use crate::route::{self, Routing};
use crate::snapshot::Snapshots;
use tollgate_engine::{Engine, Rules, Verdict};

/// The most bytes of headers of a record. Those that Tollgate writes are far smaller, and a record that is forwarded
/// grows by a header.
const MAX_HEADER_BYTES: usize = 64 * 1024;

/// What all workers of a scorer share.
pub(crate) struct WorkerSettings {
    config: ScorerConfig,
    health: Health,
    kafka: Log,
    producer: Producer,
    shutdown: Shutdown,
    failures: mpsc::UnboundedSender<DeliveryFailure>,
    rules: Arc<Rules>,
    ruleset_version: String,
    hash_key: [u8; 16],
    snapshots: Option<Arc<Snapshots>>,
    reads: Reads,
    cards: CardPolicy,
}

impl WorkerSettings {
    pub(crate) fn new(
        config: ScorerConfig,
        health: Health,
        kafka: Log,
        producer: Producer,
        shutdown: Shutdown,
        failures: mpsc::UnboundedSender<DeliveryFailure>,
        snapshots: Option<Arc<Snapshots>>,
    ) -> Result<Self, ConfigError> {
        Ok(Self {
            cards: config.card_policy()?,
            reads: kafka.reads(Stage::Scorer),
            health,
            kafka,
            producer,
            shutdown,
            failures,
            rules: Arc::new(config.rules.clone()),
            ruleset_version: config.rules.version(),
            hash_key: snapshots
                .as_ref()
                .map_or_else(tollgate_service::random_key, |snapshots| {
                    snapshots.hash_key()
                }),
            snapshots,
            config,
        })
    }
}

/// A worker and the histories of its users, by partition.
pub(crate) struct Worker {
    settings: Arc<WorkerSettings>,
    index: usize,
    engines: HashMap<i32, Engine>,
    routing: Routing,
    reply_partitions: i32,
    /// Whether a service wrote the record being scored, so that its headers may be believed.
    is_of_service: bool,
    /// Where a caller waits for the decision on it.
    reply_to: Option<ReplyAddress>,
    measures: Measures,
    /// The decision being written; its memory is used again.
    out: Vec<u8>,
    /// The kept traces of records in the batch.
    joined: Vec<TraceContext>,
}

impl Worker {
    pub(crate) fn new(settings: Arc<WorkerSettings>, index: usize) -> Self {
        let routing = Routing::new(settings.kafka.partitioner());
        Self {
            settings,
            index,
            engines: HashMap::new(),
            routing,
            reply_partitions: 0,
            is_of_service: false,
            reply_to: None,
            measures: Measures::new(index),
            out: Vec::with_capacity(4 * 1024),
            joined: Vec::new(),
        }
    }

    /// Works until its queue ends.
    pub(crate) fn run(mut self, mut queue: WorkerQueue) -> anyhow::Result<()> {
        while let Some(event) = queue.blocking_recv() {
            match event {
                Event::Assigned(assignment) => {
                    self.routing.partitions = assignment.total;
                    self.reply_partitions = self.count_reply_partitions();
                    self.engines.clear();
                    for partition in assignment.partitions {
                        let engine = self.new_engine(partition)?;
                        self.engines.insert(partition, engine);
                    }
                }
                Event::Barrier(position) => self.write_snapshot_part(position),
                Event::Revoked(_) => self.engines.clear(),
                Event::Batch(batch) => {
                    let result = match self.settings.config.mode {
                        Mode::Parallel => self.pipelined(batch),
                        Mode::Ordered => self.one_by_one(batch),
                        Mode::Batch => self.at_once(batch),
                    };
                    match result {
                        // Records that are not completed are read again after the restart.
                        Err(_) if self.settings.shutdown.is_begun() => return Ok(()),
                        other => other?,
                    }
                }
            }
        }
        Ok(())
    }

    /// An engine with the restored history of the partition.
    fn new_engine(&self, partition: i32) -> anyhow::Result<Engine> {
        let settings = &self.settings;
        let mut engine = Engine::new(Arc::clone(&settings.rules), settings.hash_key);
        if let Some(snapshots) = &settings.snapshots {
            // Its checksum was right, so this is a fault of the program.
            snapshots
                .take_over(partition, self.index, &mut engine)
                .with_context(|| format!("the snapshot of partition {partition}"))?;
        }
        Ok(engine)
    }

    fn write_snapshot_part(&self, position: Position) {
        let (Some(snapshots), Some(engine)) = (
            &self.settings.snapshots,
            self.engines.get(&position.partition),
        ) else {
            return;
        };
        let mut part = Vec::with_capacity(engine.memory_bytes());
        let format = engine.write_histories(&mut part);
        snapshots.collect(position, format, part);
    }

    fn count_reply_partitions(&self) -> i32 {
        let topic = self.settings.kafka.topics().replies.as_str();
        match self.settings.kafka.partition_counts(&[topic]) {
            Ok(counts) => counts.get(topic).copied().unwrap_or_default(),
            Err(error) => {
                tracing::warn!(%error, "callers that wait for a decision get no reply until the next assignment");
                0
            }
        }
    }

    /// Returns while the acknowledgements of the batch are outstanding.
    fn pipelined(&mut self, mut batch: Batch) -> anyhow::Result<()> {
        let acks = Acks::open();
        self.score_all(&batch, &acks)?;
        batch.joins(&self.settings.reads, std::mem::take(&mut self.joined));
        let failures = self.settings.failures.clone();
        acks.seal_with(move |result| match result {
            Ok(()) => batch.complete(),
            // The scorer ends, and reads the batch again after its restart.
            Err(failure) => drop(failures.send(failure)),
        });
        Ok(())
    }

    /// Returns when every record that the batch caused is acknowledged.
    fn at_once(&mut self, mut batch: Batch) -> anyhow::Result<()> {
        let (acks, acknowledged) = Acks::to_wait_for();
        self.score_all(&batch, &acks)?;
        batch.joins(&self.settings.reads, std::mem::take(&mut self.joined));
        acks.seal();
        acknowledged.recv()??;
        batch.complete();
        Ok(())
    }

    /// Starts each record when everything that the last one caused is acknowledged.
    fn one_by_one(&mut self, mut batch: Batch) -> anyhow::Result<()> {
        let now = tollgate_service::now();
        for record in batch.iter() {
            let (acks, acknowledged) = Acks::to_wait_for();
            self.score_one(&record, now, &acks)?;
            acks.seal();
            acknowledged.recv()??;
        }
        self.measures.flush(&self.engines);
        batch.joins(&self.settings.reads, std::mem::take(&mut self.joined));
        batch.complete();
        Ok(())
    }

    fn score_all(&mut self, batch: &Batch, acks: &Arc<Acks>) -> Result<(), SendError> {
        let now = tollgate_service::now();
        for record in batch.iter() {
            self.score_one(&record, now, acks)?;
        }
        self.measures.flush(&self.engines);
        Ok(())
    }

    fn score_one(
        &mut self,
        record: &Record<'_>,
        now: Timestamp,
        acks: &Arc<Acks>,
    ) -> Result<(), SendError> {
        let provenance = self
            .settings
            .kafka
            .authenticate(TopicKind::Transactions, record);
        if record.replayed && provenance == Err(Unauthenticated::UnknownKey) {
            self.miss();
        }
        self.is_of_service = provenance == Ok(Provenance::Service);
        self.reply_to = route::reply_address(record)
            .filter(|_| self.is_of_service)
            .filter(|address| (0..self.reply_partitions).contains(&address.partition));
        // Producers other than ingest may send card data. It stays in the topic of transactions until its retention ends,
        // and gets no further.
        let protected = self.settings.cards.protect(record.payload);
        let record = &Record {
            payload: &protected.text,
            ..*record
        };
        if !record.replayed {
            count_card_data(Stage::Scorer.name(), protected.found);
        }
        // Replayed or not: a record that was not scored is not part of a history either.
        let (transaction, tenant) = match self.read(record, provenance, protected.refusal) {
            Ok(read) => read,
            Err((kind, rejection)) => return self.dead_letter(record, kind, &rejection, acks),
        };
        if let Some(partition) = self.routing.elsewhere(record, &transaction) {
            return self.forward(record, &transaction, partition, acks);
        }
        if self.is_ahead(record, &transaction) {
            let hours = self.settings.config.max_ahead_hours;
            let reason = format!("more than {hours} h after the record's own time");
            let rejection = Rejection::new("timestamp", reason);
            return self.dead_letter(record, "timestamp_ahead", &rejection, acks);
        }
        let Some(engine) = self.engines.get_mut(&record.partition) else {
            // An assignment precedes the records of its partitions.
            return Err(SendError::Failed(format!(
                "partition {} is not assigned",
                record.partition
            )));
        };
        let began = self.measures.begin_scoring();
        let origin = route::origin(record);
        let verdict = engine.score_in(tenant, &transaction, &origin);
        self.measures.end_scoring(began);
        if record.replayed {
            self.measures.replayed += 1;
            return Ok(());
        }
        self.measures
            .count(&verdict, transaction.timestamp, &origin, now);
        let in_header = record.trace();
        let parent = in_header.or_else(|| transaction.trace());
        let kept = match verdict.status.is_alert() {
            true => begin_always(parent),
            false => begin_kept(parent),
        };
        // A trace that is not kept and came as a member stays in the transaction.
        let under = kept.or(in_header);
        self.out.clear();
        verdict.write_decision(
            tenant,
            &transaction,
            now,
            &self.settings.ruleset_version,
            under,
            &mut self.out,
        );
        let began = kept.map(|_| SystemTime::now());
        let alert = verdict.status.is_alert() && !origin.backfill;
        self.emit(record, &transaction, alert, under, acks)?;
        if !origin.backfill {
            self.reply(record, &transaction, tenant, verdict.foreign, under, acks)?;
        }
        if let Some((context, began)) = kept.zip(began) {
            let span = self.settings.reads.process(record, context, parent);
            verdict_of(span.since(began), &transaction, &verdict).end();
            self.joined.push(parent.unwrap_or(context));
        }
        Ok(())
    }

    /// The transaction of a record and its tenant; or the kind of its dead letter, and the reason.
    fn read<'r>(
        &self,
        record: &'r Record<'_>,
        provenance: Result<Provenance, Unauthenticated>,
        refusal: Option<Rejection>,
    ) -> Result<(Transaction<'r>, Tenant<'r>), (&'static str, Rejection)> {
        provenance
            .map_err(|error| (Unauthenticated::KIND, Rejection::new("", error.to_string())))?;
        let limit = self.settings.config.max_transaction_bytes;
        if record.payload.len() > limit {
            let reason = format!("the transaction is larger than {limit} bytes");
            return Err(("too_large", Rejection::new("", reason)));
        }
        if record.headers.size() > MAX_HEADER_BYTES {
            let reason = format!("the headers are larger than {MAX_HEADER_BYTES} bytes");
            return Err(("too_large", Rejection::new("", reason)));
        }
        if let Some(refusal) = refusal {
            return Err(("card_data", refusal));
        }
        let transaction = Transaction::parse(record.payload).map_err(|rejection| {
            let kind = match rejection.malformed {
                true => "malformed",
                false => "invalid",
            };
            (kind, rejection)
        })?;
        transaction
            .check_not_before(
                self.settings.config.earliest_timestamp,
                "scorer.earliest_timestamp",
            )
            .map_err(|rejection| ("invalid", rejection))?;
        let tenant =
            Tenant::from_header(record.headers.last(headers::TENANT)).map_err(|error| {
                let reason = format!("header {}: {error}", headers::TENANT);
                ("invalid", Rejection::new("", reason))
            })?;
        Ok((transaction, tenant))
    }

    /// A record cannot become part of a history that is rebuilt, because it was signed with a key that is not configured. It
    /// may have been part of it before.
    fn miss(&mut self) {
        self.measures.missed += 1;
        let warning = "records that were signed with a key that is not in kafka.authentication.keys are missing from \
                       the histories that were rebuilt: scores may be too low. If a key was removed, add it behind the \
                       others again and restart the scorer";
        let health = &self.settings.health;
        health.warn("history_keys", Some(warning.to_owned()));
    }

    fn is_ahead(&self, record: &Record<'_>, transaction: &Transaction<'_>) -> bool {
        let limit = i64::from(self.settings.config.max_ahead_hours) * 3_600_000_000;
        record
            .timestamp_ms
            .and_then(Timestamp::from_millis)
            .is_some_and(|written| transaction.timestamp - written > limit)
    }
}

/// The attributes of a decision, without those of its transaction.
fn verdict_of(span: Span, transaction: &Transaction<'_>, verdict: &Verdict) -> Span {
    let indicators = verdict.indicators.iter().map(Indicator::name);
    let indicators: Vec<StringValue> = indicators.map(StringValue::from).collect();
    span.with(
        "tollgate.transaction.id",
        transaction.transaction_id.to_string(),
    )
    .with("tollgate.decision.status", verdict.status.name())
    // The exact score of a single indicator would reveal the amount.
    .with(
        "tollgate.decision.score",
        (verdict.score / 10.0).floor() * 10.0,
    )
    .with(
        "tollgate.decision.indicators",
        Value::Array(Array::String(indicators)),
    )
    .with("tollgate.decision.duplicate", verdict.duplicate)
    .with("tollgate.decision.late", verdict.late)
    .with("tollgate.decision.conflict", verdict.conflict)
}
