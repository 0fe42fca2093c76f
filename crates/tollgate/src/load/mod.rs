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
        announce(&args, &format!("the brokers {brokers}"));
        return drive(&args, source, &target, &shutdown).await;
    }
    let (url, which) = match args.url.clone() {
        Some(url) => (url, ""),
        None => (here(args.yes)?, ", the `tollgate up` of this directory"),
    };
    let target = url::UrlTarget::new(&url, &args)?;
    target.probe().await?;
    announce(&args, &format!("{url}{which}"));
    drive(&args, source, &target, &shutdown).await
}

/// URL of the `up` that runs in this directory. Made-up transactions cannot be taken back: they are stored, count in
/// histories, and cause alerts. So a target that nobody named must be one for trials, unless `--yes` is given.
fn here(yes: bool) -> anyhow::Result<String> {
    let up = RunningUp::find(Path::new(DATA))?
        .context("--url or --brokers: no `tollgate up` runs in this directory")?;
    anyhow::ensure!(
        up.local || yes,
        "the `tollgate up` of this directory ({}) is reached from other machines, stores in PostgreSQL, or delivers alerts \
         to others; load would write made-up transactions into it. Name it with --url, or add --yes, if that is meant",
        up.ingest
    );
    Ok(up.ingest)
}

/// Says what will be done, before it is done.
#[expect(clippy::print_stderr, reason = "this is the command's output")]
fn announce(args: &LoadArgs, target: &str) {
    let what = match &args.input {
        Some(path) => format!("the transactions of {}", path.display()),
        None => format!(
            "made-up transactions of {} users ({} % of them as fraud)",
            args.users, args.fraud
        ),
    };
    eprintln!(
        "sending {what} to {target}: {} a second for {} s; they are decided, stored and alerted like any other; \
         Ctrl-C ends it",
        args.rate,
        args.duration.as_secs_f64()
    );
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
