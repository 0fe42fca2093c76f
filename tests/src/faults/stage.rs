//! Where a run takes place: the deployment behind the proxy, the broker and the database under its hand.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::Context as _;

use super::proxy::Proxy;
use super::receiver::Receiver;
use super::schedule::Remote;
use crate::deployment::Deployment;
use crate::variable;

const PARTITIONS: u16 = 6;

/// What a run needs beside the services.
pub(super) struct Stage {
    pub(super) deployment: Deployment,
    pub(super) proxy: Proxy,
    pub(super) receiver: Receiver,
    pub(super) kafka: Server,
    pub(super) postgres: Server,
}

impl Stage {
    pub(super) async fn set(begun: Instant) -> anyhow::Result<Self> {
        let receiver = Receiver::start(begun).await?;
        let proxy = Proxy::connect(variable("TEST_TOXIPROXY")?).await?;
        // The broker advertises this address to its clients, so it cannot be chosen.
        let listen = variable("TEST_KAFKA_PROXIED")?;
        let kafka = proxy
            .add(
                Remote::Kafka,
                &listen,
                &variable("TEST_KAFKA_BEHIND_PROXY")?,
            )
            .await?;
        let mut deployment = Deployment::create("faults", PARTITIONS).await?;
        let url = deployment.store.url().to_owned();
        let (scheme, rest) = url
            .split_once("://")
            .context("TEST_POSTGRES_URL has no scheme")?;
        let (user, rest) = rest
            .split_once('@')
            .context("TEST_POSTGRES_URL names no user")?;
        let (server, database) = rest
            .split_once('/')
            .context("TEST_POSTGRES_URL names no database")?;
        let postgres = proxy.add(Remote::Postgres, "127.0.0.1:0", server).await?;
        let store = format!("{scheme}://{user}@{postgres}/{database}");
        let sink = proxy
            .add(Remote::Sink, "127.0.0.1:0", &receiver.address)
            .await?;
        let sinks = serde_json::json!([{
            "kind": "webhook",
            "url": format!("http://{sink}/"),
            "secret": "whsec_dGhlIGZhdWx0IHN1aXRlIG9mIHRvbGxnYXRl",
            "timeout_ms": 3_000,
            "concurrency": super::run::CONCURRENCY,
        }]);
        let snapshots = format!("file://{}/snapshots", deployment.dir().display());
        for (name, value) in [
            ("KAFKA__BROKERS", kafka),
            ("PERSISTENCE__DATABASE_URL", store.clone()),
            ("PERSISTENCE__WRITE_TIMEOUT_MS", "5000".to_owned()),
            ("NOTIFIER__DELIVERY_LOG_URL", store),
            ("NOTIFIER__SINKS", sinks.to_string()),
            ("NOTIFIER__RETRY__CAP_MS", "2000".to_owned()),
            ("SCORER__SNAPSHOTS", snapshots),
            ("SCORER__SNAPSHOT_INTERVAL_SECONDS", "2".to_owned()),
        ] {
            deployment.set(name, value);
        }
        Ok(Self {
            deployment,
            proxy,
            receiver,
            kafka: Server::new("TEST_KAFKA_CONTROL", "TEST_KAFKA_BROKERS")?,
            postgres: Server {
                control: PathBuf::from(variable("TEST_POSTGRES_CONTROL")?),
                address: server.to_owned(),
            },
        })
    }
}

/// A server that can be killed and started: a program with one argument, `kill` or `start`.
#[derive(Debug)]
pub(super) struct Server {
    control: PathBuf,
    address: String,
}

impl Server {
    fn new(control: &str, address: &str) -> anyhow::Result<Self> {
        Ok(Self {
            control: PathBuf::from(variable(control)?),
            address: variable(address)?,
        })
    }

    /// Does it.
    pub(super) async fn control(&self, what: &str) -> anyhow::Result<()> {
        let mut command = Command::new(&self.control);
        command.arg(what).stdin(Stdio::null()).stdout(Stdio::null());
        let status = tokio::task::spawn_blocking(move || command.status()).await??;
        anyhow::ensure!(
            status.success(),
            "{} {what}: {status}",
            self.control.display()
        );
        Ok(())
    }

    /// Whether it takes connections.
    pub(super) async fn answers(&self) -> bool {
        tokio::net::TcpStream::connect(&self.address).await.is_ok()
    }
}
