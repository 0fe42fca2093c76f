//! Removes entries of the audit that are older than `audit.retention_days`, in small steps.
//!
//! Invariant: the entry that names the head of what is removed is committed with the removal, so that the rest of the chain
//! can be verified from there.

use std::time::Duration;

use chrono::{TimeDelta, Utc};
use tollgate_service::Shutdown;
use tollgate_service::database::DatabaseError;
use tollgate_types::Timestamp;

use super::log::AuditLog;

/// Time between two passes.
const PASS: Duration = Duration::from_secs(3_600);
/// Time between two steps of a pass.
const PAUSE: Duration = Duration::from_millis(50);
/// While the store is down.
const RETRY: Duration = Duration::from_secs(2);

/// Runs until the shutdown.
pub(crate) async fn run(log: AuditLog, days: u32, shutdown: Shutdown) {
    loop {
        let wait = match pass(&log, days, &shutdown).await {
            Ok(()) => PASS,
            Err(error) => {
                tracing::warn!(%error, "old entries of the audit could not be removed; this is tried again");
                RETRY
            }
        };
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = shutdown.begun() => break,
        }
    }
    log.close().await;
}

async fn pass(log: &AuditLog, days: u32, shutdown: &Shutdown) -> Result<(), DatabaseError> {
    log.migrate().await?;
    let before = Utc::now() - TimeDelta::days(i64::from(days));
    let Some(before) = Timestamp::from_micros(before.timestamp_micros()) else {
        return Ok(());
    };
    while !shutdown.is_begun() {
        let Some((anchor, removed)) = log.expire(before).await? else {
            return Ok(());
        };
        metrics::counter!("tollgate_audit_entries_expired_total").increment(removed);
        tracing::info!(
            up_to = anchor.seq,
            "entries of the audit were removed by its retention"
        );
        tokio::time::sleep(PAUSE).await;
    }
    Ok(())
}
