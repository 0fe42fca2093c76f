//! Spans of the log by OpenTelemetry's conventions: <https://opentelemetry.io/docs/specs/semconv/messaging/kafka/>.
//!
//! A record is sent under the span that caused it, and processed under the span that sent it: one trace. What handles
//! many records at once, a poll or a commit, is a trace of its own that links to theirs.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use tollgate_types::{Stage, TraceContext};

use crate::Log;
use crate::record::Record;
use tollgate_service::telemetry::trace::{Span, SpanKind, begin, begin_kept};
use tollgate_service::telemetry::user_attribute;

/// Names in the spans of a stage's consumer.
#[derive(Debug, Clone)]
pub struct Reads {
    scope: &'static str,
    topic: &'static str,
    group: &'static str,
    process: &'static str,
    poll: &'static str,
    commit: &'static str,
}

/// A name that lives as long as the process; there are a few for each topic.
fn interned(name: String) -> &'static str {
    static NAMES: Mutex<BTreeSet<&'static str>> = Mutex::new(BTreeSet::new());
    let mut names = NAMES.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = names.get(name.as_str()) {
        return known;
    }
    let name: &'static str = Box::leak(name.into_boxed_str());
    names.insert(name);
    name
}

impl Log {
    /// Names in the spans of a stage.
    #[must_use]
    pub fn reads(&self, stage: Stage) -> Reads {
        let topic = self.topics().input_of(stage);
        Reads {
            scope: stage.name(),
            topic: interned(topic.to_owned()),
            group: interned(self.group(stage)),
            process: interned(format!("process {topic}")),
            poll: interned(format!("poll {topic}")),
            commit: interned(format!("commit {topic}")),
        }
    }
}

impl Reads {
    fn operation(
        &self,
        kind: SpanKind,
        (title, name, operation): (&'static str, &'static str, &'static str),
        context: TraceContext,
        parent: Option<TraceContext>,
    ) -> Span {
        let span = Span::new(self.scope, kind, title, context, parent);
        described(span, name, operation, self.topic)
            .with("messaging.consumer.group.name", self.group)
    }

    /// A span for what is done with one record. `context` is its own.
    #[must_use]
    pub fn process(
        &self,
        record: &Record<'_>,
        context: TraceContext,
        parent: Option<TraceContext>,
    ) -> Span {
        let span = self.operation(
            SpanKind::Consumer,
            (self.process, "process", "process"),
            context,
            parent,
        );
        let span = span
            .behind_remote()
            .with(
                "messaging.destination.partition.id",
                record.partition.to_string(),
            )
            .with("messaging.kafka.offset", record.offset)
            .with("messaging.message.body.size", size(record.payload.len()));
        match record.key {
            Some(key) => {
                let (name, user) = user_attribute(key);
                span.with(name, user)
            }
            None => span,
        }
    }

    /// A span for a batch that was read, which joins these traces.
    pub(crate) fn poll(&self, joined: Vec<TraceContext>, records: usize) -> Option<Span> {
        // There are a few of these a second.
        let context = begin(None)?.with_sampled(true);
        let span = self.operation(
            SpanKind::Client,
            (self.poll, "poll", "receive"),
            context,
            None,
        );
        Some(
            span.with("messaging.batch.message_count", size(records))
                .linked_to(joined),
        )
    }

    /// A span for a commit of what was read by these polls.
    pub(crate) fn commit(&self, polls: Vec<TraceContext>) -> Option<Span> {
        // There are a few of these a second.
        let context = begin(None)?.with_sampled(true);
        let span = self.operation(
            SpanKind::Client,
            (self.commit, "commit", "settle"),
            context,
            None,
        );
        Some(span.linked_to(polls))
    }
}

/// A span for a record that is sent under another; none where that is not kept.
#[must_use]
pub fn send(scope: &'static str, topic: &str, parent: TraceContext) -> Option<Span> {
    let context = begin_kept(Some(parent))?;
    Some(sending(scope, topic, context, Some(parent)))
}

/// A span for records that are sent together. `context` is its own, and they carry it.
#[must_use]
pub fn sending(
    scope: &'static str,
    topic: &str,
    context: TraceContext,
    parent: Option<TraceContext>,
) -> Span {
    let topic = interned(topic.to_owned());
    let title = interned(format!("send {topic}"));
    let span = Span::new(scope, SpanKind::Producer, title, context, parent);
    described(span, "send", "send", topic)
}

fn described(span: Span, name: &'static str, operation: &'static str, topic: &'static str) -> Span {
    span.with("messaging.system", "kafka")
        .with("messaging.destination.name", topic)
        .with("messaging.operation.name", name)
        .with("messaging.operation.type", operation)
}

fn size(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
