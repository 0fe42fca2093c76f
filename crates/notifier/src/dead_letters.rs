//! Writes records to the dead-letter topic `alerts.dlq`.
//!
//! Invariant: the guard of a dead letter is resolved only after the log has acknowledged it. A dead letter that could not
//! be written is retried until the shutdown.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tollgate_log::{Acks, DeadLetter, DeliveryFailure, Log, Producer, Record, SendError};
use tollgate_service::Shutdown;
use tollgate_types::Stage;

use crate::in_flight_batch::DeliveryGuard;

/// Dead letters that wait for the writer; senders of further ones wait.
const QUEUE: usize = 256;
/// Wait before dead letters are retried.
const RETRY_WAIT: Duration = Duration::from_secs(1);

/// A record to dead-letter, and the reason.
#[derive(Debug)]
pub(crate) struct Letter {
    pub(crate) guard: DeliveryGuard,
    /// `unauthenticated`, `malformed` or `refused`.
    pub(crate) kind: &'static str,
    /// For a person. It names the sink that rejected the alert.
    pub(crate) reason: String,
    pub(crate) attempts: u32,
}

/// Sends dead letters to the writer. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct DeadLetters(mpsc::Sender<Letter>);

impl DeadLetters {
    pub(crate) async fn send(&self, letter: Letter) {
        // It fails only if the writer has ended, and the service stops with it: the guard stays unresolved.
        let _ = self.0.send(letter).await;
    }
}

/// Writes dead letters, in groups.
pub(crate) struct LetterWriter {
    kafka: Log,
    producer: Producer,
    stop: Shutdown,
    letters: mpsc::Receiver<Letter>,
}

type Acknowledged = oneshot::Receiver<Result<(), DeliveryFailure>>;

impl LetterWriter {
    pub(crate) fn new(kafka: Log, producer: Producer, stop: Shutdown) -> (DeadLetters, Self) {
        let (sender, letters) = mpsc::channel(QUEUE);
        let writer = Self {
            kafka,
            producer,
            stop,
            letters,
        };
        (DeadLetters(sender), writer)
    }

    /// Works until every sender is dropped.
    pub(crate) async fn run(mut self) -> anyhow::Result<()> {
        let mut open = Vec::new();
        loop {
            if open.is_empty() && self.letters.recv_many(&mut open, QUEUE).await == 0 {
                return Ok(());
            }
            // The next owner of a revoked partition writes its dead letters.
            open.retain(|letter: &Letter| !letter.guard.revoked().is_cancelled());
            open = self.write(open).await?;
            if open.is_empty() {
                continue;
            }
            if self.stop.is_begun() {
                // The guards stay unresolved, and the records are read again.
                return Ok(());
            }
            tokio::time::sleep(RETRY_WAIT).await;
        }
    }

    /// Returns the dead letters that could not be written.
    async fn write(&self, letters: Vec<Letter>) -> anyhow::Result<Vec<Letter>> {
        let (kafka, producer, stop) =
            (self.kafka.clone(), self.producer.clone(), self.stop.clone());
        // Sending blocks while the queue of the producer is full.
        let sent = tokio::task::spawn_blocking(move || {
            let send = |letter: Letter| {
                let sent = send(&kafka, &producer, &stop, &letter);
                (letter, sent)
            };
            letters.into_iter().map(send).collect::<Vec<_>>()
        });
        let mut back = Vec::new();
        for (letter, sent) in sent.await? {
            let failure = match sent {
                Ok(acknowledged) => match acknowledged.await {
                    Ok(Ok(())) => {
                        letter.guard.resolve();
                        continue;
                    }
                    Ok(Err(failure)) => failure.to_string(),
                    Err(_) => "the producer gave no answer".to_owned(),
                },
                Err(error @ (SendError::Full | SendError::Failed(_))) => error.to_string(),
                Err(error @ SendError::TooLarge) => {
                    let at = letter.guard.record();
                    let at = at.map(|record: Record<'_>| (record.partition, record.offset));
                    anyhow::bail!(
                        "the record at {at:?} (partition, offset) cannot be dead-lettered: {error}"
                    );
                }
            };
            tracing::warn!(
                failure,
                kind = letter.kind,
                "a dead letter was not written; it is retried"
            );
            back.push(letter);
        }
        Ok(back)
    }
}

fn send(
    kafka: &Log,
    producer: &Producer,
    stop: &Shutdown,
    letter: &Letter,
) -> Result<Acknowledged, SendError> {
    let (done, acknowledged) = oneshot::channel();
    let acks: Arc<Acks> = Acks::new(move |result| {
        // The receiver is gone only if the writer was aborted.
        let _ = done.send(result);
    });
    let Some(record) = letter.guard.record() else {
        return Err(SendError::Failed("the record is gone".to_owned()));
    };
    let dead = DeadLetter {
        stage: Stage::Notifier,
        kind: letter.kind,
        reason: &letter.reason,
        attempts: letter.attempts,
        record: &record,
        under: letter.guard.trace().map(|trace| trace.context),
        // What it reads is written by the scorer.
        cards: None,
    };
    let sent = dead.send(kafka, producer, &acks, || stop.is_begun());
    acks.seal();
    sent.map(|()| acknowledged)
}
