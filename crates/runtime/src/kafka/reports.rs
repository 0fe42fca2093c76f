//! What a Kafka client reports of its connections: told once, then counted.
//!
//! Brokers come and go, OCI Streaming closes connections now and then to spread them anew, and the client mends it by
//! itself. A line for each would be a storm that hides everything else.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use metrics::counter;
use rdkafka::error::KafkaError;

/// The same error is told again after so long, with how often it came meanwhile.
const TOLD_AGAIN: Duration = Duration::from_secs(60);

/// Errors of one client, by their kind.
#[derive(Debug, Default)]
pub(super) struct Reports(Mutex<HashMap<String, Told>>);

#[derive(Debug)]
struct Told {
    at: Instant,
    since: u64,
}

impl Reports {
    pub(super) fn tell(&self, error: &KafkaError, reason: &str) {
        let kind = error
            .rdkafka_error_code()
            .map_or_else(|| "other".to_owned(), |code| format!("{code:?}"));
        counter!("tollgate_log_client_errors_total", "error" => kind.clone()).increment(1);
        if let Some(suppressed) = self.due(kind, Instant::now()) {
            tracing::warn!(%error, reason, suppressed, "the log's client reports");
        }
    }

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
