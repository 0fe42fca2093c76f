//! The handle of a running service.

use std::net::SocketAddr;

use anyhow::Context as _;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::health::Health;

/// A service that runs.
#[derive(Debug)]
pub struct RunningService {
    /// The name of the service.
    pub name: &'static str,
    /// Where its API is served, if it has one.
    pub address: Option<SocketAddr>,
    /// `https` or `http`, at that address.
    pub scheme: &'static str,
    /// Where probes and scrapes are answered.
    pub admin_address: SocketAddr,
    /// `https` or `http`, at that address.
    pub admin_scheme: &'static str,
    /// Whether it is ready, and if not, why.
    pub health: Health,
    pub(super) ended: CancellationToken,
    pub(super) task: JoinHandle<anyhow::Result<()>>,
}

impl RunningService {
    /// The URL of its API, if it has one.
    #[must_use]
    pub fn url(&self) -> Option<String> {
        let address = self.address?;
        Some(format!("{}://{address}", self.scheme))
    }

    /// The URL of its admin port.
    #[must_use]
    pub fn admin_url(&self) -> String {
        format!("{}://{}", self.admin_scheme, self.admin_address)
    }

    /// Whether it has ended. Before the shutdown that means an error.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.ended.is_cancelled()
    }

    /// Waits until it is ready. False: it ended before that.
    pub async fn ready(&self) -> bool {
        tokio::select! {
            () = self.health.until_ready() => true,
            () = self.ended.cancelled() => false,
        }
    }

    /// Waits until it has ended: after the shutdown, or by an error.
    ///
    /// # Errors
    /// The first error of its parts.
    pub async fn join(self) -> anyhow::Result<()> {
        self.task
            .await
            .with_context(|| format!("{} has panicked", self.name))?
    }

    /// Prints the admin address on standard output, the address of the API once the service is ready, and waits until it
    /// has ended.
    ///
    /// # Errors
    /// The first error of its parts.
    #[expect(
        clippy::print_stdout,
        reason = "the caller of the process reads the addresses here"
    )]
    pub async fn announce_and_join(self) -> anyhow::Result<()> {
        // Before the service is ready: the admin port reports what it waits for.
        println!("{} admin: {}", self.name, self.admin_url());
        if let Some(url) = self.url()
            && self.ready().await
        {
            println!("{}: {url}", self.name);
        }
        self.join().await
    }
}
