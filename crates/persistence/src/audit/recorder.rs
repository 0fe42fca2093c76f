//! Records the requests of the read API: one task writes whatever waits, in one database transaction.

use std::time::{Duration, Instant};

use axum::http::StatusCode;
use tokio::sync::{mpsc, oneshot};
use tollgate_service::Shutdown;
use tollgate_service::http::Problem;

use super::chain::Head;
use super::config::AuditMode;
use super::event::AuditEvent;
use super::log::AuditLog;
use super::refusals::Refusals;

/// Most entries of one database transaction, and most that wait.
const GROUP: usize = 256;
/// Between attempts to create the table.
const RETRY: Duration = Duration::from_secs(1);
/// How often the head is logged while there are new entries: somebody who cuts off the end of the chain would have to
/// change the log lines too.
const HEAD_INTERVAL: Duration = Duration::from_secs(60);

/// How often refused requests are recorded, one entry for each caller.
const REFUSALS_INTERVAL: Duration = Duration::from_secs(60);

type Waiting = (AuditEvent, oneshot::Sender<bool>);

/// Where requests are recorded. Clones share the task that writes.
#[derive(Debug, Clone)]
pub(crate) struct Recorder {
    entries: mpsc::Sender<Waiting>,
    required: bool,
    refusals: Refusals,
}

impl Recorder {
    /// The recorder and the task that writes; `None` if nothing is audited. `keys_required`: callers have names.
    pub(crate) fn start(
        mode: AuditMode,
        keys_required: bool,
        log: AuditLog,
        drained: Shutdown,
    ) -> Option<(Self, impl Future<Output = anyhow::Result<()>>)> {
        let required = match mode {
            AuditMode::Auto if keys_required => true,
            AuditMode::Required => true,
            AuditMode::BestEffort => false,
            AuditMode::Auto | AuditMode::Off => return None,
        };
        let (entries, waiting) = mpsc::channel(GROUP);
        let recorder = Self {
            entries,
            required,
            refusals: Refusals::default(),
        };
        let refusals = recorder.refusals.clone();
        Some((recorder, write(log, waiting, refusals, drained)))
    }

    /// Records a request without a key that permits it, within a minute: those of one caller share an entry with their
    /// number.
    pub(crate) fn refused(&self, event: AuditEvent) {
        self.refusals.count(event);
    }

    /// Records a request before its answer is sent.
    ///
    /// # Errors
    /// 503 if the entry cannot be written and the audit is required.
    pub(crate) async fn record(&self, event: AuditEvent) -> Result<(), Problem> {
        let (done, written) = oneshot::channel();
        // Waits for room: back-pressure of the store.
        let sent = self.entries.send((event, done)).await;
        if sent.is_ok() && written.await.unwrap_or(false) {
            return Ok(());
        }
        metrics::counter!("tollgate_audit_entries_total", "outcome" => "failed").increment(1);
        if !self.required {
            return Ok(());
        }
        let detail = "the access cannot be recorded in the audit, so that nothing is answered";
        Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail).retry_after(RETRY))
    }
}

async fn write(
    log: AuditLog,
    mut waiting: mpsc::Receiver<Waiting>,
    refusals: Refusals,
    drained: Shutdown,
) -> anyhow::Result<()> {
    let mut migrated = false;
    let mut logged = None::<Instant>;
    let mut refusals_due = tokio::time::Instant::now() + REFUSALS_INTERVAL;
    let mut group = Vec::with_capacity(GROUP);
    loop {
        if !migrated {
            migrated = match log.migrate().await {
                Ok(()) => true,
                Err(error) => {
                    tracing::warn!(%error, "the table of the audit is not there yet");
                    false
                }
            };
        }
        let received = tokio::select! {
            received = waiting.recv_many(&mut group, GROUP) => received,
            () = tokio::time::sleep(RETRY), if !migrated => continue,
            () = tokio::time::sleep_until(refusals_due) => {
                refusals_due += REFUSALS_INTERVAL;
                append_refusals(&log, &refusals, &mut logged).await;
                continue;
            }
            () = drained.begun() => 0,
        };
        if received == 0 {
            append_refusals(&log, &refusals, &mut logged).await;
            log.close().await;
            return Ok(());
        }
        let (events, waiters): (Vec<AuditEvent>, Vec<_>) = group.drain(..).unzip();
        let appended = log.append(&events).await;
        match &appended {
            Ok(head) => report(*head, events.len(), &mut logged),
            Err(error) => tracing::error!(%error, "accesses could not be recorded in the audit"),
        }
        for waiter in waiters {
            // The caller may have disconnected.
            let _ = waiter.send(appended.is_ok());
        }
    }
}

/// Nobody waits for these entries. What cannot be written is lost, and counted.
async fn append_refusals(log: &AuditLog, refusals: &Refusals, logged: &mut Option<Instant>) {
    let events = refusals.take();
    if events.is_empty() {
        return;
    }
    match log.append(&events).await {
        Ok(head) => report(head, events.len(), logged),
        Err(error) => {
            tracing::error!(%error, "refused requests could not be recorded in the audit");
            metrics::counter!("tollgate_audit_entries_total", "outcome" => "failed")
                .increment(events.len() as u64);
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "a number of entries")]
fn report(head: Head, written: usize, logged: &mut Option<Instant>) {
    metrics::counter!("tollgate_audit_entries_total", "outcome" => "written")
        .increment(written as u64);
    metrics::gauge!("tollgate_audit_head").set(head.seq as f64);
    if logged.is_none_or(|at| at.elapsed() >= HEAD_INTERVAL) {
        *logged = Some(Instant::now());
        tracing::info!(%head, "the head of the audit, for `tollgate audit verify store --head`");
    }
}
