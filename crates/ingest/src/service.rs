//! Starting the service, and stopping it: whatever dies takes the whole of it down, in order.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tollgate_log::{Kafka, Producer};
use tollgate_service::Shutdown;
use tollgate_service::health::Health;
use tollgate_service::http::{bind, serve_admin_with};
use tollgate_service::resilience::Dependency;

use crate::IngestConfig;
use crate::api::{App, router};
use crate::events::Confirmations;
use crate::imports::{self, Imports};
use crate::limits::Limits;
use crate::replies::Replies;
use crate::{availability, publish, replies};

/// How long a record on its way may take at least to be acknowledged after the last answer.
const MIN_FLUSH: Duration = Duration::from_millis(500);

/// The running service.
#[derive(Debug)]
pub struct Ingest {
    /// Where transactions are taken.
    pub address: SocketAddr,
    /// Where probes and metrics are answered.
    pub admin_address: SocketAddr,
    /// Whether it can do its work.
    pub health: Health,
    running: JoinHandle<anyhow::Result<()>>,
}

impl Ingest {
    /// Waits until the service has ended: after the shutdown with everything answered, or by an error.
    ///
    /// # Errors
    /// What ended it.
    pub async fn join(self) -> anyhow::Result<()> {
        self.running.await?
    }

    /// Whether it has ended, which it does not before the shutdown unless something is wrong.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.running.is_finished()
    }

    /// Waits until it is ready for the first time. False: it ended before that.
    pub async fn ready(&self) -> bool {
        while !self.health.is_ready() {
            if self.running.is_finished() {
                return false;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        true
    }
}

/// Takes its ports and starts. It answers at once, and is ready when the log is there.
///
/// # Errors
/// Names the setting at fault.
pub async fn start(
    config: IngestConfig,
    kafka: Kafka,
    shutdown: Shutdown,
) -> anyhow::Result<Ingest> {
    let keys = config.validate(kafka.config())?;
    let public = bind("ingest.listen", config.listen).await?;
    let admin = bind("ingest.admin_listen", config.admin_listen).await?;
    let (address, admin_address) = (public.address(), admin.address());
    let health = Health::starting(&[availability::COMPONENT, replies::COMPONENT]);
    // Its own signal, so that a part that dies can stop the others without stopping what else the process runs.
    let shutdown = shutdown.child();
    // What must go on until the last request is answered.
    let drained = Shutdown::new(shutdown.grace());
    let producer = kafka.producer("ingest")?;
    let (replies, replies_ended) = Replies::start(&kafka, &health, &drained)?;
    let (imports, imports_ended) = Imports::start(&config, &kafka, &health, &shutdown)?;
    let watch = availability::watch(kafka.clone(), health.clone(), drained.clone());
    let app = Arc::new(App {
        limits: Limits::new(&config),
        log: Dependency::new("log", &publish::limits(&config), None),
        confirmations: Confirmations::new(&config)?,
        imports,
        config,
        keys,
        topic: kafka.topics().transactions.clone(),
        producer: producer.clone(),
        kafka: kafka.clone(),
        replies,
        health: health.clone(),
        shutdown: shutdown.clone(),
    });
    let parts = Parts {
        public: tokio::spawn(public.serve(router(app), shutdown.clone())),
        admin: tokio::spawn(serve_admin_with(
            admin,
            imports::admin_routes(kafka.clone()),
            health.clone(),
            drained.clone(),
        )),
        watch: tokio::spawn(watch),
        replies_ended,
        imports_ended,
        producer,
        health: health.clone(),
        shutdown,
        drained,
    };
    tracing::info!(%address, %admin_address, "ingest listens");
    Ok(Ingest {
        address,
        admin_address,
        health,
        running: tokio::spawn(parts.run()),
    })
}

/// Starts, says on standard output where it is once it is ready, and runs until it has ended.
///
/// # Errors
/// What ended it.
#[expect(
    clippy::print_stdout,
    reason = "whoever started it reads its addresses there"
)]
pub async fn run(config: IngestConfig, kafka: Kafka, shutdown: Shutdown) -> anyhow::Result<()> {
    let ingest = start(config, kafka, shutdown).await?;
    // The admin port answers why the service is not ready, so it is told before that.
    println!("ingest admin: http://{}", ingest.admin_address);
    if ingest.ready().await {
        println!("ingest: http://{}", ingest.address);
    }
    ingest.join().await
}

struct Parts {
    public: JoinHandle<anyhow::Result<()>>,
    admin: JoinHandle<anyhow::Result<()>>,
    watch: JoinHandle<anyhow::Result<()>>,
    replies_ended: oneshot::Receiver<()>,
    imports_ended: imports::Ended,
    producer: Producer,
    health: Health,
    shutdown: Shutdown,
    drained: Shutdown,
}

impl Parts {
    async fn run(mut self) -> anyhow::Result<()> {
        let died = tokio::select! {
            // The shutdown first: it ends the others too, and that is no death.
            biased;
            () = self.shutdown.begun() => Ok(()),
            result = &mut self.public => Err(ended("the listener", flat(result))),
            result = &mut self.admin => Err(ended("the admin listener", flat(result))),
            result = &mut self.watch => Err(ended("the watch over the log", flat(result))),
            () = importer_ended(&mut self.imports_ended) => Err(ended("the importer", Ok(()))),
            _ = &mut self.replies_ended => Err(ended("the reader of replies", Ok(()))),
        };
        self.health.not_ready("shutdown", "draining");
        self.shutdown.begin();
        let stop_at = Instant::now() + self.shutdown.grace();
        let served = match &died {
            Err(_) if self.public.is_finished() => Ok(()),
            _ => flat(self.public.await),
        };
        // What is on its way there is written by a producer of its own; another instance goes on with the rest.
        let left = stop_at.saturating_duration_since(Instant::now());
        if self.imports_ended.is_some() {
            let ended = importer_ended(&mut self.imports_ended);
            if tokio::time::timeout(left, ended).await.is_err() {
                tracing::warn!("imports were cut off at the end of the grace period");
            }
        }
        let flushed = flush(self.producer, stop_at).await;
        self.drained.begin();
        if died.is_ok() || !self.admin.is_finished() {
            flat(self.admin.await)?;
        }
        died.and(served).and(flushed)
    }
}

/// Records of requests that were given up may still be on their way; with luck they arrive.
async fn flush(producer: Producer, stop_at: Instant) -> anyhow::Result<()> {
    let left = stop_at
        .saturating_duration_since(Instant::now())
        .max(MIN_FLUSH);
    let flushed = tokio::task::spawn_blocking(move || producer.flush(left)).await?;
    if let Err(error) = flushed {
        // Nobody was told that they were accepted, so their loss is none.
        tracing::warn!(%error, "records without an answer were left behind");
    }
    Ok(())
}

/// The end of what imports; never, where there is none.
async fn importer_ended(ended: &mut imports::Ended) {
    match ended {
        Some(receiver) => {
            // Its sender is dropped where it panics.
            let _ = receiver.await;
            *ended = None;
        }
        None => std::future::pending().await,
    }
}

fn flat(result: Result<anyhow::Result<()>, tokio::task::JoinError>) -> anyhow::Result<()> {
    result.unwrap_or_else(|panic| Err(panic.into()))
}

fn ended(what: &str, result: anyhow::Result<()>) -> anyhow::Error {
    match result {
        Ok(()) => anyhow::anyhow!("{what} has ended by itself"),
        Err(error) => error.context(format!("{what} has ended")),
    }
}
