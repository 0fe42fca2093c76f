//! Writes records to the dead-letter topic, acknowledged before their batches are completed.

use anyhow::{Context as _, anyhow};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tollgate_log::{Acks, Batch, DeadLetter, Log, Producer, SendError};
use tollgate_service::Shutdown;
use tollgate_types::{Stage, TraceContext};

/// A record to dead-letter: its batch, its position in it, and the reason.
#[derive(Debug)]
pub(crate) struct Letter {
    pub(crate) place: (usize, usize),
    pub(crate) kind: &'static str,
    pub(crate) reason: String,
    pub(crate) attempts: u32,
    /// The span of the record, if its trace is sampled.
    pub(crate) under: Option<TraceContext>,
}

/// Writes dead letters.
#[derive(Debug)]
pub(crate) struct DeadLetters {
    kafka: Log,
    producer: Producer,
    shutdown: Shutdown,
    /// Cancelled at the end of the grace period.
    out_of_time: CancellationToken,
}

impl DeadLetters {
    /// # Errors
    /// The settings of the producer are invalid.
    pub(crate) fn new(
        kafka: Log,
        shutdown: Shutdown,
        out_of_time: CancellationToken,
    ) -> anyhow::Result<Self> {
        let producer = kafka.patient_producer("persistence")?;
        Ok(Self {
            kafka,
            producer,
            shutdown,
            out_of_time,
        })
    }

    /// Writes the dead letters, and waits for the acknowledgement. `None`: the shutdown came first.
    pub(crate) async fn write(
        &self,
        batches: Vec<Batch>,
        letters: Vec<Letter>,
    ) -> anyhow::Result<Option<Vec<Batch>>> {
        if letters.is_empty() {
            return Ok(Some(batches));
        }
        let (done, acknowledged) = oneshot::channel();
        let acks = Acks::new(move |result| {
            // The receiver is gone only if the shutdown came first.
            let _ = done.send(result);
        });
        let (kafka, producer, shutdown) = (
            self.kafka.clone(),
            self.producer.clone(),
            self.shutdown.clone(),
        );
        // Sending blocks while the queue of the producer is full.
        let sending = tokio::task::spawn_blocking(move || {
            let result = letters.iter().try_for_each(|letter| {
                let (index, position) = letter.place;
                let Some(record) = batches
                    .get(index)
                    .and_then(|batch| batch.iter().nth(position))
                else {
                    return Ok(());
                };
                let (kind, reason) = (letter.kind, letter.reason.as_str());
                DeadLetter {
                    stage: Stage::Persistence,
                    kind,
                    reason,
                    attempts: letter.attempts,
                    record: &record,
                    under: letter.under,
                    // What it reads is written by the scorer.
                    cards: None,
                }
                .send(&kafka, &producer, &acks, || shutdown.is_begun())
            });
            acks.seal();
            (batches, result)
        });
        let (batches, sent) = sending.await.context("dead-lettering has panicked")?;
        match sent {
            Ok(()) => {}
            // The queue is full, and the shutdown has begun.
            Err(SendError::Full) => return Ok(None),
            Err(error @ (SendError::TooLarge | SendError::Failed(_))) => {
                return Err(anyhow!(error)
                    .context("a record that cannot be stored cannot be dead-lettered either"));
            }
        }
        tokio::select! {
            result = acknowledged => result.context("the log's producer has stopped")??,
            () = self.out_of_time.cancelled() => return Ok(None),
        }
        Ok(Some(batches))
    }
}
