//! The fault suite, against the Kafka, PostgreSQL and Toxiproxy that `tests/faults` has started.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args as ClapArgs;
use tollgate_tests::faults::books::Imbalance;
use tollgate_tests::faults::{self, Options};

#[derive(Debug, ClapArgs)]
pub(crate) struct Args {
    /// Seed of the schedule of faults: the same seed gives the same schedule. By default it comes from the clock.
    #[arg(long)]
    seed: Option<u64>,
    /// Shortest duration of the faults, in minutes.
    #[arg(long, default_value_t = 2.0)]
    minutes: f64,
    /// Least number of processes that are killed.
    #[arg(long, default_value_t = 0)]
    kills: usize,
    /// Folder of the services' logs; each seed has a folder in it.
    #[arg(long, default_value = "target/faults")]
    logs: PathBuf,
}

fn clock() -> u64 {
    let since = std::time::SystemTime::UNIX_EPOCH.elapsed();
    since.map_or(0, |since| since.as_secs())
}

#[expect(clippy::print_stdout, reason = "this is the command's output")]
pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let seed = args.seed.unwrap_or_else(clock);
    let options = Options {
        seed,
        lasts: Duration::try_from_secs_f64(args.minutes * 60.0)?,
        kills: args.kills,
        logs: args.logs.join(format!("seed-{seed}")),
    };
    println!("seed {seed}; logs in {}", options.logs.display());
    let outcome = faults::run(&options).await;
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
