//! Wires the service: the writer and the read API. The supervisor starts, watches and drains them.

use tollgate_log::Log;
use tollgate_service::Shutdown;
use tollgate_service::database::DatabaseError;
use tollgate_service::health::Health;
use tollgate_service::http::{ApiKeys, bind};
use tollgate_service::resilience::CallPolicy;
use tollgate_service::supervisor::{RunningService, Supervisor};

use crate::api::{self, Gate};
use crate::audit::{AuditLog, Recorder, retention as audit_retention};
use crate::config::PersistenceConfig;
use crate::repair;
use crate::retention;
use crate::store::{self, Store};
use crate::writer::DecisionWriter;

/// Starts the service. It answers at once; it stores decisions as soon as the store and the topics are reachable.
///
/// # Errors
/// Names the invalid setting, or the address that is taken.
pub async fn start(
    config: PersistenceConfig,
    kafka: Log,
    shutdown: Shutdown,
) -> anyhow::Result<RunningService> {
    config.validate()?;
    let keys = ApiKeys::new(
        "persistence",
        &config.api_keys,
        config.api_keys_file.as_deref(),
        config.listen,
        &[],
    )?;
    let public = bind("persistence.listen", config.listen)
        .await?
        .with(&config.http, keys.are_required())
        .with_tls(&config.tls)
        .await?;
    let admin = bind("persistence.admin_listen", config.admin_listen)
        .await?
        .with_tls(&config.tls.of_admin())
        .await?;
    let health = Health::starting(&["log", store::COMPONENT, "topics"]);
    let store = Store::open(&config, health.clone()).await?;
    let mut supervisor = Supervisor::new("persistence", health.clone(), &shutdown, admin);
    let shutdown = supervisor.shutdown().clone();
    let writer = DecisionWriter::new(&config, kafka, store.clone(), health, shutdown)?;
    supervisor.spawn("the writer", writer.run());
    let keys_watch = keys.clone().watch(supervisor.drained().clone());
    supervisor.spawn_support("the watch over API keys", async move {
        keys_watch.await;
        Ok(())
    });
    let repairing = repair::run(store.clone(), supervisor.shutdown().clone());
    supervisor.spawn_support("the repair of stored transactions", async move {
        repairing.await;
        Ok(())
    });
    if let Some(days) = config.retention_days {
        let rule = retention::Rule {
            days,
            whole_months: config.retention_whole_months,
        };
        let deleting = retention::run(store.clone(), rule, supervisor.shutdown().clone());
        supervisor.spawn_support("the deletion of expired decisions", async move {
            deleting.await;
            Ok(())
        });
    }
    let audit = AuditLog::open(&config).await?;
    let recorder = Recorder::start(
        config.audit.mode,
        keys.are_required(),
        audit,
        supervisor.drained().clone(),
    );
    let audit = recorder.map(|(recorder, writing)| {
        supervisor.spawn_support("the writer of the audit", writing);
        recorder
    });
    if let Some(days) = config.audit.retention_days
        && audit.is_some()
    {
        let log = AuditLog::open(&config).await?;
        let removing = audit_retention::run(log, days, supervisor.shutdown().clone());
        supervisor.spawn_support("the retention of the audit", async move {
            removing.await;
            Ok(())
        });
    }
    let gate = Gate { keys, audit };
    supervisor.serve(public, api::router(store.clone(), &config, gate)?);
    Ok(supervisor.start(async move |_| {
        store.close().await;
        Ok(())
    }))
}

/// Brings the tables to the schema of this version, and ends.
///
/// # Errors
/// Names the invalid setting, or holds the database's error.
pub async fn migrate(config: &PersistenceConfig) -> anyhow::Result<()> {
    config.validate()?;
    let store = Store::open(config, Health::starting(&[])).await?;
    let migrated = store.migrate(&CallPolicy::no_retry()).await;
    migrated.map_err(DatabaseError::from)?;
    let audit = AuditLog::open(config).await?;
    audit.migrate().await?;
    audit.close().await;
    Ok(())
}

/// Starts, prints its addresses on standard output, and runs until it has ended.
///
/// # Errors
/// What ended it.
pub async fn run(config: PersistenceConfig, kafka: Log, shutdown: Shutdown) -> anyhow::Result<()> {
    let service = start(config, kafka, shutdown).await?;
    service.announce_and_join().await
}
