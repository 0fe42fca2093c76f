//! Deletes decisions that are older than the retention, in small steps.
//!
//! Invariant: a step is one short database transaction, and the next one waits, so that the writer is never kept from
//! writing for longer than a step.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use tollgate_service::Shutdown;

use crate::store::Store;

/// Time between two passes.
const PASS: Duration = Duration::from_secs(3_600);
/// Time between two steps of a pass.
const PAUSE: Duration = Duration::from_millis(50);
/// While the store is down, or its tables are not made yet.
const RETRY: Duration = Duration::from_secs(2);
/// A row whose event time is this far ahead is judged by the time at which it was stored.
const AHEAD: TimeDelta = TimeDelta::days(1);

/// What a pass deletes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Expired {
    /// Rows with an earlier event time, and of those behind `ahead` the rows that were stored earlier.
    pub(crate) before: DateTime<Utc>,
    pub(crate) ahead: DateTime<Utc>,
}

/// Runs until the shutdown.
pub(crate) async fn run(store: Store, days: u32, shutdown: Shutdown) {
    loop {
        let now = Utc::now();
        let expired = Expired {
            before: now - TimeDelta::days(i64::from(days)),
            ahead: now + AHEAD,
        };
        let wait = if pass(&store, expired, &shutdown).await {
            PASS
        } else {
            RETRY
        };
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = shutdown.begun() => return,
        }
    }
}

/// Deletes everything that is expired. False if the store failed.
async fn pass(store: &Store, expired: Expired, shutdown: &Shutdown) -> bool {
    let mut rows = 0;
    let ended = loop {
        if shutdown.is_begun() {
            break true;
        }
        match store.delete_expired(expired).await {
            Ok(0) => break true,
            Ok(deleted) => {
                metrics::counter!("tollgate_persistence_rows_expired_total").increment(deleted);
                rows += deleted;
            }
            Err(error) => {
                // The writer reports an outage of the store.
                tracing::debug!(%error, "expired decisions could not be deleted; this is tried again");
                break false;
            }
        }
        tokio::time::sleep(PAUSE).await;
    };
    if rows > 0 {
        tracing::info!(rows, before = %expired.before, "expired decisions were deleted");
    }
    ended
}
