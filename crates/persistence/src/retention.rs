//! Deletes decisions that are older than the retention: whole months where the store has a table for each, and the others in
//! small steps.
//!
//! Invariant: a step is one short database transaction, and the next one waits, so that the writer is never kept from
//! writing for longer than a step.

use std::time::Duration;

use chrono::{DateTime, Datelike as _, NaiveTime, TimeDelta, Utc};
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

/// How long decisions are kept.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rule {
    pub(crate) days: u32,
    /// A month is kept until all of it is older.
    pub(crate) whole_months: bool,
}

impl Rule {
    /// What is expired at this time.
    fn expired(self, now: DateTime<Utc>) -> Expired {
        let before = now - TimeDelta::days(i64::from(self.days));
        let month = before
            .with_day(1)
            .and_then(|day| day.with_time(NaiveTime::MIN).single())
            .filter(|_| self.whole_months);
        Expired {
            before: month.unwrap_or(before),
            ahead: now + AHEAD,
        }
    }
}

/// Runs until the shutdown.
pub(crate) async fn run(store: Store, rule: Rule, shutdown: Shutdown) {
    loop {
        let expired = rule.expired(Utc::now());
        let wait = if pass(&store, expired, &shutdown).await && forget_keys(&store, &shutdown).await
        {
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
    // Once in a pass: others wait for their tables while a month waits to be dropped.
    let mut rows = match store.drop_expired(expired).await {
        Ok(dropped) => dropped,
        Err(error) => {
            tracing::debug!(%error, "expired months could not be dropped; this is tried again");
            return false;
        }
    };
    metrics::counter!("tollgate_persistence_rows_expired_total").increment(rows);
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

/// Deletes the keys of dropped months. False if the store failed.
async fn forget_keys(store: &Store, shutdown: &Shutdown) -> bool {
    while !shutdown.is_begun() {
        match store.forget_keys().await {
            Ok(true) => tokio::time::sleep(PAUSE).await,
            Ok(false) => break,
            Err(error) => {
                tracing::debug!(%error, "keys of expired decisions could not be deleted; this is tried again");
                return false;
            }
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_months_are_kept_until_their_last_instant_has_expired() {
        let cases = [
            ("2026-12-31T23:59:59Z", 30, "2026-12-01T00:00:00Z"),
            ("2026-12-30T12:00:00Z", 30, "2026-11-01T00:00:00Z"),
            ("2027-01-01T00:00:00Z", 1, "2026-12-01T00:00:00Z"),
            ("2026-03-31T00:00:00Z", 30, "2026-03-01T00:00:00Z"),
        ];
        for (now, days, before) in cases {
            let now: DateTime<Utc> = now.parse().unwrap();
            let rule = |whole_months| Rule { days, whole_months };
            let exact = now - TimeDelta::days(i64::from(days));
            assert_eq!(rule(false).expired(now).before, exact);
            let expected: DateTime<Utc> = before.parse().unwrap();
            assert_eq!(rule(true).expired(now).before, expected, "{now}");
        }
    }
}
