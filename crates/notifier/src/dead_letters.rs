//! Records that are given up, on their way to the topic `alerts.dlq`.
//!
//! Invariant: a letter's ticket is resolved only when the log has acknowledged it. One that the log does not take is
//! written again until the shutdown.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tollgate_log::{Acks, DeadLetter, DeliveryFailure, Kafka, Producer, Record, SendError};
use tollgate_service::Shutdown;
use tollgate_types::Stage;

use crate::in_flight_batch::DeliveryGuard;

/// Letters that wait for the writer; whoever has more waits too.
const QUEUE: usize = 256;
/// Wait before letters are written again.
const PAUSE: Duration = Duration::from_secs(1);

/// A record to give up, and why.
#[derive(Debug)]
pub(crate) struct Letter {
    pub(crate) ticket: DeliveryGuard,
    /// `malformed` or `refused`.
    pub(crate) kind: &'static str,
    /// For a person; it names the sink where one refused.
    pub(crate) reason: String,
    pub(crate) attempts: u32,
}

/// Takes letters for the writer. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct DeadLetters(mpsc::Sender<Letter>);

impl DeadLetters {
    pub(crate) async fn send(&self, letter: Letter) {
        // The writer is gone only where it has died, and the service with it; the ticket stays unresolved then.
        let _ = self.0.send(letter).await;
    }
}

/// Writes letters, many at a time.
pub(crate) struct LetterWriter {
    kafka: Kafka,
    producer: Producer,
    stop: Shutdown,
    letters: mpsc::Receiver<Letter>,
}

type Acknowledged = oneshot::Receiver<Result<(), DeliveryFailure>>;

impl LetterWriter {
    pub(crate) fn new(kafka: Kafka, producer: Producer, stop: Shutdown) -> (DeadLetters, Self) {
        let (sender, letters) = mpsc::channel(QUEUE);
        let writer = Self {
            kafka,
            producer,
            stop,
            letters,
        };
        (DeadLetters(sender), writer)
    }

    /// Works until every sender is gone.
    pub(crate) async fn run(mut self) -> anyhow::Result<()> {
        let mut open = Vec::new();
        loop {
            if open.is_empty() && self.letters.recv_many(&mut open, QUEUE).await == 0 {
                return Ok(());
            }
            // A partition that went takes its letters along: whoever has it now writes them.
            open.retain(|letter: &Letter| !letter.ticket.revoked().is_cancelled());
            open = self.write(open).await?;
            if open.is_empty() {
                continue;
            }
            if self.stop.is_begun() {
                // Their tickets stay unresolved, and the records are read again.
                return Ok(());
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Gives back the letters that the log has not taken.
    async fn write(&self, letters: Vec<Letter>) -> anyhow::Result<Vec<Letter>> {
        let (kafka, producer, stop) =
            (self.kafka.clone(), self.producer.clone(), self.stop.clone());
        // Sending waits on its thread while the log has no room.
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
                        letter.ticket.resolve();
                        continue;
                    }
                    Ok(Err(failure)) => failure.to_string(),
                    Err(_) => "the producer has given no answer".to_owned(),
                },
                Err(error @ (SendError::Full | SendError::Failed(_))) => error.to_string(),
                Err(error @ SendError::TooLarge) => {
                    let at = letter.ticket.record();
                    let at = at.map(|record: Record<'_>| (record.partition, record.offset));
                    anyhow::bail!(
                        "the record at {at:?} (partition, offset) cannot be dead-lettered: {error}"
                    );
                }
            };
            tracing::warn!(
                failure,
                kind = letter.kind,
                "a dead letter was not written; it is tried again"
            );
            back.push(letter);
        }
        Ok(back)
    }
}

fn send(
    kafka: &Kafka,
    producer: &Producer,
    stop: &Shutdown,
    letter: &Letter,
) -> Result<Acknowledged, SendError> {
    let (tell, acknowledged) = oneshot::channel();
    let acks: Arc<Acks> = Acks::new(move |result| {
        // Nobody waits any more only where the service has been cut off.
        let _ = tell.send(result);
    });
    let Some(record) = letter.ticket.record() else {
        return Err(SendError::Failed("the record is gone".to_owned()));
    };
    let dead = DeadLetter {
        stage: Stage::Notifier,
        kind: letter.kind,
        reason: &letter.reason,
        attempts: letter.attempts,
        record: &record,
        under: letter.ticket.trace().map(|trace| trace.context),
    };
    let sent = dead.send(kafka, producer, &acks, || stop.is_begun());
    acks.seal();
    sent.map(|()| acknowledged)
}
