//! The spans of a batch of decisions: one for each decision whose trace is sampled, with a child for each statement that
//! stores it. <https://opentelemetry.io/docs/specs/semconv/database/>

use std::ops::Range;
use std::time::SystemTime;

use tollgate_log::{Batch, Reads, Record};
use tollgate_service::telemetry::trace::{Span, SpanKind, begin_kept};
use tollgate_types::TraceContext;

use crate::rows::Row;
use crate::store::Store;

/// The decisions of a batch whose traces are sampled.
#[derive(Debug, Default)]
pub(crate) struct Traces(Vec<Traced>);

#[derive(Debug)]
struct Traced {
    place: (usize, usize),
    /// Its index among the rows.
    row: usize,
    parent: TraceContext,
    span: Span,
}

impl Traces {
    /// Starts the span of a decision, if its trace is sampled.
    pub(crate) fn begin(
        &mut self,
        reads: &Reads,
        place: (usize, usize),
        record: &Record<'_>,
        row: &Row<'_>,
    ) {
        let parent = record.trace().or(row.trace);
        let Some((parent, context)) =
            parent.and_then(|parent| Some((parent, begin_kept(Some(parent))?)))
        else {
            return;
        };
        let span = reads
            .process(record, context, Some(parent))
            .with("tollgate.transaction.id", row.transaction_id.to_string());
        self.0.push(Traced {
            place,
            row: 0,
            parent,
            span,
        });
    }

    /// Sets the indexes after the rows were sorted in the order of these places.
    pub(crate) fn sorted(&mut self, places: &[(usize, usize)]) {
        for traced in &mut self.0 {
            let row = places.iter().position(|place| *place == traced.place);
            traced.row = row.unwrap_or_default();
        }
    }

    /// Adds the span of a statement to each decision among these rows.
    pub(crate) fn wrote(
        &self,
        store: &Store,
        rows: &Range<usize>,
        began: SystemTime,
        failure: Option<&str>,
    ) {
        for traced in self.0.iter().filter(|traced| rows.contains(&traced.row)) {
            let parent = traced.span.context();
            let Some(context) = begin_kept(Some(parent)) else {
                continue;
            };
            let mut span = Span::new(
                "persistence",
                SpanKind::Client,
                "INSERT fraud_analysis",
                context,
                Some(parent),
            )
            .since(began)
            .with("db.system.name", store.system())
            .with("db.operation.name", "INSERT")
            .with("db.collection.name", "fraud_analysis")
            .with("db.query.summary", "INSERT transactions fraud_analysis")
            .with_some(
                "db.operation.batch.size",
                (rows.len() > 1).then(|| i64::try_from(rows.len()).unwrap_or(i64::MAX)),
            );
            if let Some(reason) = failure {
                span.fail("refused", reason.to_owned());
            }
            span.end();
        }
    }

    /// Marks the span of a refused record as failed, and returns its context.
    pub(crate) fn fail(
        &mut self,
        place: (usize, usize),
        kind: &str,
        reason: &str,
    ) -> Option<TraceContext> {
        let traced = self.0.iter_mut().find(|traced| traced.place == place)?;
        traced.span.fail(kind, reason.to_owned());
        Some(traced.span.context())
    }

    /// Ends the spans, and links the batches to their traces.
    pub(crate) fn end(self, reads: &Reads, batches: &mut [Batch]) {
        let mut joined: Vec<Vec<TraceContext>> = batches.iter().map(|_| Vec::new()).collect();
        for traced in self.0 {
            joined[traced.place.0].push(traced.parent);
            traced.span.end();
        }
        for (batch, joined) in batches.iter_mut().zip(joined) {
            batch.joins(reads, joined);
        }
    }
}
