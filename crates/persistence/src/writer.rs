//! The loop from the log to the store: collect, write, dead-letter poison records, complete.
//!
//! Invariant: a batch is completed only after each of its records is stored or acknowledged as a dead letter. While the
//! store is down the loop waits: the records in flight reach their budget, and the consumer pauses.

use std::time::{Duration, SystemTime};

use anyhow::{Context as _, anyhow};
use tokio_util::sync::CancellationToken;
use tollgate_log::{
    Batch, Batching, ConsumerOptions, Distribution, Log, Reads, StartingPosition, Unauthenticated,
};
use tollgate_service::Shutdown;
use tollgate_service::database::DatabaseError;
use tollgate_service::health::Health;
use tollgate_service::resilience::{CallFailure, CallPolicy};
use tollgate_types::{Stage, TopicKind};

use crate::batch_reader::BatchReader;
use crate::config::PersistenceConfig;
use crate::dead_letters::{DeadLetters, Letter};
use crate::differences::Differences;
use crate::rows::Row;
use crate::store::Store;
use crate::traces::Traces;

/// Interval of the probes of the store while the writer is idle.
const PROBE_INTERVAL: Duration = Duration::from_secs(2);
/// Full transactions that may wait in memory behind the current one.
const BATCHES_AHEAD: usize = 8;

/// Stores decisions from the log.
#[derive(Debug)]
pub(crate) struct DecisionWriter {
    kafka: Log,
    reads: Reads,
    dead_letters: DeadLetters,
    store: Store,
    health: Health,
    shutdown: Shutdown,
    /// Cancelled at the end of the grace period.
    out_of_time: CancellationToken,
    batch_max: usize,
    batch_max_bytes: usize,
    differences: Differences,
}

/// The outcome of writing some rows.
enum WriteOutcome {
    Stored,
    Refused {
        reason: String,
        attempts: u32,
    },
    /// The shutdown came before an answer: the records are read again.
    Abandoned,
}

impl WriteOutcome {
    /// Why the rows were refused, if they were.
    fn refusal(&self) -> Option<&str> {
        match self {
            Self::Refused { reason, .. } => Some(reason),
            Self::Stored | Self::Abandoned => None,
        }
    }
}

impl DecisionWriter {
    /// # Errors
    /// The settings of the producer are invalid.
    pub(crate) fn new(
        config: &PersistenceConfig,
        kafka: Log,
        store: Store,
        health: Health,
        shutdown: Shutdown,
    ) -> anyhow::Result<Self> {
        let out_of_time = CancellationToken::new();
        let dead_letters = DeadLetters::new(kafka.clone(), shutdown.clone(), out_of_time.clone())?;
        let (batch_max, batch_max_bytes) = (config.batch_max, config.batch_max_bytes);
        Ok(Self {
            reads: kafka.reads(Stage::Persistence),
            kafka,
            dead_letters,
            store,
            health,
            shutdown,
            out_of_time,
            batch_max,
            batch_max_bytes,
            differences: Differences::default(),
        })
    }

    /// Runs until the shutdown. Records in flight are then stored, or left uncommitted.
    ///
    /// # Errors
    /// What ended it before the shutdown.
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        let (shutdown, out_of_time) = (self.shutdown.clone(), self.out_of_time.clone());
        tokio::spawn(async move {
            shutdown.begun().await;
            tokio::time::sleep(shutdown.grace()).await;
            out_of_time.cancel();
        });
        let topics = self.kafka.topics();
        let needed = [topics.decisions.as_str(), &topics.decisions_dlq];
        if !self.migrate().await?
            || !self
                .kafka
                .wait_for_topics(&needed, &self.health, &self.shutdown)
                .await
        {
            return Ok(());
        }
        let (consumer, queues) =
            self.kafka
                .consume(self.options(), &self.health, &self.shutdown)?;
        let queue = queues
            .into_iter()
            .next()
            .context("the consumer has no worker queue")?;
        let result = self
            .work(BatchReader::new(
                queue,
                self.batch_max,
                self.batch_max_bytes,
            ))
            .await;
        if result.is_err() {
            // The consumer leaves its group, so that another replica need not wait for a timeout.
            self.shutdown.begin();
        }
        let read = consumer.join().await;
        result.and(read.map_err(Into::into))
    }

    async fn work(&self, mut reader: BatchReader) -> anyhow::Result<()> {
        let mut probe = tokio::time::interval(PROBE_INTERVAL);
        probe.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut stopping = false;
        loop {
            tokio::select! {
                biased;
                batches = reader.next() => match batches {
                    // Dropped: the records stay uncommitted, and are read again.
                    Some(_) if stopping => {}
                    Some(batches) => stopping = !self.handle(batches).await?,
                    None => return Ok(()),
                },
                _ = probe.tick() => self.store.ping().await,
            }
        }
    }

    fn options(&self) -> ConsumerOptions {
        ConsumerOptions {
            stage: Stage::Persistence,
            topics: Vec::new(),
            start: StartingPosition::TrimHorizon,
            distribution: Distribution::ByPartition(1),
            batching: Batching {
                max_records: self.batch_max,
                max_bytes: self.batch_max_bytes,
                max_wait: Duration::ZERO,
            },
            budget_records: self.batch_max.saturating_mul(BATCHES_AHEAD),
            budget_bytes: self.batch_max_bytes.saturating_mul(BATCHES_AHEAD),
            commit_interval: Duration::from_millis(500),
            replay: None,
            histories: None,
        }
    }

    /// Creates or upgrades the schema, and waits while the store is down. False: the shutdown came first.
    async fn migrate(&self) -> anyhow::Result<bool> {
        let policy = self.call_policy();
        let migrated = tokio::select! {
            migrated = self.store.migrate(&policy) => migrated,
            // It may wait for the migration of another replica, and is repeated after the restart.
            () = self.shutdown.begun() => return Ok(false),
        };
        match migrated {
            Ok(()) => Ok(true),
            Err(CallFailure::Unavailable(_)) => Ok(false),
            Err(CallFailure::Rejected(error)) => Err(broken(error)),
        }
    }

    /// Retries until the shutdown.
    fn call_policy(&self) -> CallPolicy {
        CallPolicy::unlimited().retry_until(self.shutdown.token())
    }

    /// Stores records and completes them. False: the shutdown came first, and they stay uncommitted.
    async fn handle(&self, mut batches: Vec<Batch>) -> anyhow::Result<bool> {
        let Some(letters) = self.store(&mut batches).await? else {
            return Ok(false);
        };
        let Some(batches) = self.dead_letters.write(batches, letters).await? else {
            return Ok(false);
        };
        batches.into_iter().for_each(Batch::complete);
        Ok(true)
    }

    /// Stores the valid records. Returns the dead letters; `None`: the shutdown came first.
    async fn store(&self, batches: &mut [Batch]) -> anyhow::Result<Option<Vec<Letter>>> {
        let (mut placed, mut letters) = (Vec::new(), Vec::new());
        let mut traces = Traces::default();
        for (index, batch) in batches.iter().enumerate() {
            for (position, record) in batch.iter().enumerate() {
                let place = (index, position);
                if let Err(error) = self.kafka.authenticate(TopicKind::Decisions, &record) {
                    letters.push(Letter {
                        place,
                        kind: Unauthenticated::KIND,
                        reason: error.to_string(),
                        attempts: 1,
                        under: None,
                    });
                    continue;
                }
                match Row::read(record.payload) {
                    Ok(row) => {
                        traces.begin(&self.reads, place, &record, &row);
                        placed.push((row, place));
                    }
                    Err(reason) => letters.push(Letter {
                        place,
                        kind: "malformed",
                        reason,
                        attempts: 1,
                        under: None,
                    }),
                }
            }
        }
        // Stable: of two decisions on one transaction the first in the log stays the first.
        placed.sort_by(|(a, _), (b, _)| a.key().cmp(&b.key()));
        let (rows, places): (Vec<Row<'_>>, Vec<(usize, usize)>) = placed.into_iter().unzip();
        traces.sorted(&places);
        let mut pending = Vec::from_iter((!rows.is_empty()).then_some(0..rows.len()));
        while let Some(range) = pending.pop() {
            let began = SystemTime::now();
            let outcome = self.write(&rows[range.clone()]).await?;
            traces.wrote(&self.store, &range, began, outcome.refusal());
            match outcome {
                WriteOutcome::Stored => {}
                WriteOutcome::Abandoned => return Ok(None),
                WriteOutcome::Refused { reason, attempts } if range.len() == 1 => {
                    let place = places[range.start];
                    let under = traces.fail(place, "refused", &reason);
                    letters.push(Letter {
                        place,
                        kind: "refused",
                        reason,
                        attempts,
                        under,
                    });
                }
                WriteOutcome::Refused { .. } => {
                    let middle = range.start + range.len() / 2;
                    pending.push(middle..range.end);
                    pending.push(range.start..middle);
                }
            }
        }
        drop(rows);
        traces.end(&self.reads, batches);
        Ok(Some(letters))
    }

    /// Writes rows in one database transaction, and retries until there is an answer.
    async fn write(&self, rows: &[Row<'_>]) -> anyhow::Result<WriteOutcome> {
        metrics::histogram!("tollgate_persistence_batch_records")
            .record(u32::try_from(rows.len()).unwrap_or(u32::MAX));
        let policy = self.call_policy();
        let (attempts, result) = tokio::select! {
            ended = self.store.write(rows, &policy) => ended,
            () = self.out_of_time.cancelled() => return Ok(WriteOutcome::Abandoned),
        };
        match result {
            Ok(written) => {
                let outcome = |outcome: &'static str| metrics::counter!("tollgate_persistence_rows_total", "outcome" => outcome);
                outcome("stored").increment(written.stored);
                outcome("known").increment(written.known);
                if written.known > 0 {
                    self.differences.find(&self.store, rows).await;
                }
                Ok(WriteOutcome::Stored)
            }
            Err(CallFailure::Unavailable(_)) => Ok(WriteOutcome::Abandoned),
            Err(CallFailure::Rejected(DatabaseError::Refused(error))) => {
                Ok(WriteOutcome::Refused {
                    reason: explain(&error),
                    attempts,
                })
            }
            Err(CallFailure::Rejected(error)) => Err(broken(error)),
        }
    }
}

/// Why the store refuses a row. The message of the database is left out: it may quote the row.
fn explain(error: &sqlx::Error) -> String {
    let Some(error) = error.as_database_error() else {
        return "the store's driver cannot encode the row".to_owned();
    };
    let code = error.code().unwrap_or_default();
    let constraint = error
        .constraint()
        .map(|name| format!(", constraint {name}"))
        .unwrap_or_default();
    format!("the store refuses the row: code {code}{constraint}")
}

fn broken(error: DatabaseError) -> anyhow::Error {
    anyhow!(error).context(
        "persistence cannot use this store. No decision is lost: they are in the log. Check that \
         persistence.database_url names the right database, that its role may create and write tables there, and that \
         the tables transactions and fraud_analysis are Tollgate's; then start again",
    )
}
