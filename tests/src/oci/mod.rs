//! A stand-in for Oracle Cloud on loopback: Notifications, Monitoring, workload identity of a Kubernetes cluster, and
//! instance principals, as far as a client sees them.
//!
//! It is strict where Oracle is strict: a request whose signature, clock, size or names Oracle would refuse is refused
//! here, and the refusal names the check that failed. Where Oracle's behaviour is not documented, a comment notes it next to
//! what was chosen. No request is sent to Oracle itself.

mod answer;
mod call;
pub(crate) mod certificates;
mod clock;
mod confirmation;
mod control;
mod core;
mod faults;
mod federation;
mod instance;
mod keys;
mod metric;
mod monitoring;
mod notifications;
mod page;
mod requests;
mod serve;
mod service;
mod signature;
mod store;
mod tls;
mod tokens;
mod users;
mod witness;
mod workload;

#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context as _;
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, spawn_blocking};

pub use faults::Faults;
pub use metric::{Datapoint, StoredMetric};
pub use notifications::Message;
pub use requests::Received;
pub use service::Service;
pub use users::{UserKey, make_user};

use self::core::Core;
use self::tls::Tls;

/// Users, topics and limits of a stand-in, and where it listens.
#[derive(Debug, Clone)]
pub struct Config {
    /// Users that may sign requests.
    pub users: Vec<UserKey>,
    /// What pods have to show for a session token. Where it is empty, no pod gets one.
    pub service_account_token: String,
    /// How long session tokens last.
    pub token_seconds: u64,
    /// OCIDs of the topics there are. Where there are none, there is every topic.
    pub topics: Vec<String>,
    /// Messages that a topic takes within any minute.
    pub notifications_per_minute: u32,
    /// OCID of the tenancy that the instance and the pods are in.
    pub tenancy: String,
    /// Region in the instance's metadata. In the oldest regions that is a short name, such as `phx`.
    pub region: String,
    /// Where it listens for HTTP.
    pub listen: SocketAddr,
    /// Where it listens for HTTPS.
    pub tls_listen: SocketAddr,
    /// Names and addresses that the certificate is good for, besides those of loopback.
    pub tls_names: Vec<String>,
}

impl Default for Config {
    fn default() -> Self {
        let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
        Self {
            users: Vec::new(),
            service_account_token: String::new(),
            token_seconds: 1200,
            topics: Vec::new(),
            notifications_per_minute: 60,
            tenancy: "ocid1.tenancy.oc1..standin".to_owned(),
            region: "us-ashburn-1".to_owned(),
            listen: loopback,
            tls_listen: loopback,
            tls_names: Vec::new(),
        }
    }
}

/// A running stand-in. It stops when it is dropped.
#[derive(Debug)]
pub struct StandIn {
    core: Arc<Core>,
    endpoint: String,
    tls_endpoint: String,
    ca_pem: String,
    listeners: [JoinHandle<()>; 2],
}

impl StandIn {
    /// Listens, with the users, topics and limits of `config`.
    ///
    /// # Errors
    /// Where an address cannot be listened on, or a key of a user is not what its id says.
    pub async fn start(config: Config) -> anyhow::Result<Self> {
        let (plain, tls_plain) = (bind(config.listen).await?, bind(config.tls_listen).await?);
        // Keys take a while to make.
        let (core, tls) = spawn_blocking(move || {
            let tls = Tls::new(&config.tls_names)?;
            Ok::<_, anyhow::Error>((Arc::new(Core::new(config)?), tls))
        })
        .await??;
        let endpoint = format!("http://{}", plain.local_addr()?);
        let tls_endpoint = format!("https://{}", tls_plain.local_addr()?);
        let listeners = [
            tokio::spawn(serve::serve(plain, core::router(&core, false), None)),
            tokio::spawn(serve::serve(
                tls_plain,
                core::router(&core, true),
                Some(tls.acceptor),
            )),
        ];
        Ok(Self {
            core,
            endpoint,
            tls_endpoint,
            ca_pem: tls.ca_pem,
            listeners,
        })
    }

    /// `http://` and where it listens. All services but workload identity.
    #[must_use]
    pub fn endpoint(&self) -> String {
        self.endpoint.clone()
    }

    /// `https://` and where it listens. All services.
    #[must_use]
    pub fn tls_endpoint(&self) -> String {
        self.tls_endpoint.clone()
    }

    /// Certificate of the authority that a client of [`Self::tls_endpoint`] has to trust.
    #[must_use]
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// Plans of what goes wrong.
    #[must_use]
    pub fn faults(&self) -> &Faults {
        &self.core.faults
    }

    /// What pods have to show from here on.
    pub fn set_service_account_token(&self, token: &str) {
        self.core.workload.set_token(token);
    }

    /// Refuses all session tokens issued so far, with 401.
    pub fn revoke_tokens(&self) {
        self.core.tokens.revoke();
    }

    /// Gives the instance another certificate and key; the one before is refused from here on.
    ///
    /// # Errors
    /// Where OpenSSL makes none.
    pub fn rotate_instance(&self) -> anyhow::Result<()> {
        self.core.instance.rotate()
    }

    /// Moves its clock ahead of the machine's, further each time; back where `seconds` is negative. Session tokens
    /// expire and limits pass by this clock, and signatures are dated by it.
    pub fn shift_clock(&self, seconds: i64) {
        self.core.clock.shift(seconds);
    }

    /// The latest 10,000 requests, those for one service among them, in the order they came.
    #[must_use]
    pub fn received(&self, service: Service) -> Vec<Received> {
        self.core.requests.all(Some(service))
    }

    /// The latest 10,000 messages that were accepted, oldest first.
    #[must_use]
    pub fn messages(&self) -> Vec<Message> {
        self.core.notifications.messages()
    }

    /// The latest 10,000 metrics that were accepted, oldest first.
    #[must_use]
    pub fn metrics(&self) -> Vec<StoredMetric> {
        self.core.monitoring.metrics()
    }

    /// How many session tokens were issued, to pods and instances.
    #[must_use]
    pub fn tokens_issued(&self) -> usize {
        self.core.tokens.count()
    }

    /// The address that confirms the HTTPS subscription of this id, as Notifications would send it. The same path is
    /// good at [`Self::tls_endpoint`].
    #[must_use]
    pub fn confirmation_url(&self, id: &str) -> String {
        format!("{}{}", self.endpoint, self.core.confirmations.path(id))
    }

    /// Whether it was opened.
    #[must_use]
    pub fn confirmed(&self, id: &str) -> bool {
        self.core.confirmations.confirmed(id)
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        for listener in &self.listeners {
            listener.abort();
        }
    }
}

async fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    let listener = TcpListener::bind(address).await;
    listener.with_context(|| format!("nothing can listen on {address}"))
}
