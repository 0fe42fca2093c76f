//! Load over HTTP.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use serde::Deserialize;
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

use super::Target;
use super::report::{Outcome, Tally};
use crate::commands::LoadArgs;

/// Requests under way at once; beyond it the sender waits, and the wait counts as latency.
const MAX_IN_FLIGHT: usize = 4_096;

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
                Err(error) => tally.ended(count, latency, Outcome::NoAnswer(error.is_timeout())),
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
                    tally.ended(accepted, latency, Outcome::Accepted);
                    tally.ended(
                        count - accepted.min(count),
                        latency,
                        Outcome::Status(status),
                    );
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
