//! Load over HTTP.

use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use serde::Deserialize;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

use super::Target;
use super::report::{Failure, Outcome, Tally};
use crate::commands::LoadArgs;

/// Requests under way at once; beyond it the sender waits, and the wait counts as latency.
const MAX_IN_FLIGHT: usize = 4_096;
/// How long the first connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

pub(crate) struct UrlTarget {
    client: reqwest::Client,
    url: String,
    api_key: Option<String>,
    prefer: Option<String>,
    in_flight: Arc<Semaphore>,
    tasks: TaskTracker,
}

impl UrlTarget {
    pub(crate) fn new(url: &str, args: &LoadArgs) -> anyhow::Result<Self> {
        let base: reqwest::Url = url.parse().with_context(|| format!("--url {url}"))?;
        let url = base
            .join("/v1/transactions")
            .with_context(|| format!("--url {url}"))?;
        Ok(Self {
            client: reqwest::Client::builder()
                .no_proxy()
                .timeout(Duration::from_secs(60))
                .build()?,
            url: url.into(),
            api_key: args.api_key.clone(),
            prefer: args.wait.map(|seconds| format!("wait={seconds}")),
            in_flight: Arc::new(Semaphore::new(MAX_IN_FLIGHT)),
            tasks: TaskTracker::new(),
        })
    }

    /// Makes a connection and closes it, so that a wrong address is one error and not one for each transaction.
    ///
    /// # Errors
    /// Says why there is none.
    pub(crate) async fn probe(&self) -> anyhow::Result<()> {
        let url: reqwest::Url = self.url.parse()?;
        let host = url.host_str().context("the URL has no host")?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let port = url.port_or_known_default().unwrap_or(80);
        let connecting = TcpStream::connect((host, port));
        let connected = tokio::time::timeout(CONNECT_TIMEOUT, connecting).await;
        connected
            .unwrap_or_else(|_| Err(ErrorKind::TimedOut.into()))
            .with_context(|| format!("cannot connect to {}", self.url))?;
        Ok(())
    }
}

#[derive(Deserialize)]
struct Answer {
    accepted: Option<u64>,
    rejected: Option<u64>,
}

impl Target for UrlTarget {
    async fn send(
        &self,
        batch: Vec<String>,
        due: Instant,
        tally: &Arc<Tally>,
    ) -> anyhow::Result<()> {
        let permit = Arc::clone(&self.in_flight).acquire_owned().await?;
        let count = batch.len() as u64;
        let (content_type, body) = match batch.as_slice() {
            [one] => ("application/json", one.clone()),
            many => ("application/x-ndjson", many.join("\n")),
        };
        let mut request = self
            .client
            .post(&self.url)
            .header("content-type", content_type)
            .body(body);
        if let Some(key) = &self.api_key {
            request = request.bearer_auth(key);
        }
        if let Some(prefer) = &self.prefer {
            request = request.header("prefer", prefer);
        }
        let tally = Arc::clone(tally);
        self.tasks.spawn(async move {
            let answer = request.send().await;
            let latency = due.elapsed();
            match answer {
                Err(error) => {
                    let outcome = Outcome::Failed(failure(&error));
                    tally.failed(count, outcome, || text_of(error));
                }
                Ok(answer) => {
                    let status = answer.status().as_u16();
                    // 200 answers with decisions, and counts only what it had to reject.
                    let body = answer.bytes().await.unwrap_or_default();
                    let counts = serde_json::from_slice(&body).unwrap_or(Answer {
                        accepted: None,
                        rejected: None,
                    });
                    let accepted = match status {
                        200 | 202 => counts
                            .accepted
                            .unwrap_or(count - counts.rejected.unwrap_or(0).min(count)),
                        _ => 0,
                    };
                    tally.accepted(accepted, latency);
                    let failed = count - accepted.min(count);
                    tally.failed(failed, Outcome::Status(status), || {
                        String::from_utf8_lossy(&body).into_owned()
                    });
                }
            }
            drop(permit);
        });
        Ok(())
    }

    async fn finish(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }
}

/// What kind of failure it is: the innermost error of the operating system says it.
fn failure(error: &reqwest::Error) -> Failure {
    if error.is_timeout() {
        return Failure::TimedOut;
    }
    let mut cause: Option<&dyn std::error::Error> = Some(error);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            match error.kind() {
                ErrorKind::ConnectionRefused => return Failure::Refused,
                ErrorKind::ConnectionReset
                | ErrorKind::ConnectionAborted
                | ErrorKind::BrokenPipe
                | ErrorKind::UnexpectedEof => return Failure::Reset,
                _ => {}
            }
        }
        cause = error.source();
    }
    // The server closed the connection before it answered.
    if error.is_request() && !error.is_connect() {
        return Failure::Reset;
    }
    Failure::Other
}

/// The innermost cause, which says what happened; the URL is in the first line of the output.
fn text_of(error: reqwest::Error) -> String {
    let error = anyhow::Error::new(error.without_url());
    error.root_cause().to_string()
}
