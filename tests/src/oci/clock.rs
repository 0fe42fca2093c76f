//! The time that everything here goes by. A test moves it ahead instead of waiting for tokens and windows to pass.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicI64, Ordering};

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use serde::Serializer;

/// The machine's clock, and how far this stand-in is ahead of it.
#[derive(Debug, Default)]
pub(super) struct Clock {
    ahead_seconds: AtomicI64,
}

impl Clock {
    pub(super) fn now(&self) -> DateTime<Utc> {
        let now = Utc::now();
        let ahead = TimeDelta::try_seconds(self.ahead_seconds.load(Ordering::Relaxed));
        // A time that is out of range is none.
        ahead
            .and_then(|ahead| now.checked_add_signed(ahead))
            .unwrap_or(now)
    }

    /// Moves it ahead; back where `seconds` is negative.
    pub(super) fn shift(&self, seconds: i64) {
        self.ahead_seconds.fetch_add(seconds, Ordering::Relaxed);
    }
}

/// A time as Oracle writes it: RFC 3339, milliseconds, `Z`.
pub(super) fn rfc3339(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Millis, true)
}

/// [`rfc3339`], for fields.
pub(super) fn as_rfc3339<S: Serializer>(
    at: &DateTime<Utc>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&rfc3339(*at))
}

/// Counts what passed within the last `span`: a sliding window, so that no two halves of a burst fall into two
/// windows.
#[derive(Debug)]
pub(super) struct Window {
    span: TimeDelta,
    passed: VecDeque<DateTime<Utc>>,
}

impl Window {
    pub(super) fn new(span: TimeDelta) -> Self {
        Self {
            span,
            passed: VecDeque::new(),
        }
    }

    /// Whether one more may pass at `now`, where `limit` may within the span. One that may not is not counted.
    pub(super) fn admit(&mut self, now: DateTime<Utc>, limit: usize) -> bool {
        while self.passed.front().is_some_and(|at| *at + self.span <= now) {
            self.passed.pop_front();
        }
        let free = self.passed.len() < limit;
        if free {
            self.passed.push_back(now);
        }
        free
    }
}

#[cfg(test)]
mod tests {
    use chrono::{DateTime, TimeDelta, Utc};

    use super::Window;

    #[test]
    fn a_window_slides_and_what_it_refuses_does_not_count() {
        let at = |second| DateTime::<Utc>::UNIX_EPOCH + TimeDelta::seconds(second);
        let mut window = Window::new(TimeDelta::seconds(60));
        assert!(window.admit(at(0), 2));
        assert!(window.admit(at(30), 2));
        assert!(!window.admit(at(59), 2));
        assert!(window.admit(at(60), 2));
        assert!(!window.admit(at(89), 2));
        assert!(window.admit(at(90), 2));
    }
}
