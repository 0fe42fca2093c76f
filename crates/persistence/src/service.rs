//! Persistence as a service: starts the writer, the read API and the admin port, and takes all down if one ends.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use tokio::task::{JoinHandle, JoinSet};
use tollgate_log::Kafka;
use tollgate_service::Shutdown;
use tollgate_service::database::DatabaseError;
use tollgate_service::health::Health;
use tollgate_service::http::{ApiKeys, Bound, bind, serve_admin};
use tollgate_service::resilience::CallPolicy;

use crate::api;
use crate::config::PersistenceConfig;
use crate::store::{self, Store};
use crate::writer::DecisionWriter;

/// A running persistence service.
#[derive(Debug)]
pub struct Persistence {
    /// Where the read API is answered.
    pub address: SocketAddr,
    /// Where probes and metrics are answered.
    pub admin_address: SocketAddr,
    health: Health,
    task: JoinHandle<anyhow::Result<()>>,
}

impl Persistence {
    /// Whether it has ended, which it does not before the shutdown unless something is wrong.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.task.is_finished()
    }

    /// Waits until it is ready for the first time, or has ended.
    pub async fn ready(&self) {
        while !self.health.is_ready() && !self.task.is_finished() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until it has ended: after the shutdown, or by an error.
    ///
    /// # Errors
    /// What ended it.
    pub async fn join(self) -> anyhow::Result<()> {
        self.task.await.context("persistence has panicked")?
    }
}

/// Starts the service. It answers at once; it stores decisions as soon as the store and the topics are there.
///
/// # Errors
/// Where a setting is wrong or an address is taken.
pub async fn start(
    config: PersistenceConfig,
    kafka: Kafka,
    shutdown: Shutdown,
) -> anyhow::Result<Persistence> {
    config.validate()?;
    let keys = ApiKeys::new("persistence", &config.api_keys, config.listen)?;
    let public = bind("persistence.listen", config.listen).await?;
    let admin = bind("persistence.admin_listen", config.admin_listen).await?;
    let (address, admin_address) = (public.address(), admin.address());
    let health = Health::starting(&["log", store::COMPONENT, "topics"]);
    let store = Store::open(&config, health.clone()).await?;
    // Ends with the given one, and also when one of the tasks ends.
    let shutdown = shutdown.child();
    let writer = DecisionWriter::new(
        &config,
        kafka,
        store.clone(),
        health.clone(),
        shutdown.clone(),
    )?;
    let app = api::router(store.clone(), &config, keys);
    let mut tasks = JoinSet::new();
    tasks.spawn(writer.run());
    tasks.spawn(public.serve(app, shutdown.clone()));
    let task = tokio::spawn(supervise(tasks, admin, store, health.clone(), shutdown));
    Ok(Persistence {
        address,
        admin_address,
        health,
        task,
    })
}

/// Brings the tables to what this version works with, and ends.
///
/// # Errors
/// Names the setting at fault, or says what the database answers.
pub async fn migrate(config: &PersistenceConfig) -> anyhow::Result<()> {
    config.validate()?;
    let store = Store::open(config, Health::starting(&[])).await?;
    let migrated = store.migrate(&CallPolicy::no_retry()).await;
    Ok(migrated.map_err(DatabaseError::from)?)
}

/// Runs the service until the shutdown, and prints its admin address, and the other once it is ready.
///
/// # Errors
/// What ended it before.
#[expect(
    clippy::print_stdout,
    reason = "whoever starts the process reads the address here"
)]
pub async fn run(
    config: PersistenceConfig,
    kafka: Kafka,
    shutdown: Shutdown,
) -> anyhow::Result<()> {
    let persistence = start(config, kafka, shutdown).await?;
    // The admin port answers why the service is not ready, so it is told before that.
    println!("persistence admin: http://{}", persistence.admin_address);
    persistence.ready().await;
    if persistence.health.is_ready() {
        println!("persistence: http://{}", persistence.address);
    }
    persistence.join().await
}

async fn supervise(
    mut tasks: JoinSet<anyhow::Result<()>>,
    admin: Bound,
    store: Store,
    health: Health,
    shutdown: Shutdown,
) -> anyhow::Result<()> {
    // The probes outlive the work: a service that drains is alive, and not ready.
    let end = Shutdown::new(Duration::from_secs(1));
    let mut probes = tokio::spawn(serve_admin(admin, health.clone(), end.clone()));
    let mut outcome = Ok(());
    tokio::select! {
        () = shutdown.begun() => {}
        Some(ended) = tasks.join_next() => {
            let early = || Err(anyhow!("a part of persistence has ended before it was told to"));
            let asked = shutdown.is_begun();
            outcome = ended.context("a part of persistence has panicked").flatten();
            if outcome.is_ok() && !asked {
                outcome = early();
            }
        }
        ended = &mut probes => {
            outcome = ended.context("the admin port has panicked").flatten().and(Err(anyhow!("the admin port has closed")));
        }
    }
    health.not_ready("service", "stopping");
    shutdown.begin();
    while let Some(ended) = tasks.join_next().await {
        let ended = ended
            .context("a part of persistence has panicked")
            .flatten();
        outcome = outcome.and(ended);
    }
    store.close().await;
    end.begin();
    if !probes.is_finished() {
        probes.await.context("the admin port has panicked")??;
    }
    outcome
}
