//! The loop from the log to the store: collect, write, give up what is poison, complete.
//!
//! Invariant: a batch is completed when each of its records is stored or acknowledged as a dead letter, never before.
//! A store that is away makes the loop wait and nothing else: what is in hand reaches its budget, and the consumer
//! pauses.

use std::time::{Duration, SystemTime};

use anyhow::{Context as _, anyhow};
use tokio_util::sync::CancellationToken;
use tollgate_log::{
    Batch, Batching, ConsumerOptions, Distribution, Kafka, Reads, StartingPosition,
};
use tollgate_service::Shutdown;
use tollgate_service::database::DatabaseError;
use tollgate_service::health::Health;
use tollgate_service::resilience::{Patience, Unserved};
use tollgate_types::Stage;

use crate::config::PersistenceConfig;
use crate::dead_letters::{DeadLetters, Letter};
use crate::intake::Intake;
use crate::rows::Row;
use crate::store::Store;
use crate::traces::Traces;

/// How often an idle writer asks whether the store is still there.
const PROBE_INTERVAL: Duration = Duration::from_secs(2);
/// Full transactions that may wait in memory behind the one being written.
const BATCHES_AHEAD: usize = 8;

/// Stores decisions from the log.
#[derive(Debug)]
pub(crate) struct DecisionWriter {
    kafka: Kafka,
    reads: Reads,
    dead_letters: DeadLetters,
    store: Store,
    health: Health,
    shutdown: Shutdown,
    /// The shutdown's grace period has ended.
    out_of_time: CancellationToken,
    batch_max: usize,
    batch_max_bytes: usize,
}

/// What the store said to some rows, in the end.
enum Answer {
    Stored,
    Refused {
        reason: String,
        attempts: u32,
    },
    /// The shutdown came before an answer.
    GiveBack,
}

impl Answer {
    /// Why the rows were refused, where they were.
    fn refusal(&self) -> Option<&str> {
        match self {
            Self::Refused { reason, .. } => Some(reason),
            Self::Stored | Self::GiveBack => None,
        }
    }
}

impl DecisionWriter {
    /// # Errors
    /// Where no producer can be made of the settings.
    pub(crate) fn new(
        config: &PersistenceConfig,
        kafka: Kafka,
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
        })
    }

    /// Runs until the shutdown, with everything that was in hand stored or given back.
    ///
    /// # Errors
    /// What ended it before.
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
        let (consumer, lanes) = self
            .kafka
            .consume(self.options(), &self.health, &self.shutdown)?;
        let lane = lanes
            .into_iter()
            .next()
            .context("the log's reader has no lane")?;
        let result = self
            .work(Intake::new(lane, self.batch_max, self.batch_max_bytes))
            .await;
        if result.is_err() {
            // The reader leaves its group in order, so that another replica need not wait for a timeout.
            self.shutdown.begin();
        }
        let read = consumer.join().await;
        result.and(read.map_err(Into::into))
    }

    async fn work(&self, mut intake: Intake) -> anyhow::Result<()> {
        let mut probe = tokio::time::interval(PROBE_INTERVAL);
        probe.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut giving_back = false;
        loop {
            tokio::select! {
                biased;
                batches = intake.next() => match batches {
                    // Dropped: the records stay uncommitted, and are read again after the restart.
                    Some(_) if giving_back => {}
                    Some(batches) => giving_back = !self.handle(batches).await?,
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

    /// Prepares the schema, however long the store is away. False: the shutdown came first.
    async fn migrate(&self) -> anyhow::Result<bool> {
        let patience = self.patience();
        let migrated = tokio::select! {
            migrated = self.store.migrate(&patience) => migrated,
            // It may wait for another replica's, and is begun again after the restart.
            () = self.shutdown.begun() => return Ok(false),
        };
        match migrated {
            Ok(()) => Ok(true),
            Err(Unserved::GivenUp(_)) => Ok(false),
            Err(Unserved::Failed(error)) => Err(broken(error)),
        }
    }

    /// Waits for the store until the shutdown.
    fn patience(&self) -> Patience {
        Patience::endless().over_with(self.shutdown.token())
    }

    /// Stores records and completes them. False: the shutdown came first, and they are given back.
    async fn handle(&self, mut batches: Vec<Batch>) -> anyhow::Result<bool> {
        let Some(letters) = self.store(&mut batches).await? else {
            return Ok(false);
        };
        let Some(batches) = self.dead_letters.give_up(batches, letters).await? else {
            return Ok(false);
        };
        batches.into_iter().for_each(Batch::complete);
        Ok(true)
    }

    /// Stores what can be stored. What cannot comes back; none: the shutdown came first.
    async fn store(&self, batches: &mut [Batch]) -> anyhow::Result<Option<Vec<Letter>>> {
        let (mut placed, mut letters) = (Vec::new(), Vec::new());
        let mut traces = Traces::default();
        for (index, batch) in batches.iter().enumerate() {
            for (position, record) in batch.iter().enumerate() {
                let place = (index, position);
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
            let answer = self.write(&rows[range.clone()]).await?;
            traces.wrote(&self.store, &range, began, answer.refusal());
            match answer {
                Answer::Stored => {}
                Answer::GiveBack => return Ok(None),
                Answer::Refused { reason, attempts } if range.len() == 1 => {
                    let place = places[range.start];
                    let under = traces.give_up(place, "refused", &reason);
                    letters.push(Letter {
                        place,
                        kind: "refused",
                        reason,
                        attempts,
                        under,
                    });
                }
                Answer::Refused { .. } => {
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

    /// Writes rows in one database transaction, as often as it takes to get an answer.
    async fn write(&self, rows: &[Row<'_>]) -> anyhow::Result<Answer> {
        metrics::histogram!("tollgate_persistence_batch_records")
            .record(u32::try_from(rows.len()).unwrap_or(u32::MAX));
        let patience = self.patience();
        let (attempts, result) = tokio::select! {
            ended = self.store.write(rows, &patience) => ended,
            () = self.out_of_time.cancelled() => return Ok(Answer::GiveBack),
        };
        match result {
            Ok(written) => {
                let rows = |outcome: &'static str| metrics::counter!("tollgate_persistence_rows_total", "outcome" => outcome);
                rows("stored").increment(written.stored);
                rows("known").increment(written.known);
                Ok(Answer::Stored)
            }
            Err(Unserved::GivenUp(_)) => Ok(Answer::GiveBack),
            Err(Unserved::Failed(DatabaseError::Refused(error))) => Ok(Answer::Refused {
                reason: explain(&error),
                attempts,
            }),
            Err(Unserved::Failed(error)) => Err(broken(error)),
        }
    }
}

/// Why the store refuses a row, without what it would quote from it.
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
        "persistence cannot go on with this store, and has lost nothing: decisions wait in the log. Check that \
         persistence.database_url names the right database, that its role may create and write tables there, and that \
         the tables transactions and fraud_analysis are Tollgate's; then start again",
    )
}
