//! One readable line for each alert on standard output, or wherever the process shows alerts.
//!
//! Invariant: a line contains no amount, no location and no control character.

use std::fmt;
use std::io::{self, Write as _};
use std::sync::Arc;

use tollgate_service::terminal::printable;

use super::{Failure, blocking};
use crate::alert::Alert;

type Show = dyn Fn(&Alert) -> io::Result<()> + Send + Sync;

/// Where the console sink shows alerts. Clones share it.
#[derive(Clone)]
pub struct ConsoleOut(Arc<Show>);

impl fmt::Debug for ConsoleOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ConsoleOut")
    }
}

impl Default for ConsoleOut {
    fn default() -> Self {
        Self::stdout()
    }
}

impl ConsoleOut {
    /// A line for each alert on standard output.
    #[must_use]
    pub fn stdout() -> Self {
        Self::new(|alert| {
            let mut out = io::stdout().lock();
            writeln!(out, "{}", line(alert))?;
            out.flush()
        })
    }

    /// Passes alerts to `show`, which may block. An alert is delivered when it returns `Ok`.
    pub fn new(show: impl Fn(&Alert) -> io::Result<()> + Send + Sync + 'static) -> Self {
        Self(Arc::new(show))
    }
}

#[derive(Debug)]
pub(crate) struct ConsoleSink(ConsoleOut);

impl ConsoleSink {
    pub(super) const fn new(out: ConsoleOut) -> Self {
        Self(out)
    }

    pub(super) async fn deliver(&self, alert: &Arc<Alert>) -> Result<(), Failure> {
        let (out, alert) = (self.0.clone(), Arc::clone(alert));
        blocking(move || (out.0)(&alert))
            .await
            .map_err(|error| Failure::retry(format!("the console cannot be written: {error}")))
    }
}

/// Time, status, score, user, transaction and indicators.
fn line(alert: &Alert) -> String {
    let indicators: Vec<&str> = alert
        .fraud_indicators
        .iter()
        .map(tollgate_types::Indicator::name)
        .collect();
    format!(
        "{}  {:<8} score {:>5.1}  user {}  transaction {}  {}",
        alert.processed_at,
        alert.status.name().to_uppercase(),
        alert.fraud_score,
        printable(&alert.key.user_id),
        printable(&alert.key.transaction_id),
        indicators.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use tollgate_types::{Indicator, Status, Timestamp};

    use super::*;
    use crate::alert::AlertKey;

    #[test]
    fn a_line_names_user_and_indicators_and_stays_one_line() {
        let alert = Alert {
            key: AlertKey {
                user_id: "ann\n\u{1b}[2J".into(),
                transaction_id: "t-1".into(),
                ..AlertKey::default()
            },
            status: Status::Blocked,
            fraud_score: 95.25,
            fraud_indicators: [
                Indicator::intern("card_testing").unwrap(),
                Indicator::HIGH_AMOUNT,
                Indicator::HIGH_VELOCITY,
            ]
            .into_iter()
            .collect(),
            processed_at: Timestamp::parse("2026-03-01T12:30:00Z").unwrap(),
            json: r#"{"transaction":{"amount":5000.25}}"#.into(),
            event_time: Timestamp::MIN,
            trace: None,
        };
        assert_eq!(
            line(&alert),
            "2026-03-01T12:30:00Z  BLOCKED  score  95.2  user ann\\n\\u{1b}[2J  transaction t-1  high_velocity, high_amount, card_testing"
        );
    }
}
