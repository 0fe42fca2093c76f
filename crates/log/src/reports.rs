//! What a Kafka client reports of its connections: told once, then counted.
//!
//! Brokers come and go, OCI Streaming closes connections now and then to spread them anew, and the client mends it by
//! itself. A line for each would be a storm that hides everything else.

use std::collections::HashMap;
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

use metrics::counter;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

/// The same is told again after so long, with how often it came meanwhile.
const TOLD_AGAIN: Duration = Duration::from_secs(60);

/// What the clients of this process have told, which are all of one log.
static REPORTS: LazyLock<Reports> = LazyLock::new(Reports::default);

/// A client has an error that it mends by itself.
pub fn tell(error: &KafkaError, reason: &str) {
    // The end of a partition is no error, and told by the poll to whoever asked for it.
    if error.rdkafka_error_code() == Some(RDKafkaErrorCode::PartitionEOF) {
        return;
    }
    let kind = error
        .rdkafka_error_code()
        .map_or_else(|| "other".to_owned(), |code| format!("{code:?}"));
    counter!("tollgate_log_client_errors_total", "error" => kind.clone()).increment(1);
    if let Some(suppressed) = REPORTS.due(kind, Instant::now()) {
        tracing::warn!(%error, reason, suppressed, "the log's client reports");
    }
}

/// A line of the client library's own log.
pub fn log(level: RDKafkaLogLevel, facility: &str, line: &str) {
    match level {
        RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info | RDKafkaLogLevel::Debug => {
            tracing::debug!(facility, line, "the log's client says");
        }
        _ => {
            if let Some(suppressed) = REPORTS.due(facility.to_owned(), Instant::now()) {
                tracing::warn!(facility, line, suppressed, "the log's client says");
            }
        }
    }
}

/// The callbacks of a client that needs no others.
#[derive(Debug, Clone, Copy, Default)]
pub struct Quiet;

impl ClientContext for Quiet {
    fn error(&self, error: KafkaError, reason: &str) {
        tell(&error, reason);
    }

    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        log(level, facility, line);
    }
}

impl ConsumerContext for Quiet {}

/// What was told when, by its kind.
#[derive(Debug, Default)]
struct Reports(Mutex<HashMap<String, Told>>);

#[derive(Debug)]
struct Told {
    at: Instant,
    since: u64,
}

impl Reports {
    /// How many were kept back since the last, where one is to be told now.
    fn due(&self, kind: String, now: Instant) -> Option<u64> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match all.get_mut(&kind) {
            Some(told) if now < told.at + TOLD_AGAIN => {
                told.since += 1;
                None
            }
            Some(told) => {
                let since = std::mem::take(&mut told.since);
                told.at = now;
                Some(since)
            }
            None => {
                all.insert(kind, Told { at: now, since: 0 });
                Some(0)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_that_comes_again_and_again_is_told_once_a_minute_with_its_number() {
        let reports = Reports::default();
        let begin = Instant::now();
        let told = |kind: &str, seconds| {
            reports.due(kind.to_owned(), begin + Duration::from_secs(seconds))
        };
        assert_eq!(told("transport", 0), Some(0));
        assert_eq!(told("transport", 1), None);
        assert_eq!(told("transport", 59), None);
        assert_eq!(told("resolve", 59), Some(0));
        assert_eq!(told("transport", 61), Some(2));
        assert_eq!(told("transport", 62), None);
    }
}
