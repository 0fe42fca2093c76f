//! The alerts of one batch on their way to the sinks, and what is still owed for them.
//!
//! Invariant: a batch is completed when, and only when, every ticket of its parcel was resolved. A ticket that is
//! dropped on any way out (shutdown, a panic, a rebalance) leaves the batch in hand, and its records are read again.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio_util::sync::CancellationToken;
use tollgate_log::{Batch, Reads, Record};

use crate::alert::Alert;
use crate::traces::AlertTrace;

/// A batch and the alerts in it. It is completed when the last reference goes and nothing is owed.
#[derive(Debug)]
pub(crate) struct InFlightBatch {
    batch: Option<Batch>,
    /// Index of the record in the batch, its alert, and its span.
    alerts: Vec<(usize, Arc<Alert>, Option<Arc<AlertTrace>>)>,
    /// Cancelled when its partitions are no longer this process's.
    revoked: CancellationToken,
    owed: AtomicUsize,
}

/// Why a record is no alert: index in the batch, and the reason.
pub(crate) type Malformed = (usize, String);

impl InFlightBatch {
    pub(crate) fn open(
        mut batch: Batch,
        reads: &Reads,
        revoked: CancellationToken,
    ) -> (Arc<Self>, Vec<Malformed>) {
        let mut malformed = Vec::new();
        let mut alerts = Vec::with_capacity(batch.len());
        for (index, record) in batch.iter().enumerate() {
            match Alert::parse(&record) {
                Ok(alert) => {
                    let trace = AlertTrace::begin(reads, &record, &alert).map(Arc::new);
                    alerts.push((index, Arc::new(alert), trace));
                }
                Err(reason) => malformed.push((index, reason)),
            }
        }
        let traces = alerts.iter().filter_map(|(_, _, trace)| trace.as_ref());
        let joined = traces.map(|trace| trace.parent).collect();
        batch.joins(reads, joined);
        let parcel = Self {
            batch: Some(batch),
            alerts,
            revoked,
            owed: AtomicUsize::new(0),
        };
        (Arc::new(parcel), malformed)
    }

    /// How many alerts are in it.
    pub(crate) fn len(&self) -> usize {
        self.alerts.len()
    }

    /// A ticket for each alert: what one sink owes.
    pub(crate) fn tickets(self: &Arc<Self>) -> Vec<DeliveryGuard> {
        self.alerts
            .iter()
            .map(|(record, alert, trace)| {
                if let Some(trace) = trace {
                    trace.owe();
                }
                let mut ticket = self.ticket(*record, Some(Arc::clone(alert)));
                ticket.trace = trace.clone();
                ticket
            })
            .collect()
    }

    /// A ticket for a record that is no alert.
    pub(crate) fn ticket(
        self: &Arc<Self>,
        record: usize,
        alert: Option<Arc<Alert>>,
    ) -> DeliveryGuard {
        self.owed.fetch_add(1, Ordering::AcqRel);
        DeliveryGuard {
            parcel: Arc::clone(self),
            record,
            alert,
            trace: None,
        }
    }
}

impl Drop for InFlightBatch {
    fn drop(&mut self) {
        if let (0, Some(batch)) = (self.owed.load(Ordering::Acquire), self.batch.take()) {
            batch.complete();
        }
    }
}

/// One effect that is owed for one record.
#[derive(Debug)]
pub(crate) struct DeliveryGuard {
    parcel: Arc<InFlightBatch>,
    record: usize,
    alert: Option<Arc<Alert>>,
    trace: Option<Arc<AlertTrace>>,
}

impl DeliveryGuard {
    /// The alert, where the record is one.
    pub(crate) const fn alert(&self) -> Option<&Arc<Alert>> {
        self.alert.as_ref()
    }

    /// The alert's span, where its trace is kept.
    pub(crate) fn trace(&self) -> Option<&AlertTrace> {
        self.trace.as_deref()
    }

    /// The record, as it was read.
    pub(crate) fn record(&self) -> Option<Record<'_>> {
        self.parcel.batch.as_ref()?.iter().nth(self.record)
    }

    /// Cancelled when the record is no longer this process's to deliver.
    pub(crate) fn revoked(&self) -> &CancellationToken {
        &self.parcel.revoked
    }

    /// The effect is there.
    pub(crate) fn resolve(self) {
        if let Some(trace) = &self.trace {
            trace.resolve();
        }
        self.parcel.owed.fetch_sub(1, Ordering::AcqRel);
    }
}
