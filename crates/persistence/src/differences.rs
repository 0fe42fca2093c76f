//! Counts and reports decisions that differ from the stored ones on the same transactions. The stored ones stay.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::rows::Row;
use crate::store::{Different, Store};

/// Between two lines: a log that is decided anew by other rules has as many as there are transactions.
const INTERVAL: Duration = Duration::from_secs(60);

/// What is to be reported.
#[derive(Debug, Default)]
pub(crate) struct Differences(Mutex<Unreported>);

#[derive(Debug, Default)]
struct Unreported {
    decisions: u64,
    reported: Option<Instant>,
}

impl Differences {
    /// Compares rows that were written, some of which were stored before. If the store does not answer, they are not
    /// counted: the rows themselves are stored.
    pub(crate) async fn find(&self, store: &Store, rows: &[Row<'_>]) {
        match store.different(rows).await {
            Ok(Some(different)) => self.report(&different),
            Ok(None) => {}
            Err(error) => {
                tracing::debug!(%error, "decisions that arrived again could not be compared with the stored ones");
            }
        }
    }

    fn report(&self, different: &Different) {
        metrics::counter!("tollgate_persistence_decisions_differing_total")
            .increment(different.decisions);
        let mut unreported = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        unreported.decisions += different.decisions;
        if unreported
            .reported
            .is_some_and(|at| at.elapsed() < INTERVAL)
        {
            return;
        }
        tracing::warn!(
            decisions = unreported.decisions,
            transaction_id = different.transaction_id,
            stored = different.stored,
            arrived = different.arrived,
            "decisions differ from those that are stored on the same transactions and amounts; the stored ones stay: an id \
             was used again after the lookback, or the log was decided anew"
        );
        *unreported = Unreported {
            decisions: 0,
            reported: Some(Instant::now()),
        };
    }
}
