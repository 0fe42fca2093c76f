//! What became of the load.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hdrhistogram::Histogram;

/// Longest latency that is recorded: an hour, in microseconds.
const LONGEST_US: u64 = 3_600_000_000;

/// How one request ended, for the transactions in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Outcome {
    Accepted,
    /// Answered with another HTTP status, or rejected in an answer of this one.
    Status(u16),
    /// No answer; true where time ran out.
    NoAnswer(bool),
}

struct Counts {
    sent: u64,
    ended: BTreeMap<Outcome, u64>,
    /// From the time due to the answer, in microseconds.
    latency: Histogram<u64>,
}

/// Counts of one run.
pub(crate) struct Tally(Mutex<Counts>);

impl Tally {
    pub(crate) fn new() -> anyhow::Result<Self> {
        Ok(Self(Mutex::new(Counts {
            sent: 0,
            ended: BTreeMap::new(),
            latency: Histogram::new_with_bounds(1, LONGEST_US, 3)?,
        })))
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn sent(&self, count: u64) {
        self.lock().sent += count;
    }

    pub(crate) fn ended(&self, count: u64, latency: Duration, outcome: Outcome) {
        if count == 0 {
            return;
        }
        let mut counts = self.lock();
        *counts.ended.entry(outcome).or_default() += count;
        let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        counts.latency.saturating_record_n(micros, count);
    }

    /// Whether everything that was sent was accepted.
    pub(crate) fn is_clean(&self) -> bool {
        let counts = self.lock();
        counts
            .ended
            .get(&Outcome::Accepted)
            .copied()
            .unwrap_or_default()
            == counts.sent
    }

    /// One line of progress.
    pub(crate) fn line(&self) -> String {
        let counts = self.lock();
        let ended: u64 = counts.ended.values().sum();
        format!(
            "sent {}, answered {ended}, p99 {:.1} ms",
            counts.sent,
            ms(&counts.latency, 0.99)
        )
    }

    /// All of it, for a run that has ended.
    pub(crate) fn report(&self, took: Duration) -> String {
        let counts = self.lock();
        let mut text = String::new();
        let seconds = took.as_secs_f64();
        // Writing to memory cannot fail.
        let _ = writeln!(
            text,
            "sent          {} in {seconds:.1} s, {:.0} a second",
            counts.sent,
            counts.sent as f64 / seconds
        );
        for (outcome, count) in &counts.ended {
            let name = match outcome {
                Outcome::Accepted => "accepted".to_owned(),
                Outcome::Status(status) => format!("HTTP {status}"),
                Outcome::NoAnswer(true) => "timed out".to_owned(),
                Outcome::NoAnswer(false) => "no answer".to_owned(),
            };
            let _ = writeln!(text, "{name:<13} {count}");
        }
        let lost = counts.sent - counts.ended.values().sum::<u64>().min(counts.sent);
        if lost > 0 {
            let _ = writeln!(text, "unanswered    {lost}");
        }
        let _ = writeln!(text, "latency from the time due, ms");
        for (name, quantile) in [
            ("p50", 0.5),
            ("p90", 0.9),
            ("p99", 0.99),
            ("p99.9", 0.999),
            ("max", 1.0),
        ] {
            let _ = writeln!(text, "  {name:<11} {:.2}", ms(&counts.latency, quantile));
        }
        text
    }
}

fn ms(histogram: &Histogram<u64>, quantile: f64) -> f64 {
    Duration::from_micros(histogram.value_at_quantile(quantile)).as_secs_f64() * 1e3
}
