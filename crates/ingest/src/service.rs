//! Wires the service: its parts, and what they share. The supervisor starts, watches and drains them.

use std::sync::Arc;
use std::time::Duration;

use tollgate_log::{Log, Producer};
use tollgate_service::Shutdown;
use tollgate_service::health::Health;
use tollgate_service::http::bind;
use tollgate_service::resilience::Dependency;
use tollgate_service::supervisor::{RunningService, Supervisor};

use crate::IngestConfig;
use crate::admission::AdmissionControl;
use crate::api::{App, router};
use crate::events::Confirmations;
use crate::imports;
use crate::imports::Imports;
use crate::lateness::NewestTimes;
use crate::replies::Replies;
use crate::{availability, publish, replies};

/// The shortest time in which a record in flight may be acknowledged after the last answer.
const MIN_FLUSH: Duration = Duration::from_millis(500);

/// Takes its ports and starts. It answers at once, and is ready when the log is reachable.
///
/// # Errors
/// Names the invalid setting.
pub async fn start(
    config: IngestConfig,
    kafka: Log,
    shutdown: Shutdown,
) -> anyhow::Result<RunningService> {
    let keys = config.validate(kafka.config())?;
    let public = bind("ingest.listen", config.listen)
        .await?
        .with(&config.http, keys.are_required())
        .with_tls(&config.tls)
        .await?;
    let admin = bind("ingest.admin_listen", config.admin_listen)
        .await?
        .with_tls(&config.tls.of_admin())
        .await?;
    let health = Health::starting(&[availability::COMPONENT, replies::COMPONENT]);
    let mut supervisor = Supervisor::with_admin_routes(
        "ingest",
        health.clone(),
        &shutdown,
        admin,
        imports::admin_routes(kafka.clone()),
    );
    let (shutdown, drained) = (supervisor.shutdown().clone(), supervisor.drained().clone());
    let producer = kafka.producer("ingest")?;

    // Requests in flight depend on these two to the end.
    let watch = availability::watch(kafka.clone(), health.clone(), drained.clone());
    supervisor.spawn_support("the watch over the log", watch);
    let (replies, replies_ended) = Replies::start(&kafka, &health, &drained)?;
    supervisor.spawn_support("the reader of replies", async move {
        // The sender is dropped if the reader panics.
        let _ = replies_ended.await;
        Ok(())
    });
    let newest = Arc::new(NewestTimes::new(config.late_after_hours));
    let (imports, imports_ended) = Imports::start(&config, &kafka, &health, &shutdown, &newest)?;
    if let Some(ended) = imports_ended {
        supervisor.spawn("the importer", async move {
            let _ = ended.await;
            Ok(())
        });
    }
    let keys_watch = keys.clone().watch(drained.clone());
    supervisor.spawn_support("the watch over API keys", async move {
        keys_watch.await;
        Ok(())
    });
    let app = Arc::new(App {
        admission: AdmissionControl::new(&config),
        log: Dependency::new("log", &publish::limits(&config), None),
        confirmations: Confirmations::new(&config)?,
        cards: config.card_policy()?,
        imports,
        newest,
        config,
        keys,
        topic: kafka.topics().transactions.clone(),
        producer: producer.clone(),
        kafka: kafka.clone(),
        replies,
        health,
        shutdown,
    });
    let address = public.address();
    supervisor.serve(public, router(app)?);
    let service = supervisor.start(|left| flush(producer, left.max(MIN_FLUSH)));
    tracing::info!(%address, admin_address = %service.admin_address, "ingest listens");
    Ok(service)
}

/// Starts, prints its addresses on standard output, and runs until it has ended.
///
/// # Errors
/// What ended it.
pub async fn run(config: IngestConfig, kafka: Log, shutdown: Shutdown) -> anyhow::Result<()> {
    let service = start(config, kafka, shutdown).await?;
    service.announce_and_join().await
}

/// Gives the records of requests that got no answer in time a last chance to be written.
async fn flush(producer: Producer, timeout: Duration) -> anyhow::Result<()> {
    let flushed = tokio::task::spawn_blocking(move || producer.flush(timeout)).await?;
    if let Err(error) = flushed {
        // They were not accepted, so that their loss breaks no promise.
        tracing::warn!(%error, "records without an answer were not written");
    }
    Ok(())
}
