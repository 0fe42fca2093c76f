//! Sending the input over HTTP at its rate, in its order.
//!
//! Most of it goes in NDJSON requests; one transaction of each is sent with `Prefer: wait`, which measures the latency.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use hdrhistogram::Histogram;
use serde::Deserialize;
use tollgate_service::Shutdown;

use super::{Api, Progress};

/// Requests a second, where a rate is set.
const TICKS_PER_SECOND: usize = 20;
/// Transactions in a request where no rate is set.
const UNLIMITED: usize = 1_000;

/// Longest latency that is recorded: an hour, in microseconds.
const LONGEST_US: u64 = 3_600_000_000;

/// What came of it.
pub(crate) struct Replay {
    pub(crate) started: Instant,
    pub(crate) accepted: u64,
    pub(crate) rejected: u64,
    /// From the request to the decision in the answer, in microseconds.
    pub(crate) latency: Histogram<u64>,
}

#[derive(Deserialize)]
struct Accepted {
    accepted: u64,
    rejected: u64,
}

impl Replay {
    pub(crate) async fn run(
        api: &Api,
        lines: &[String],
        rate: u32,
        progress: &Progress,
        shutdown: &Shutdown,
    ) -> anyhow::Result<Self> {
        let mut replay = Self {
            started: Instant::now(),
            accepted: 0,
            rejected: 0,
            latency: Histogram::new_with_bounds(1, LONGEST_US, 3)?,
        };
        let size = match rate {
            0 => UNLIMITED,
            rate => usize::try_from(rate)?.div_ceil(TICKS_PER_SECOND),
        };
        let mut sent = 0_usize;
        for chunk in lines.chunks(size.max(1)) {
            if shutdown.is_begun() {
                break;
            }
            if rate > 0 {
                let due = replay.started + Duration::from_secs_f64(sent as f64 / f64::from(rate));
                tokio::time::sleep_until(due.into()).await;
            }
            sent += chunk.len();
            let (probe, rest) = chunk.split_at(1);
            replay.probe(api, &probe[0]).await?;
            replay.send(api, rest).await?;
            progress.decided(api.decided().await?);
        }
        Ok(replay)
    }

    /// One transaction, with `Prefer: wait`.
    async fn probe(&mut self, api: &Api, line: &str) -> anyhow::Result<()> {
        let begun = Instant::now();
        let request = api
            .client
            .post(&api.transactions)
            .header("content-type", "application/json")
            .header("prefer", "wait=10");
        let answer = request
            .body(line.to_owned())
            .send()
            .await
            .context("ingest does not answer")?;
        match answer.status().as_u16() {
            200 => {
                self.accepted += 1;
                self.latency.saturating_record(
                    u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX),
                );
            }
            202 => self.accepted += 1,
            400 | 422 => self.rejected += 1,
            status => anyhow::bail!(
                "ingest answered {status}: {}",
                answer.text().await.unwrap_or_default()
            ),
        }
        Ok(())
    }

    async fn send(&mut self, api: &Api, lines: &[String]) -> anyhow::Result<()> {
        if lines.is_empty() {
            return Ok(());
        }
        let body = lines.join("\n");
        loop {
            let request = api
                .client
                .post(&api.transactions)
                .header("content-type", "application/x-ndjson");
            let answer = request
                .body(body.clone())
                .send()
                .await
                .context("ingest does not answer")?;
            match answer.status().as_u16() {
                202 => {
                    let counts: Accepted = serde_json::from_slice(&answer.bytes().await?)?;
                    self.accepted += counts.accepted;
                    self.rejected += counts.rejected;
                    return Ok(());
                }
                422 => {
                    self.rejected += lines.len() as u64;
                    return Ok(());
                }
                // The log is full for the moment; the same transactions may be sent again.
                429 | 503 => tokio::time::sleep(Duration::from_millis(200)).await,
                status => anyhow::bail!(
                    "ingest answered {status}: {}",
                    answer.text().await.unwrap_or_default()
                ),
            }
        }
    }
}
