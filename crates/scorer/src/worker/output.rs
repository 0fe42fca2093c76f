//! What a worker writes: decisions, alerts, replies, forwarded records and dead letters.

use std::sync::Arc;

use tollgate_log::{Acks, DeadLetter, ProducerRecord, Record, SendError};
use tollgate_service::telemetry::trace::begin_kept;
use tollgate_types::{
    ErrorReply, ErrorStatus, Rejection, ReplyAddress, Stage, Tenant, TraceContext, Transaction,
    headers,
};

use super::{Worker, WorkerSettings};
use crate::route;

/// The longest `tracestate` that is passed on, in bytes: the length that the standard requires.
const MAX_STATE_BYTES: usize = 512;

impl Worker {
    /// Writes the decision to its topics.
    pub(super) fn emit(
        &self,
        record: &Record<'_>,
        transaction: &Transaction<'_>,
        alert: bool,
        under: Option<TraceContext>,
        acks: &Arc<Acks>,
    ) -> Result<(), SendError> {
        let topics = self.settings.kafka.topics();
        self.send_decision(record, transaction, &topics.decisions, None, under, acks)?;
        if alert {
            self.send_decision(record, transaction, &topics.alerts, None, under, acks)?;
        }
        Ok(())
    }

    /// Answers the caller that waits for the decision, if one does.
    pub(super) fn reply(
        &self,
        record: &Record<'_>,
        transaction: &Transaction<'_>,
        tenant: Tenant<'_>,
        foreign: bool,
        under: Option<TraceContext>,
        acks: &Arc<Acks>,
    ) -> Result<(), SendError> {
        let Some(address) = self.reply_to else {
            return Ok(());
        };
        if foreign {
            // Whoever can only write must not learn the verdict on another caller's transaction.
            let error = ErrorReply {
                transaction_id: (&*transaction.transaction_id).into(),
                user_id: (&*transaction.user_id).into(),
                tenant: tenant.given().map(Into::into),
                status: ErrorStatus::Error,
                kind: "id_taken".into(),
                field: Some("transaction_id".into()),
                reason: "another sender has used this id for a transaction of this user".into(),
            };
            return self.reply_error(record, &error, acks);
        }
        let topic = &self.settings.kafka.topics().replies;
        self.send_decision(record, transaction, topic, Some(address), under, acks)
    }

    /// Writes the decision in `out` to a topic, for the caller at an address if one is given.
    fn send_decision(
        &self,
        record: &Record<'_>,
        transaction: &Transaction<'_>,
        topic: &str,
        address: Option<ReplyAddress>,
        under: Option<TraceContext>,
        acks: &Arc<Acks>,
    ) -> Result<(), SendError> {
        let state = record.headers.last(headers::TRACESTATE);
        let state = state
            .filter(|state| under.is_some() && state.len() <= MAX_STATE_BYTES)
            .map(|state| (headers::TRACESTATE, Some(state)));
        let repeated = address.map(|address| address.to_string());
        let reply_to = repeated
            .as_ref()
            .map(|text| (headers::REPLY_TO, Some(text.as_bytes())));
        let both;
        let headers = match (state, reply_to) {
            (Some(state), Some(reply_to)) => {
                both = [state, reply_to];
                &both[..]
            }
            (Some(_), None) => state.as_slice(),
            (None, _) => reply_to.as_slice(),
        };
        let decision = ProducerRecord {
            partition: address.map(|address| address.partition),
            headers,
            under,
            ..ProducerRecord::signed(topic, transaction.user_id.as_bytes(), &self.out)
        };
        self.send(&decision, acks)
    }

    /// Tells the caller that waits, if one does, that there is no decision, and why.
    fn reply_error(
        &self,
        record: &Record<'_>,
        error: &ErrorReply<'_>,
        acks: &Arc<Acks>,
    ) -> Result<(), SendError> {
        let Some(address) = self.reply_to else {
            return Ok(());
        };
        let repeated = address.to_string();
        let mut text = Vec::new();
        error.write_to(&mut text);
        let reply = ProducerRecord {
            partition: Some(address.partition),
            headers: &[(headers::REPLY_TO, Some(repeated.as_bytes()))],
            under: record.trace(),
            ..ProducerRecord::signed(
                &self.settings.kafka.topics().replies,
                error.user_id.as_bytes(),
                &text,
            )
        };
        self.send(&reply, acks)
    }

    /// Forwards a record to the partition of its user, where it is scored.
    pub(super) fn forward(
        &mut self,
        record: &Record<'_>,
        transaction: &Transaction<'_>,
        partition: i32,
        acks: &Arc<Acks>,
    ) -> Result<(), SendError> {
        if record.replayed {
            return Ok(());
        }
        if route::hops(record) >= route::MAX_HOPS {
            let reason =
                "was forwarded again and again: not all scorers have the same kafka.partitioner";
            return self.dead_letter(record, "routing_loop", &Rejection::new("", reason), acks);
        }
        self.measures.routed += 1;
        let parent = record.trace().or_else(|| transaction.trace());
        let kept = parent.and_then(|parent| begin_kept(Some(parent)));
        if let Some(context) = kept {
            let span = self.settings.reads.process(record, context, parent);
            span.with("tollgate.routed_to.partition", i64::from(partition))
                .end();
            self.joined.extend(parent);
        }
        let from = format!("{}@{}", record.partition, record.offset);
        let mut all: Vec<_> = record.headers.iter().collect();
        all.retain(|(name, _)| *name != headers::TRACEPARENT);
        all.push((headers::ROUTED_FROM, Some(from.as_bytes())));
        let record = ProducerRecord {
            partition: Some(partition),
            timestamp_ms: record.timestamp_ms,
            headers: &all,
            under: kept.or(parent),
            // The scorer itself reads it: waiting for room here could block the scorer for ever.
            urgent: true,
            // Its key may be another one now, which the old hash would not match.
            signed: self.is_of_service,
            ..ProducerRecord::new(
                &self.settings.kafka.topics().transactions,
                transaction.user_id.as_bytes(),
                record.payload,
            )
        };
        self.send(&record, acks)
    }

    /// Writes the record to the dead-letter topic, and to the caller that waits for its decision, if one does, that there
    /// will be none.
    pub(super) fn dead_letter(
        &self,
        record: &Record<'_>,
        kind: &'static str,
        rejection: &Rejection,
        acks: &Arc<Acks>,
    ) -> Result<(), SendError> {
        if record.replayed {
            return Ok(());
        }
        if self.reply_to.is_some() {
            // Ingest makes the user the key.
            let user_id = String::from_utf8_lossy(record.key.unwrap_or_default());
            let id = Transaction::id_of_rejected(record.payload).unwrap_or_default();
            let tenant = Tenant::from_header(record.headers.last(headers::TENANT));
            let error = ErrorReply {
                transaction_id: id.into(),
                user_id,
                tenant: tenant.unwrap_or_default().given().map(Into::into),
                status: ErrorStatus::Error,
                kind: kind.into(),
                field: Some(rejection.field.into()).filter(|_| !rejection.field.is_empty()),
                reason: (&*rejection.reason).into(),
            };
            self.reply_error(record, &error, acks)?;
        }
        let reason = rejection.to_string();
        let WorkerSettings {
            kafka,
            producer,
            shutdown,
            ..
        } = &*self.settings;
        let letter = DeadLetter {
            stage: Stage::Scorer,
            kind,
            reason: &reason,
            attempts: 1,
            record,
            under: None,
            cards: Some(&self.settings.cards),
        };
        letter.send(kafka, producer, acks, || shutdown.is_begun())
    }

    fn send(&self, record: &ProducerRecord<'_>, acks: &Arc<Acks>) -> Result<(), SendError> {
        self.settings
            .producer
            .send_waiting(record, acks, || self.settings.shutdown.is_begun())
    }
}
