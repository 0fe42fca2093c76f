//! The stand-in for Oracle Cloud as a program, for docker compose and for clients in other languages.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use anyhow::Context as _;
use clap::Args as ClapArgs;
use tokio::signal::unix::{SignalKind, signal};
use tollgate_tests::oci::{Config, StandIn, UserKey};

#[derive(Debug, ClapArgs)]
pub(crate) struct Args {
    /// Where to listen for HTTP.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Where to listen for HTTPS.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:0")]
    tls_listen: SocketAddr,
    /// A name or address that the certificate is good for, besides those of loopback.
    #[arg(long, value_name = "NAME")]
    tls_name: Vec<String>,
    /// Where to write the certificate that clients have to trust.
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// A user that may sign requests: TENANCY/USER/FINGERPRINT=PUBLIC_KEY_FILE.
    #[arg(long, value_name = "KEYID=FILE")]
    user: Vec<User>,
    /// What pods have to show for a session token.
    #[arg(long, value_name = "TOKEN", default_value = "")]
    service_account_token: String,
    /// How long session tokens last.
    #[arg(long, value_name = "SECONDS", default_value_t = Config::default().token_seconds)]
    token_seconds: u64,
    /// OCID of a topic. Unless given, there is every topic.
    #[arg(long, value_name = "OCID")]
    topic: Vec<String>,
    /// Messages that a topic takes within any minute.
    #[arg(long, value_name = "N", default_value_t = Config::default().notifications_per_minute)]
    notifications_per_minute: u32,
    /// OCID of the tenancy that the instance and the pods are in.
    #[arg(long, value_name = "OCID", default_value_t = Config::default().tenancy)]
    tenancy: String,
    /// Region in the instance's metadata.
    #[arg(long, default_value_t = Config::default().region)]
    region: String,
}

#[derive(Debug, Clone)]
struct User {
    key_id: String,
    public_key: PathBuf,
}

impl FromStr for User {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (key_id, file) = text.split_once('=').ok_or("no `=`")?;
        Ok(Self {
            key_id: key_id.to_owned(),
            public_key: file.into(),
        })
    }
}

#[expect(
    clippy::print_stdout,
    reason = "the process that started it reads its addresses there"
)]
pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let users = args.user.into_iter().map(|user| {
        let pem = std::fs::read_to_string(&user.public_key);
        Ok(UserKey {
            public_key_pem: pem.with_context(|| user.public_key.display().to_string())?,
            key_id: user.key_id,
        })
    });
    let config = Config {
        users: users.collect::<anyhow::Result<_>>()?,
        service_account_token: args.service_account_token,
        token_seconds: args.token_seconds,
        topics: args.topic,
        notifications_per_minute: args.notifications_per_minute,
        tenancy: args.tenancy,
        region: args.region,
        listen: args.listen,
        tls_listen: args.tls_listen,
        tls_names: args.tls_name,
    };
    let mut terminate = signal(SignalKind::terminate())?;
    let stand_in = StandIn::start(config).await?;
    if let Some(file) = args.ca_file {
        let written = std::fs::write(&file, stand_in.ca_pem());
        written.with_context(|| file.display().to_string())?;
    }
    // After the file, so that a process that has read the addresses can read it.
    println!("oci stand-in: {}", stand_in.endpoint());
    println!("oci stand-in tls: {}", stand_in.tls_endpoint());
    tokio::select! {
        _ = terminate.recv() => {}
        interrupted = tokio::signal::ctrl_c() => interrupted?,
    }
    Ok(())
}
