//! What the benchmarks have in common: how fast a process works through a topic, and what it costs.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use serde::Serialize;

use crate::kafka::Watch;
use crate::wait;

const LIMIT: Duration = Duration::from_secs(300);
/// Linux counts a process's CPU time in hundredths of a second, whatever the kernel's own tick is.
const TICKS_PER_SECOND: f64 = 100.0;

/// What was measured of one process.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Figures {
    /// From the first record written to the last.
    pub records_per_second: f64,
    /// Until everything was committed.
    pub cpu_seconds_per_million: f64,
}

/// Flushes everything written so far to disk, so that the next measurement does not pay for it.
///
/// # Errors
/// Where it cannot be done.
pub fn flush_disks() -> anyhow::Result<()> {
    anyhow::ensure!(Command::new("sync").status()?.success(), "sync failed");
    Ok(())
}

/// Wall time from the first to the last record written; CPU time until everything is committed.
///
/// # Errors
/// Where it does not come to its end in time.
pub async fn measure(
    pid: u32,
    watch: &Watch,
    records: usize,
    lag: impl Fn() -> anyhow::Result<i64>,
) -> anyhow::Result<Figures> {
    let count = async || Ok(Some(watch.count()?).filter(|count| *count > 0));
    let already = wait::until(LIMIT, "the first record", count).await?;
    let begun = Instant::now();
    wait::until_count(LIMIT, "records written", records, async || watch.count()).await?;
    let seconds = begun.elapsed().as_secs_f64();
    wait::until(LIMIT, "everything committed", async || {
        Ok((lag()? == 0).then_some(()))
    })
    .await?;
    Ok(Figures {
        records_per_second: as_f64(records - already) / seconds,
        cpu_seconds_per_million: cpu_seconds(pid)? / as_f64(records) * 1e6,
    })
}

/// User and system time of a process so far (proc(5), fields 14 and 15 of `stat`).
fn cpu_seconds(pid: u32) -> anyhow::Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name in parentheses may hold blanks; field 3 comes after it.
    let (_, fields) = stat
        .rsplit_once(") ")
        .context("unexpected /proc/PID/stat")?;
    let ticks = fields
        .split(' ')
        .skip(11)
        .take(2)
        .map(str::parse::<f64>)
        .sum::<Result<f64, _>>()?;
    Ok(ticks / TICKS_PER_SECOND)
}

/// The middle one of some values.
///
/// # Errors
/// Where there is none.
pub fn median(values: impl Iterator<Item = f64>) -> anyhow::Result<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    let upper = *values.get(middle).context("no rounds")?;
    Ok(if values.len() % 2 == 1 {
        upper
    } else {
        f64::midpoint(values[middle - 1], upper)
    })
}

/// A count as a number to divide by.
#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
#[must_use]
pub const fn as_f64(count: usize) -> f64 {
    count as f64
}
