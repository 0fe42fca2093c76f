//! The fault suite, against the Kafka, PostgreSQL and Toxiproxy that `tests/faults` has started.

use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use tollgate_tests::faults::books::Imbalance;
use tollgate_tests::faults::{Options, run};

/// Kills, freezes, restarts and cuts off everything, as a seed says, then balances the books.
#[derive(Debug, Parser)]
struct Args {
    /// What goes wrong, and when. The same seed is the same schedule. Unless given, one of the clock's.
    #[arg(long)]
    seed: Option<u64>,
    /// How long things go wrong, at least.
    #[arg(long, default_value_t = 2.0)]
    minutes: f64,
    /// How many processes are killed, at least.
    #[arg(long, default_value_t = 0)]
    kills: usize,
    /// Where the services' logs are kept: a folder for each seed.
    #[arg(long, default_value = "target/faults")]
    logs: PathBuf,
}

fn clock() -> u64 {
    let since = std::time::SystemTime::UNIX_EPOCH.elapsed();
    since.map_or(0, |since| since.as_secs())
}

#[tokio::main]
#[expect(clippy::print_stdout, reason = "its output is what it is run for")]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let seed = args.seed.unwrap_or_else(clock);
    let options = Options {
        seed,
        lasts: Duration::try_from_secs_f64(args.minutes * 60.0)?,
        kills: args.kills,
        logs: args.logs.join(format!("seed-{seed}")),
    };
    println!("seed {seed}; logs in {}", options.logs.display());
    let outcome = run(&options).await;
    let outcome = outcome.map_err(|error| {
        let what = match error.is::<Imbalance>() {
            true => "books do not balance",
            false => "the run was not finished",
        };
        error.context(format!("{what}: seed={seed}"))
    })?;
    let totals = outcome.totals;
    println!("faults                    {:>8}", outcome.faults);
    println!("processes killed          {:>8}", outcome.kills);
    println!("decisions made again      {:>8}", totals.decided_again);
    println!("alerts delivered again    {:>8}", totals.repeated);
    println!(
        "books balance: accepted={} stored={} dead_lettered={} alerts={} kills={} seed={seed}",
        totals.accepted, totals.stored, totals.dead_lettered, totals.alerts, outcome.kills
    );
    Ok(())
}
