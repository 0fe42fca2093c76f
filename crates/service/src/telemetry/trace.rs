//! Traces: contexts, sampling, and the spans that are exported.
//!
//! Spans are created after the fact. The context (the ids) is made first and propagated; the span is built from recorded
//! times when the outcome is known, since only then it is known whether a transaction was blocked. A span that is not
//! sampled costs almost nothing.
//!
//! Without an OTLP endpoint for traces no span is created, and the contexts of callers are propagated unchanged.

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
/// Most links of a span that joins many traces: the default of OpenTelemetry.
pub const MAX_LINKS: usize = 128;

static TRACING: OnceLock<Tracing> = OnceLock::new();

/// The state of a process that traces.
#[derive(Debug)]
struct Tracing {
    queue: SpanQueue,
    /// A trace that starts here is sampled if the lower half of its id is below this.
    sampled_below: u64,
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
                let sampled = (trace_id as u64) < self.sampled_below;
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

/// Starts tracing, once in a process.
pub(super) fn start(queue: SpanQueue, ratio: f64) {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a ratio from 0 to 1 of the range; the cast saturates"
    )]
    let sampled_below = (ratio * u64::MAX as f64) as u64;
    let _ = TRACING.set(Tracing {
        queue,
        sampled_below,
        budget: Budget {
            began: Instant::now(),
            taken: AtomicU64::new(0),
        },
        trimmed: Trimmed(counter!("tollgate_telemetry_items_total", "signal" => "traces", "outcome" => "trimmed")),
    });
}

/// Whether this process traces.
#[must_use]
pub fn is_on() -> bool {
    TRACING.get().is_some()
}

/// The context of a new span: a child of its parent, sampled if that is; without a parent the root of a new trace, sampled
/// by the ratio. `None` if this process does not trace, or its last export failed.
#[must_use]
pub fn begin(parent: Option<TraceContext>) -> Option<TraceContext> {
    let tracing = TRACING.get()?;
    let sampled = parent.is_some_and(TraceContext::is_sampled);
    tracing.queue.accepts(sampled).then_some(())?;
    tracing.context(parent)
}

/// As [`begin`], but `None` also for a trace that is not sampled.
#[must_use]
pub fn begin_kept(parent: Option<TraceContext>) -> Option<TraceContext> {
    let tracing = TRACING.get()?;
    let sampled = match parent {
        Some(parent) => parent.is_sampled(),
        None => rand::random::<u64>() < tracing.sampled_below,
    };
    if !sampled || !tracing.queue.accepts(true) {
        return None;
    }
    match parent {
        Some(parent) => Some(child(parent)),
        None => TraceContext::new(rand::random::<u128>().max(1), span_id(), true),
    }
}

/// As [`begin`], for a span that is sampled regardless of the ratio because of its outcome. The number of them in a second
/// is limited, so that tracing takes no time from decisions.
#[must_use]
pub fn begin_always(parent: Option<TraceContext>) -> Option<TraceContext> {
    let tracing = TRACING.get()?;
    tracing.queue.accepts(true).then_some(())?;
    if !parent.is_some_and(TraceContext::is_sampled) && !tracing.budget.take(Instant::now()) {
        tracing.trimmed.0.increment(1);
        return None;
    }
    Some(tracing.context(parent)?.with_sampled(true))
}

/// The limit of spans in a second that are sampled regardless of the ratio.
#[derive(Debug)]
struct Budget {
    began: Instant,
    /// Upper half: the second since `began`. Lower half: the number taken in it.
    taken: AtomicU64,
}

impl Budget {
    const PER_SECOND: u64 = 500;

    fn take(&self, now: Instant) -> bool {
        let second = now.saturating_duration_since(self.began).as_secs() & 0xffff_ffff;
        let next = |taken: u64| {
            let in_this = taken >> 32 == second;
            let number = if in_this { taken & 0xffff_ffff } else { 0 };
            (number < Self::PER_SECOND).then_some(second << 32 | (number + 1))
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

/// The context as a type of OpenTelemetry's crates.
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

/// The context of the current `tracing` span, or that of its surroundings.
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

/// An OpenTelemetry context with this span: it is the parent of `tracing` spans within, and log lines contain its ids.
#[must_use]
pub fn within(context: TraceContext) -> opentelemetry::Context {
    opentelemetry::Context::new().with_remote_span_context(to_otel(context))
}

/// A span under construction. It is exported when it [ends](Span::end), if its context is sampled.
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
    /// A span of a part of Tollgate, such as `scorer`, that starts now.
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

    /// The context of the span.
    #[must_use]
    pub const fn context(&self) -> TraceContext {
        self.context
    }

    /// Sets the start.
    #[must_use]
    pub const fn since(mut self, began: SystemTime) -> Self {
        self.began = began;
        self
    }

    /// Marks the parent as remote.
    #[must_use]
    pub const fn behind_remote(mut self) -> Self {
        self.remote_parent = true;
        self
    }

    /// Adds an attribute.
    #[must_use]
    pub fn with(mut self, key: &'static str, value: impl Into<Value>) -> Self {
        self.set(key, value);
        self
    }

    /// Adds an attribute, if there is a value.
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

    /// Adds links to spans of other traces. Links beyond the limit are counted.
    #[must_use]
    pub fn linked_to(mut self, links: impl IntoIterator<Item = TraceContext>) -> Self {
        self.links.extend(links);
        self
    }

    /// Sets the status to failed. `kind` is a short stable word; the description must contain no values of a record.
    pub fn fail(&mut self, kind: &str, description: impl Into<Cow<'static, str>>) {
        self.set("error.type", kind.to_owned());
        self.status = Status::error(description);
    }

    /// Samples the span, regardless of the decision at the start of its trace.
    pub const fn keep(&mut self) {
        self.context = self.context.with_sampled(true);
    }

    /// Ends the span now.
    pub fn end(self) {
        self.end_at(SystemTime::now());
    }

    /// Ends the span at this time.
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
            // The clock may have been set back.
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
    fn no_more_than_the_limit_of_a_second_are_sampled() {
        let began = Instant::now();
        let budget = Budget {
            began,
            taken: AtomicU64::new(0),
        };
        for second in [0, 1, 7] {
            let now = began + Duration::from_secs(second);
            let kept = (0..10_000).filter(|_| budget.take(now)).count();
            assert_eq!(kept as u64, Budget::PER_SECOND);
        }
    }
}
