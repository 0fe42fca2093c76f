//! Traces: where a span begins, whether it is kept, and its way to the exporter.
//!
//! Spans are made where it is known what became of them, from times taken before: whether a payment was blocked is known
//! only then, and what is not kept costs next to nothing. Contexts, which travel ahead of their spans, are values.
//!
//! Without an OTLP endpoint for traces nothing is begun, and the contexts of callers are passed on as they came.

use std::borrow::Cow;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Instant, SystemTime};

use metrics::{Counter, counter};
use opentelemetry::trace::{
    Link, SpanContext, SpanId, Status, TraceContextExt as _, TraceFlags, TraceId, TraceState,
};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};
use tollgate_types::TraceContext;

use super::otlp::SpanQueue;

pub use opentelemetry::trace::SpanKind;
pub use opentelemetry::{Array, StringValue, Value};

/// The target of `tracing` spans that are part of traces.
pub const SPAN_TARGET: &str = "tollgate::span";
/// What a span that joins many traces links to at most, as OpenTelemetry has it by default.
pub const MAX_LINKS: usize = 128;

static TRACING: OnceLock<Tracing> = OnceLock::new();

/// What a process that traces has.
#[derive(Debug)]
struct Tracing {
    queue: SpanQueue,
    /// Traces begun here are kept whose id is below it.
    kept_below: u64,
    budget: Budget,
    trimmed: Trimmed,
}

impl Tracing {
    /// The context of a new span: see [`begin`].
    fn context(&self, parent: Option<TraceContext>) -> Option<TraceContext> {
        match parent {
            Some(parent) => Some(child(parent)),
            None => {
                let trace_id: u128 = rand::random();
                #[expect(clippy::cast_possible_truncation, reason = "the lower half")]
                let sampled = (trace_id as u64) < self.kept_below;
                TraceContext::new(trace_id.max(1), span_id(), sampled)
            }
        }
    }
}

struct Trimmed(Counter);

impl std::fmt::Debug for Trimmed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Trimmed")
    }
}

/// Begins tracing, once in a process.
pub(super) fn start(queue: SpanQueue, ratio: f64) {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a ratio from 0 to 1 of the range; the cast saturates"
    )]
    let kept_below = (ratio * u64::MAX as f64) as u64;
    let _ = TRACING.set(Tracing {
        queue,
        kept_below,
        budget: Budget {
            began: Instant::now(),
            taken: AtomicU64::new(0),
        },
        trimmed: Trimmed(counter!("tollgate_telemetry_items_total", "signal" => "traces", "outcome" => "trimmed")),
    });
}

/// Whether this process traces at all.
#[must_use]
pub fn is_on() -> bool {
    TRACING.get().is_some()
}

/// The context of a new span: behind its parent in the parent's trace, kept if that is; without a parent in a new
/// trace, kept for a share of them. None where this process does not trace, or has just failed to tell.
#[must_use]
pub fn begin(parent: Option<TraceContext>) -> Option<TraceContext> {
    let tracing = TRACING.get()?;
    let kept = parent.is_some_and(TraceContext::is_sampled);
    tracing.queue.takes(kept).then_some(())?;
    tracing.context(parent)
}

/// As [`begin`], where only a trace that is kept is worth a context.
#[must_use]
pub fn begin_kept(parent: Option<TraceContext>) -> Option<TraceContext> {
    let tracing = TRACING.get()?;
    let kept = match parent {
        Some(parent) => parent.is_sampled(),
        None => rand::random::<u64>() < tracing.kept_below,
    };
    if !kept || !tracing.queue.takes(true) {
        return None;
    }
    match parent {
        Some(parent) => Some(child(parent)),
        None => TraceContext::new(rand::random::<u128>().max(1), span_id(), true),
    }
}

/// As [`begin`], for a span that is kept whatever the share says: what became of it is worth it. Only of a flood of such
/// a part is, so that telling of it takes no time from deciding.
#[must_use]
pub fn begin_always(parent: Option<TraceContext>) -> Option<TraceContext> {
    let tracing = TRACING.get()?;
    tracing.queue.takes(true).then_some(())?;
    if !parent.is_some_and(TraceContext::is_sampled) && !tracing.budget.take(Instant::now()) {
        tracing.trimmed.0.increment(1);
        return None;
    }
    Some(tracing.context(parent)?.with_sampled(true))
}

/// How many a second may be kept against the share.
#[derive(Debug)]
struct Budget {
    began: Instant,
    /// The second, counted from then, in the upper half; how many were taken in it in the lower.
    taken: AtomicU64,
}

impl Budget {
    const A_SECOND: u64 = 500;

    fn take(&self, now: Instant) -> bool {
        let second = now.saturating_duration_since(self.began).as_secs() & 0xffff_ffff;
        let next = |taken: u64| {
            let in_this = taken >> 32 == second;
            let number = if in_this { taken & 0xffff_ffff } else { 0 };
            (number < Self::A_SECOND).then_some(second << 32 | (number + 1))
        };
        self.taken
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, next)
            .is_ok()
    }
}

fn child(parent: TraceContext) -> TraceContext {
    parent.with_span(span_id())
}

fn span_id() -> u64 {
    rand::random::<u64>().max(1)
}

fn scope_name(scope: &'static str) -> Cow<'static, str> {
    match scope {
        "ingest" => "tollgate-ingest".into(),
        "scorer" => "tollgate-scorer".into(),
        "persistence" => "tollgate-persistence".into(),
        "notifier" => "tollgate-notifier".into(),
        other => format!("tollgate-{other}").into(),
    }
}

/// The context as OpenTelemetry's own crates have it.
#[must_use]
pub fn to_otel(context: TraceContext) -> SpanContext {
    SpanContext::new(
        TraceId::from_bytes(context.trace_id.to_be_bytes()),
        SpanId::from_bytes(context.span_id.to_be_bytes()),
        TraceFlags::default().with_sampled(context.is_sampled()),
        true,
        TraceState::NONE,
    )
}

/// The current `tracing` span's context, or that of whatever it stands in.
#[must_use]
pub fn current() -> Option<TraceContext> {
    let current = opentelemetry::Context::current();
    let span = current.span();
    let context = span.span_context();
    TraceContext::new(
        u128::from_be_bytes(context.trace_id().to_bytes()),
        u64::from_be_bytes(context.span_id().to_bytes()),
        context.is_sampled(),
    )
}

/// What is done within this belongs to the context: `tracing` spans stand in it, and log lines tell it.
#[must_use]
pub fn within(context: TraceContext) -> opentelemetry::Context {
    opentelemetry::Context::new().with_remote_span_context(to_otel(context))
}

/// A span that is being made. It is exported when it [ends](Span::end), if its context says that it is kept.
#[derive(Debug)]
pub struct Span {
    context: TraceContext,
    parent: Option<TraceContext>,
    remote_parent: bool,
    scope: &'static str,
    kind: SpanKind,
    name: Cow<'static, str>,
    began: SystemTime,
    attributes: Vec<KeyValue>,
    links: Vec<TraceContext>,
    status: Status,
}

impl Span {
    /// A span of a part of Tollgate, such as `scorer`, that begins now.
    #[must_use]
    pub fn new(
        scope: &'static str,
        kind: SpanKind,
        name: impl Into<Cow<'static, str>>,
        context: TraceContext,
        parent: Option<TraceContext>,
    ) -> Self {
        Self {
            context,
            parent,
            remote_parent: false,
            scope,
            kind,
            name: name.into(),
            began: SystemTime::now(),
            attributes: Vec::with_capacity(12),
            links: Vec::new(),
            status: Status::Unset,
        }
    }

    /// Its own context.
    #[must_use]
    pub const fn context(&self) -> TraceContext {
        self.context
    }

    /// It began then.
    #[must_use]
    pub const fn since(mut self, began: SystemTime) -> Self {
        self.began = began;
        self
    }

    /// Its parent is another process's.
    #[must_use]
    pub const fn behind_remote(mut self) -> Self {
        self.remote_parent = true;
        self
    }

    /// With an attribute.
    #[must_use]
    pub fn with(mut self, key: &'static str, value: impl Into<Value>) -> Self {
        self.set(key, value);
        self
    }

    /// With an attribute, where there is a value.
    #[must_use]
    pub fn with_some(self, key: &'static str, value: Option<impl Into<Value>>) -> Self {
        match value {
            Some(value) => self.with(key, value),
            None => self,
        }
    }

    /// Adds an attribute.
    pub fn set(&mut self, key: &'static str, value: impl Into<Value>) {
        self.attributes.push(KeyValue::new(key, value));
    }

    /// With links to spans of other traces; what is beyond the limit is counted.
    #[must_use]
    pub fn linked_to(mut self, links: impl IntoIterator<Item = TraceContext>) -> Self {
        self.links.extend(links);
        self
    }

    /// It failed: a short stable word for the kind of failure, and what there is to say of it, without values.
    pub fn fail(&mut self, kind: &str, description: impl Into<Cow<'static, str>>) {
        self.set("error.type", kind.to_owned());
        self.status = Status::error(description);
    }

    /// Keeps it, whatever was said when its trace began.
    pub const fn keep(&mut self) {
        self.context = self.context.with_sampled(true);
    }

    /// It ends now.
    pub fn end(self) {
        self.end_at(SystemTime::now());
    }

    /// It ended then.
    pub fn end_at(self, ended: SystemTime) {
        if !self.context.is_sampled() {
            return;
        }
        if let Some(tracing) = TRACING.get() {
            tracing.queue.put(|| self.into_data(ended));
        }
    }

    #[cfg(test)]
    pub(super) fn data_for_test(self) -> SpanData {
        let ended = self.began;
        self.into_data(ended)
    }

    fn into_data(self, ended: SystemTime) -> SpanData {
        let mut links = SpanLinks::default();
        let dropped = self.links.len().saturating_sub(MAX_LINKS);
        links.dropped_count = u32::try_from(dropped).unwrap_or(u32::MAX);
        links.links = self
            .links
            .into_iter()
            .take(MAX_LINKS)
            .map(|context| Link::with_context(to_otel(context)))
            .collect();
        SpanData {
            span_context: to_otel(self.context),
            parent_span_id: self.parent.map_or(SpanId::INVALID, |parent| {
                SpanId::from_bytes(parent.span_id.to_be_bytes())
            }),
            parent_span_is_remote: self.remote_parent,
            span_kind: self.kind,
            name: self.name,
            start_time: self.began,
            // A clock that was set back in between makes no negative durations.
            end_time: ended.max(self.began),
            attributes: self.attributes,
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links,
            status: self.status,
            instrumentation_scope: InstrumentationScope::builder(scope_name(self.scope))
                .with_version(env!("CARGO_PKG_VERSION"))
                .build(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn of_a_flood_so_many_a_second_are_kept_and_no_more() {
        let began = Instant::now();
        let budget = Budget {
            began,
            taken: AtomicU64::new(0),
        };
        for second in [0, 1, 7] {
            let now = began + Duration::from_secs(second);
            let kept = (0..10_000).filter(|_| budget.take(now)).count();
            assert_eq!(kept as u64, Budget::A_SECOND);
        }
    }
}
