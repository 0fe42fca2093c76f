//! The summary of the demo.

use std::collections::HashSet;
use std::fmt;
use std::path::Path;
use std::time::Duration;

use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{Cell, CellAlignment, ContentArrangement, Table};
use tollgate_engine::StatusThresholds;
use tollgate_service::terminal::printable;
use tollgate_types::{Contribution, Decision, Indicator, Transaction};

use super::ByStatus;
use super::replay::Replay;

/// How many of the latest alerts are shown.
const LATEST: usize = 12;

/// The latest alerts, with their reasons.
pub(crate) fn alerts(lines: &[String]) -> String {
    let mut table = Table::new();
    table
        .load_style(UTF8_FULL_CONDENSED)
        .set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(["status", "score", "user", "amount", "event time", "why"]);
    for decision in lines
        .iter()
        .rev()
        .take(LATEST)
        .filter_map(|line| Decision::parse(line.as_bytes()).ok())
    {
        let transaction = Transaction::parse(decision.transaction.get().as_bytes()).ok();
        let amount = transaction
            .as_ref()
            .map(|transaction| transaction.amount.to_string())
            .unwrap_or_default();
        let time = transaction
            .map(|transaction| transaction.timestamp.to_string())
            .unwrap_or_default();
        let why: Vec<String> = decision.contributions.iter().map(reason).collect();
        table.add_row([
            Cell::new(decision.status),
            Cell::new(format!("{:.1}", decision.fraud_score)).set_alignment(CellAlignment::Right),
            Cell::new(printable(&decision.user_id)),
            Cell::new(amount).set_alignment(CellAlignment::Right),
            Cell::new(time),
            Cell::new(printable(&why.join("; "))),
        ]);
    }
    format!(
        "The latest {} of {} alerts:\n\n{table}\n\n",
        lines.len().min(LATEST),
        lines.len()
    )
}

fn reason(contribution: &Contribution) -> String {
    let points = contribution.points;
    let of = |value: Option<f64>| value.unwrap_or_default();
    match contribution.indicator {
        Indicator::HIGH_VELOCITY => format!(
            "{} transactions in 5 min (+{points:.0})",
            contribution.count.unwrap_or_default()
        ),
        Indicator::HIGH_AMOUNT => format!("high amount (+{points:.1})"),
        Indicator::GEOGRAPHIC_ANOMALY => {
            format!(
                "{:.0} km at {:.0} km/h (+{points:.0})",
                of(contribution.distance_km),
                of(contribution.speed_kmh)
            )
        }
        Indicator::SUSPICIOUS_PATTERN => match contribution.count {
            Some(count) => format!("same amount {count} times (+{points:.0})"),
            None => format!("round amount (+{points:.0})"),
        },
        other => format!("{other} (+{points:.1})"),
    }
}

/// How many of the labelled frauds raised an alert.
pub(crate) struct Caught {
    frauds: usize,
    caught: usize,
    innocent: usize,
}

impl Caught {
    pub(crate) fn of(frauds: &[&str], alerts: &[String]) -> Self {
        let frauds: HashSet<&str> = frauds.iter().copied().collect();
        let mut alerted = HashSet::new();
        for decision in alerts
            .iter()
            .filter_map(|line| Decision::parse(line.as_bytes()).ok())
        {
            if !decision.transaction_id.starts_with("scene-") {
                alerted.insert(decision.transaction_id.into_owned());
            }
        }
        let caught = alerted
            .iter()
            .filter(|id| frauds.contains(id.as_str()))
            .count();
        Self {
            frauds: frauds.len(),
            caught,
            innocent: alerted.len() - caught,
        }
    }
}

/// The numbers that the summary is made of.
pub(crate) struct Summary<'a> {
    pub(crate) replay: &'a Replay,
    pub(crate) decided: ByStatus,
    /// From the first request to the last alert.
    pub(crate) took: Duration,
    pub(crate) caught: &'a Caught,
    /// From which score on a transaction is reviewed or blocked.
    pub(crate) thresholds: &'a StatusThresholds,
}

impl fmt::Display for Summary<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            replay,
            decided,
            took,
            caught,
            thresholds: StatusThresholds { review, blocked },
        } = self;
        let seconds = took.as_secs_f64();
        let ms = |quantile: f64| {
            Duration::from_micros(replay.latency.value_at_quantile(quantile)).as_secs_f64() * 1e3
        };
        writeln!(f, "Summary")?;
        writeln!(
            f,
            "  transactions  {} accepted, {} rejected as invalid",
            replay.accepted, replay.rejected
        )?;
        let again = replay.accepted.saturating_sub(decided.total());
        if again > 0 {
            writeln!(
                f,
                "                {again} of them repeat another one, and are decided and stored once"
            )?;
        }
        writeln!(f, "  decisions     {:>6} approved", decided.approved)?;
        writeln!(
            f,
            "                {:>6} review    from {review} points on: a person should look at it",
            decided.review
        )?;
        writeln!(
            f,
            "                {:>6} blocked   from {blocked} points on: refuse the payment",
            decided.blocked
        )?;
        writeln!(
            f,
            "                each is stored with its transaction and its reasons; review and blocked are alerts as well"
        )?;
        if caught.frauds > 0 {
            writeln!(
                f,
                "  frauds        the sample labels {} transactions as fraud: {} of them are alerts, and so are {} others that it does not",
                caught.frauds, caught.caught, caught.innocent
            )?;
            writeln!(
                f,
                "                label. No decision depends on the labels; scorer.rules has the thresholds to tune"
            )?;
        }
        writeln!(
            f,
            "  throughput    {:.0} a second over {seconds:.1} s, from the first request to the last alert",
            decided.total() as f64 / seconds
        )?;
        if !replay.latency.is_empty() {
            writeln!(
                f,
                "  latency       p50 {:.1} ms, p90 {:.1} ms, p99 {:.1} ms from the request to the decision in the answer ({} measured)",
                ms(0.5),
                ms(0.9),
                ms(0.99),
                replay.latency.len()
            )?;
        }
        writeln!(f)
    }
}

pub(crate) fn where_to_look_next(directory: &Path, program: &str) -> String {
    let directory = directory.display();
    format!(
        "Where to look next\n  \
         this run      {directory} has its files until you remove it\n    \
           decisions   sqlite3 {directory}/tollgate.db 'SELECT status, count(*) FROM fraud_analysis GROUP BY 1'\n    \
           alerts      {directory}/alerts.ndjson: one decision a line, with its transaction and the points of each reason\n  \
         your own      {program} up, which runs until Ctrl-C and keeps its data in ./tollgate-data; then in another terminal:\n                \
         curl -d '{{\"transaction_id\":\"1\",\"user_id\":\"me\",\"amount\":\"4200\",\"timestamp\":\"2026-01-01T12:00:00Z\"}}' \\\n                \
         -H 'content-type: application/json' -H 'prefer: wait=5' http://127.0.0.1:8080/v1/transactions\n  \
         a file        {program} score --input payments.ndjson --output decisions.ndjson\n  \
         the API       http://127.0.0.1:8080/docs and http://127.0.0.1:8082/docs, while `up` runs\n  \
         the manual    README.md\n"
    )
}
