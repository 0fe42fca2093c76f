//! The spans of a message to a sink: one for each alert in it, in the trace of the alert.

use tollgate_service::resilience::CallFailure;
use tollgate_service::telemetry::trace::{Span, SpanKind, begin_kept};
use tollgate_types::TraceContext;

use super::{Failure, PendingAlert};

/// The spans of the alerts whose traces are sampled.
pub(super) struct Deliveries(Vec<Span>);

impl Deliveries {
    pub(super) fn begin(sink: &str, kind: &'static str, message: &[PendingAlert]) -> Self {
        let mut spans: Vec<Span> = Vec::new();
        for trace in message.iter().filter_map(|(_, guard)| guard.trace()) {
            let Some(context) = begin_kept(Some(trace.context)) else {
                continue;
            };
            let first = spans.first().map(Span::context);
            let span = Span::new(
                "notifier",
                SpanKind::Internal,
                format!("deliver {sink}"),
                context,
                Some(trace.context),
            );
            spans.push(
                span.with("tollgate.sink.name", sink.to_owned())
                    .with("tollgate.sink.kind", kind)
                    .linked_to(first),
            );
        }
        Self(spans)
    }

    /// The context of the message: that of the first span.
    pub(super) fn context(&self) -> Option<TraceContext> {
        self.0.first().map(Span::context)
    }

    pub(super) fn end(self, attempts: u32, result: &Result<(), CallFailure<Failure>>) {
        for mut span in self.0 {
            span.set("tollgate.delivery.attempts", i64::from(attempts));
            match result {
                Ok(()) => {}
                Err(CallFailure::Rejected(failure)) => span.fail("refused", failure.to_string()),
                Err(CallFailure::Unavailable(_)) => span.fail("abandoned", ""),
            }
            span.end();
        }
    }
}
