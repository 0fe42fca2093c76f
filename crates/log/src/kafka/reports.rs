//! What a Kafka client reports of its connections: logged once, then counted.
//!
//! Brokers restart, OCI Streaming closes connections from time to time to spread them anew, and the client reconnects
//! by itself. One log line for each would hide everything else.

use std::collections::HashMap;
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

use metrics::counter;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

/// The same report is logged again after this time, with how often it came in between.
const INTERVAL: Duration = Duration::from_secs(60);

/// The reports of all clients of this process.
static REPORTS: LazyLock<Reports> = LazyLock::new(Reports::default);

/// A client has an error from which it recovers by itself.
pub(super) fn client_error(error: &KafkaError, reason: &str) {
    // The end of a partition is no error, and the poll returns it.
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
pub(super) fn log(level: RDKafkaLogLevel, facility: &str, line: &str) {
    match level {
        RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info | RDKafkaLogLevel::Debug => {
            tracing::debug!(facility, line, "the log's client logs");
        }
        _ => {
            if let Some(suppressed) = REPORTS.due(facility.to_owned(), Instant::now()) {
                tracing::warn!(facility, line, suppressed, "the log's client logs");
            }
        }
    }
}

/// The callbacks of a client that needs no others.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Quiet;

impl ClientContext for Quiet {
    fn error(&self, error: KafkaError, reason: &str) {
        client_error(&error, reason);
    }

    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        log(level, facility, line);
    }
}

impl ConsumerContext for Quiet {}

/// When each kind was logged last.
#[derive(Debug, Default)]
struct Reports(Mutex<HashMap<String, Logged>>);

#[derive(Debug)]
struct Logged {
    at: Instant,
    since: u64,
}

impl Reports {
    /// How many were suppressed since the last, where one is to be logged now.
    fn due(&self, kind: String, now: Instant) -> Option<u64> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match all.get_mut(&kind) {
            Some(logged) if now < logged.at + INTERVAL => {
                logged.since += 1;
                None
            }
            Some(logged) => {
                let since = std::mem::take(&mut logged.since);
                logged.at = now;
                Some(since)
            }
            None => {
                all.insert(kind, Logged { at: now, since: 0 });
                Some(0)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repeated_error_is_logged_once_a_minute_with_its_count() {
        let reports = Reports::default();
        let begin = Instant::now();
        let logged = |kind: &str, seconds| {
            reports.due(kind.to_owned(), begin + Duration::from_secs(seconds))
        };
        assert_eq!(logged("transport", 0), Some(0));
        assert_eq!(logged("transport", 1), None);
        assert_eq!(logged("transport", 59), None);
        assert_eq!(logged("resolve", 59), Some(0));
        assert_eq!(logged("transport", 61), Some(2));
        assert_eq!(logged("transport", 62), None);
    }
}
