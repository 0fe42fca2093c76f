//! The span of an alert, from the read of its record to the end of its last delivery.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use tollgate_log::{Reads, Record};
use tollgate_service::telemetry::trace::{Span, begin_kept};
use tollgate_types::TraceContext;

use crate::alert::Alert;

/// The span of an alert whose trace is sampled.
#[derive(Debug)]
pub(crate) struct AlertTrace {
    pub(crate) parent: TraceContext,
    pub(crate) context: TraceContext,
    pending: AtomicUsize,
    span: Mutex<Option<Span>>,
}

impl AlertTrace {
    pub(crate) fn begin(reads: &Reads, record: &Record<'_>, alert: &Alert) -> Option<Self> {
        let parent = alert.trace?;
        let context = begin_kept(Some(parent))?;
        let span = reads
            .process(record, context, Some(parent))
            .with("tollgate.transaction.id", alert.key.transaction_id.clone())
            .with("tollgate.decision.status", alert.status.name());
        Some(Self {
            parent,
            context,
            pending: AtomicUsize::new(0),
            span: Mutex::new(Some(span)),
        })
    }

    /// Adds a pending delivery.
    pub(crate) fn add_delivery(&self) {
        self.pending.fetch_add(1, Ordering::AcqRel);
    }

    /// A delivery has ended, or the alert is a dead letter. The last of them ends the span.
    pub(crate) fn resolve(&self) {
        if self.pending.fetch_sub(1, Ordering::AcqRel) == 1
            && let Some(span) = self.take()
        {
            span.end();
        }
    }

    /// A sink rejected it.
    pub(crate) fn fail(&self, kind: &str, reason: &str) {
        let mut span = self.span.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(span) = span.as_mut() {
            span.fail(kind, reason.to_owned());
        }
    }

    fn take(&self) -> Option<Span> {
        self.span
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }
}
