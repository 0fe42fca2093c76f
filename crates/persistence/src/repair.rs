//! After an update: brings the transactions that the previous version stored to the text that JSON functions can read, in
//! small steps beside the writer.
//!
//! Invariant: it ends after a pass that began when no replica of the previous version could write any more. Without rows of a
//! previous version it ends at once.

use std::time::Duration;

use chrono::Utc;
use tollgate_service::Shutdown;
use tollgate_service::database::DatabaseError;

use crate::store::{Key, Store};

/// Time between two passes.
const PASS: Duration = Duration::from_secs(3_700);
/// Time between two steps of a pass.
const PAUSE: Duration = Duration::from_millis(50);
/// While the store is down, or its tables are not made yet.
const RETRY: Duration = Duration::from_secs(2);

/// Runs until everything is repaired, or until the shutdown.
pub(crate) async fn run(store: Store, shutdown: Shutdown) {
    loop {
        let wait = match pass(&store, &shutdown).await {
            Ok(true) => break,
            Ok(false) => PASS,
            Err(error) => {
                // The writer reports an outage of the store.
                tracing::debug!(%error, "stored transactions could not be repaired; this is tried again");
                RETRY
            }
        };
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = shutdown.begun() => return,
        }
    }
    shutdown.begun().await;
}

/// Goes over all rows. True if no further pass is needed.
async fn pass(store: &Store, shutdown: &Shutdown) -> Result<bool, DatabaseError> {
    if store.bodies_are_done().await? {
        return Ok(true);
    }
    let (begun, mut rows, mut after) = (Utc::now(), 0, Key::default());
    loop {
        if shutdown.is_begun() {
            return Ok(false);
        }
        let (next, repaired) = store.repair_bodies(&after).await?;
        rows += repaired;
        metrics::counter!("tollgate_persistence_rows_repaired_total").increment(repaired);
        let Some(next) = next else { break };
        after = next;
        tokio::time::sleep(PAUSE).await;
    }
    if rows > 0 {
        tracing::info!(
            rows,
            "transactions with values that JSON functions cannot read have a readable text beside the original"
        );
    }
    store.bodies_passed(begun).await?;
    store.bodies_are_done().await
}
