//! `tollgate load`: open-loop load on a running pipeline.
//!
//! Each transaction has a time at which it is due, whether or not earlier ones were answered, and its latency is counted
//! from then. A stall therefore counts for every transaction that it delayed (no coordinated omission).

mod generate;
mod kafka;
mod report;
mod url;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tollgate_service::Shutdown;

use crate::commands::{DATA, LoadArgs};
use crate::running::RunningUp;
use generate::Source;
use report::Tally;

/// Sends and counts.
pub(crate) trait Target {
    /// Sends these transactions, which were due at `due`; the tally gets their outcome later.
    fn send(
        &self,
        batch: Vec<String>,
        due: Instant,
        tally: &Arc<Tally>,
    ) -> impl Future<Output = anyhow::Result<()>> + Send;
    /// Waits until everything sent is answered.
    fn finish(&self) -> impl Future<Output = ()> + Send;
}

pub(crate) async fn run(args: LoadArgs) -> anyhow::Result<()> {
    anyhow::ensure!(
        args.rate > 0 && args.batch > 0,
        "--rate and --batch must be at least 1"
    );
    let shutdown = Shutdown::on_signal();
    let source = Source::new(&args)?;
    if let Some(brokers) = &args.brokers {
        let target = kafka::KafkaTarget::new(brokers, &args.topic_prefix).await?;
        return drive(&args, source, &target, &shutdown).await;
    }
    let url = match args.url.clone() {
        Some(url) => url,
        None => {
            RunningUp::find(Path::new(DATA))?
                .context("--url or --brokers: no `tollgate up` runs in this directory")?
                .ingest
        }
    };
    drive(&args, source, &url::UrlTarget::new(&url, &args)?, &shutdown).await
}

#[expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "this is the command's output"
)]
async fn drive(
    args: &LoadArgs,
    mut source: Source,
    target: &impl Target,
    shutdown: &Shutdown,
) -> anyhow::Result<()> {
    let tally = Arc::new(Tally::new()?);
    let begun = Instant::now();
    let (batch, rate) = (u64::from(args.batch), f64::from(args.rate));
    let mut sent = 0_u64;
    let mut next_line = begun + Duration::from_secs(5);
    while begun.elapsed() < args.duration && !shutdown.is_begun() {
        let due = begun + Duration::from_secs_f64(sent as f64 / rate);
        if due >= begun + args.duration {
            break;
        }
        tokio::time::sleep_until(due.into()).await;
        let transactions: Vec<String> = (0..batch).map_while(|_| source.next()).collect();
        if transactions.is_empty() {
            eprintln!(
                "the input has ended after {:.1} s",
                begun.elapsed().as_secs_f64()
            );
            break;
        }
        sent += transactions.len() as u64;
        tally.sent(transactions.len() as u64);
        target.send(transactions, due, &tally).await?;
        if Instant::now() >= next_line {
            next_line += Duration::from_secs(5);
            eprintln!("{:5.0} s  {}", begun.elapsed().as_secs_f64(), tally.line());
        }
    }
    target.finish().await;
    print!("{}", tally.report(begun.elapsed()));
    anyhow::ensure!(tally.is_clean(), "not every transaction was accepted");
    Ok(())
}
