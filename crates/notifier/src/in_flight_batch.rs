//! The alerts of one batch on their way to the sinks, and the deliveries that are pending for them.
//!
//! Invariant: a batch is completed if and only if every one of its guards was resolved. A guard that is dropped unresolved
//! (shutdown, a panic, a rebalance) leaves the batch uncommitted, and its records are read again.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio_util::sync::CancellationToken;
use tollgate_log::{Batch, Log, Reads, Record, Unauthenticated};
use tollgate_types::TopicKind;

use crate::alert::Alert;
use crate::traces::AlertTrace;

/// A batch and its alerts. It is completed when the last reference is dropped and no delivery is pending.
#[derive(Debug)]
pub(crate) struct InFlightBatch {
    batch: Option<Batch>,
    /// Index of the record in the batch, its alert, and its span.
    alerts: Vec<(usize, Arc<Alert>, Option<Arc<AlertTrace>>)>,
    /// Cancelled when its partitions are revoked.
    revoked: CancellationToken,
    pending: AtomicUsize,
}

/// A record that is not delivered.
#[derive(Debug)]
pub(crate) struct Refused {
    /// Its index in the batch.
    pub(crate) record: usize,
    /// `unauthenticated` or `malformed`.
    pub(crate) kind: &'static str,
    /// Why it is no alert.
    pub(crate) reason: String,
}

impl InFlightBatch {
    pub(crate) fn open(
        mut batch: Batch,
        log: &Log,
        reads: &Reads,
        revoked: CancellationToken,
    ) -> (Arc<Self>, Vec<Refused>) {
        let mut refused = Vec::new();
        let mut alerts = Vec::with_capacity(batch.len());
        for (index, record) in batch.iter().enumerate() {
            let authentic = log
                .authenticate(TopicKind::Alerts, &record)
                .map_err(|error| (Unauthenticated::KIND, error.to_string()));
            let parsed = authentic
                .and_then(|_| Alert::parse(&record).map_err(|reason| ("malformed", reason)));
            match parsed {
                Ok(alert) => {
                    let trace = AlertTrace::begin(reads, &record, &alert).map(Arc::new);
                    alerts.push((index, Arc::new(alert), trace));
                }
                Err((kind, reason)) => refused.push(Refused {
                    record: index,
                    kind,
                    reason,
                }),
            }
        }
        let traces = alerts.iter().filter_map(|(_, _, trace)| trace.as_ref());
        let joined = traces.map(|trace| trace.parent).collect();
        batch.joins(reads, joined);
        let batch = Self {
            batch: Some(batch),
            alerts,
            revoked,
            pending: AtomicUsize::new(0),
        };
        (Arc::new(batch), refused)
    }

    /// The number of its alerts.
    pub(crate) fn len(&self) -> usize {
        self.alerts.len()
    }

    /// A guard for each alert: the deliveries of one sink.
    pub(crate) fn guards(self: &Arc<Self>) -> Vec<DeliveryGuard> {
        self.alerts
            .iter()
            .map(|(record, alert, trace)| {
                if let Some(trace) = trace {
                    trace.add_delivery();
                }
                let mut guard = self.guard(*record, Some(Arc::clone(alert)));
                guard.trace = trace.clone();
                guard
            })
            .collect()
    }

    /// A guard for one record.
    pub(crate) fn guard(
        self: &Arc<Self>,
        record: usize,
        alert: Option<Arc<Alert>>,
    ) -> DeliveryGuard {
        self.pending.fetch_add(1, Ordering::AcqRel);
        DeliveryGuard {
            batch: Arc::clone(self),
            record,
            alert,
            trace: None,
        }
    }
}

impl Drop for InFlightBatch {
    fn drop(&mut self) {
        if let (0, Some(batch)) = (self.pending.load(Ordering::Acquire), self.batch.take()) {
            batch.complete();
        }
    }
}

/// One pending effect of one record: a delivery, or a dead letter.
#[derive(Debug)]
pub(crate) struct DeliveryGuard {
    batch: Arc<InFlightBatch>,
    record: usize,
    alert: Option<Arc<Alert>>,
    trace: Option<Arc<AlertTrace>>,
}

impl DeliveryGuard {
    /// The alert, if the record is one.
    pub(crate) const fn alert(&self) -> Option<&Arc<Alert>> {
        self.alert.as_ref()
    }

    /// The span of the alert, if its trace is sampled.
    pub(crate) fn trace(&self) -> Option<&AlertTrace> {
        self.trace.as_deref()
    }

    /// The record as it was read.
    pub(crate) fn record(&self) -> Option<Record<'_>> {
        self.batch.batch.as_ref()?.iter().nth(self.record)
    }

    /// Cancelled when the partition of the record is revoked.
    pub(crate) fn revoked(&self) -> &CancellationToken {
        &self.batch.revoked
    }

    /// The effect has happened: the alert was delivered and recorded, or the dead letter was acknowledged.
    pub(crate) fn resolve(self) {
        if let Some(trace) = &self.trace {
            trace.resolve();
        }
        self.batch.pending.fetch_sub(1, Ordering::AcqRel);
    }
}
