//! The spans of a batch of decisions: one for each decision whose trace is kept, and in it one for each statement that
//! was to store it. <https://opentelemetry.io/docs/specs/semconv/database/>

use std::ops::Range;
use std::time::SystemTime;

use tollgate_log::{Batch, Reads, Record};
use tollgate_service::telemetry::trace::{Span, SpanKind, begin_kept};
use tollgate_types::TraceContext;

use crate::rows::Row;
use crate::store::Store;

/// The decisions of a batch whose traces are kept.
#[derive(Debug, Default)]
pub(crate) struct Traces(Vec<Traced>);

#[derive(Debug)]
struct Traced {
    place: (usize, usize),
    /// Where it stands among the rows.
    row: usize,
    parent: TraceContext,
    span: Span,
}

impl Traces {
    /// Begins the span of a decision, if its trace is kept.
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

    /// The rows stand in the order of these places now.
    pub(crate) fn sorted(&mut self, places: &[(usize, usize)]) {
        for traced in &mut self.0 {
            let row = places.iter().position(|place| *place == traced.place);
            traced.row = row.unwrap_or_default();
        }
    }

    /// Tells each of them of a statement over these rows.
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

    /// The span under which a record is given up.
    pub(crate) fn give_up(
        &mut self,
        place: (usize, usize),
        kind: &str,
        reason: &str,
    ) -> Option<TraceContext> {
        let traced = self.0.iter_mut().find(|traced| traced.place == place)?;
        traced.span.fail(kind, reason.to_owned());
        Some(traced.span.context())
    }

    /// Ends them, and tells the batches of the traces that they join.
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
