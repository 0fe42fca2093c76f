//! Giving a record up without losing it: original key and bytes, and why, on the stage's dead-letter topic.

use std::sync::Arc;

use tollgate_types::{Stage, headers};

use super::{Acks, Kafka, Outgoing, Producer, Record, SendError};

/// Largest payload that still fits into a request of 1 MB beside key and headers.
const MAX_PAYLOAD: usize = 990_000;

/// A record that a stage gives up.
#[derive(Debug)]
pub struct DeadLetter<'a> {
    /// The stage that gives it up.
    pub stage: Stage,
    /// Class of the failure, a short stable word such as `malformed`.
    pub kind: &'static str,
    /// What was wrong, for a person. It names no amount and no card data.
    pub reason: &'a str,
    /// How often the stage tried.
    pub attempts: u32,
    /// The record as it was read.
    pub record: &'a Record<'a>,
}

impl DeadLetter<'_> {
    /// Writes it to the stage's dead-letter topic. The record's own headers stay, the failure's come after them, so
    /// that a record redriven and given up again shows its whole history. Waits on this thread while there is no room.
    ///
    /// # Errors
    /// Where the record was not taken.
    pub fn send(
        &self,
        kafka: &Kafka,
        producer: &Producer,
        acks: &Arc<Acks>,
        give_up: impl Fn() -> bool,
    ) -> Result<(), SendError> {
        metrics::counter!("tollgate_dead_letters_total", "stage" => self.stage.name(), "kind" => self.kind).increment(1);
        tracing::warn!(
            stage = self.stage.name(),
            kind = self.kind,
            reason = self.reason,
            partition = self.record.partition,
            offset = self.record.offset,
            "dead-lettered"
        );
        let (partition, offset) = (
            self.record.partition.to_string(),
            self.record.offset.to_string(),
        );
        let attempts = self.attempts.to_string();
        let now = crate::now().to_string();
        let size = self.record.payload.len();
        let truncated = (size > MAX_PAYLOAD).then(|| size.to_string());
        let topics = kafka.topics();
        let mut all: Vec<(&str, Option<&[u8]>)> = self.record.headers.iter().collect();
        all.extend(
            [
                (headers::ERROR_STAGE, self.stage.name()),
                (headers::ERROR_KIND, self.kind),
                (headers::ERROR_REASON, self.reason),
                (headers::SOURCE_TOPIC, topics.input_of(self.stage)),
                (headers::SOURCE_PARTITION, &partition),
                (headers::SOURCE_OFFSET, &offset),
                (headers::ATTEMPTS, &attempts),
                (headers::FAILED_AT, &now),
            ]
            .map(|(name, value)| (name, Some(value.as_bytes()))),
        );
        if let Some(truncated) = &truncated {
            all.push((headers::TRUNCATED_FROM, Some(truncated.as_bytes())));
        }
        let record = Outgoing {
            key: self.record.key,
            timestamp_ms: self.record.timestamp_ms,
            headers: &all,
            ..Outgoing::new(
                topics.dead_letters_of(self.stage),
                &[],
                &self.record.payload[..size.min(MAX_PAYLOAD)],
            )
        };
        producer.send_waiting(&record, acks, give_up)
    }
}
