//! What became of the load.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hdrhistogram::Histogram;
use tollgate_service::terminal::printable;

/// Longest latency that is recorded: an hour, in microseconds.
const LONGEST_US: u64 = 3_600_000_000;
/// Longest reason that the report shows.
const MAX_REASON_CHARS: usize = 300;

/// How one request ended, for the transactions in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Outcome {
    Accepted,
    /// Answered with another HTTP status, or rejected in an answer of this one.
    Status(u16),
    /// There was no answer.
    Failed(Failure),
}

/// Why there was no answer, as far as counts tell failures apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Failure {
    TimedOut,
    Refused,
    Reset,
    Other,
}

impl Outcome {
    fn name(self) -> String {
        match self {
            Self::Accepted => "accepted".to_owned(),
            Self::Status(status @ (200 | 202)) => format!("rejected in answers {status}"),
            Self::Status(status) => format!("HTTP {status}"),
            Self::Failed(Failure::TimedOut) => "timed out".to_owned(),
            Self::Failed(Failure::Refused) => "connection refused".to_owned(),
            Self::Failed(Failure::Reset) => "connection closed without an answer".to_owned(),
            Self::Failed(Failure::Other) => "failed otherwise".to_owned(),
        }
    }
}

/// The transactions of one outcome.
#[derive(Default)]
struct Ended {
    count: u64,
    /// What the first of them got: the answer, or the error.
    first: Option<String>,
}

struct Counts {
    sent: u64,
    ended: BTreeMap<Outcome, Ended>,
    /// Of accepted transactions: from the time due to the answer, in microseconds. The time until a failure says nothing
    /// about how fast transactions are decided, and a refused connection would look like a fast answer.
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

    pub(crate) fn accepted(&self, count: u64, latency: Duration) {
        if count == 0 {
            return;
        }
        let mut counts = self.lock();
        counts.ended.entry(Outcome::Accepted).or_default().count += count;
        let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        counts.latency.saturating_record_n(micros, count);
    }

    /// Counts transactions that were not accepted. `reason` is called for the first of each outcome only.
    pub(crate) fn failed(&self, count: u64, outcome: Outcome, reason: impl FnOnce() -> String) {
        if count == 0 {
            return;
        }
        let mut counts = self.lock();
        let ended = counts.ended.entry(outcome).or_default();
        ended.count += count;
        if ended.first.is_none() {
            let text: String = reason().chars().take(MAX_REASON_CHARS).collect();
            ended.first = Some(printable(&text).into_owned());
        }
    }

    /// Whether everything that was sent was accepted.
    pub(crate) fn is_clean(&self) -> bool {
        let counts = self.lock();
        counts.accepted() == counts.sent
    }

    /// One line of progress.
    pub(crate) fn line(&self) -> String {
        let counts = self.lock();
        let accepted = counts.accepted();
        let failed = counts.ended() - accepted;
        let mut line = format!("sent {}, accepted {accepted}", counts.sent);
        // Writing to memory cannot fail.
        if failed > 0 {
            let _ = write!(line, ", failed {failed}");
        }
        if accepted > 0 {
            let _ = write!(line, ", p99 {:.1} ms", ms(&counts.latency, 0.99));
        }
        line
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
        for (outcome, ended) in &counts.ended {
            let _ = writeln!(text, "{:<13} {}", outcome.name(), ended.count);
            if let Some(first) = &ended.first {
                let _ = writeln!(text, "  the first:  {first}");
            }
        }
        let lost = counts.sent - counts.ended().min(counts.sent);
        if lost > 0 {
            let _ = writeln!(text, "unanswered    {lost}");
        }
        if counts.latency.is_empty() {
            let _ = writeln!(text, "latency       none: nothing was accepted");
            return text;
        }
        let _ = writeln!(text, "latency of the accepted, from the time due, ms");
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

impl Counts {
    fn accepted(&self) -> u64 {
        self.ended
            .get(&Outcome::Accepted)
            .map_or(0, |accepted| accepted.count)
    }

    fn ended(&self) -> u64 {
        self.ended.values().map(|ended| ended.count).sum()
    }
}

fn ms(histogram: &Histogram<u64>, quantile: f64) -> f64 {
    Duration::from_micros(histogram.value_at_quantile(quantile)).as_secs_f64() * 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_named_and_counted_and_is_no_latency() {
        let tally = Tally::new().unwrap();
        tally.sent(5);
        let refused = Outcome::Failed(Failure::Refused);
        tally.failed(2, refused, || "connect to 127.0.0.1:8080".to_owned());
        tally.failed(1, refused, || "never shown".to_owned());
        tally.failed(2, Outcome::Status(401), || "no key\u{1b}[2J".to_owned());
        let report = tally.report(Duration::from_secs(1));
        assert!(report.contains("connection refused 3\n"), "{report}");
        assert!(report.contains("connect to 127.0.0.1:8080"), "{report}");
        assert!(
            report.contains("HTTP 401      2\n  the first:  no key\\u{1b}"),
            "{report}"
        );
        assert!(report.contains("nothing was accepted"), "{report}");
        assert!(
            !report.contains("never") && !report.contains("p50"),
            "{report}"
        );
        assert!(!tally.is_clean() && !tally.line().contains("p99"));

        tally.sent(1);
        tally.accepted(1, Duration::from_millis(7));
        let report = tally.report(Duration::from_secs(1));
        assert!(report.contains("p50         7.0"), "{report}");
        assert!(
            tally.line().contains("accepted 1, failed 5, p99 7.0 ms"),
            "{}",
            tally.line()
        );
    }
}
