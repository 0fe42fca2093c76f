//! Reports a consumer loop whose iteration takes too long: it polls no rebalance and commits nothing.
//!
//! The loop updates a timestamp in each iteration. A separate thread checks it, so that whatever blocks the loop does not
//! block the check.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use tollgate_service::health::Health;

use crate::error::LogError;

/// The component that `/readyz` names.
const COMPONENT: &str = "log loop";
/// How often the watchdog looks.
const INTERVAL: Duration = Duration::from_millis(500);

/// Tells the watchdog that the loop runs. Clones beat for the same loop.
#[derive(Debug, Clone)]
pub(super) struct Heartbeat {
    begin: Instant,
    /// Milliseconds from `begin` to the last beat.
    last: Arc<AtomicU64>,
}

impl Heartbeat {
    pub(super) fn new() -> Self {
        Self {
            begin: Instant::now(),
            last: Arc::default(),
        }
    }

    /// The loop takes a turn.
    pub(super) fn beat(&self) {
        let millis = self.begin.elapsed().as_millis();
        let millis = u64::try_from(millis).unwrap_or(u64::MAX);
        self.last.store(millis, Ordering::Relaxed);
    }

    /// Time since the last beat.
    fn age(&self, now: Instant) -> Duration {
        let last = Duration::from_millis(self.last.load(Ordering::Relaxed));
        now.saturating_duration_since(self.begin)
            .saturating_sub(last)
    }
}

/// Watches one loop until it is dropped.
#[derive(Debug)]
pub(super) struct Watchdog {
    _end: Sender<()>,
}

impl Watchdog {
    /// Starts watching: a loop without a beat for longer than `limit` makes the service not ready.
    pub(super) fn start(
        stage: &'static str,
        heartbeat: Heartbeat,
        limit: Duration,
        health: Health,
    ) -> Result<Self, LogError> {
        let (end, ended) = channel();
        let mut watch = Watch {
            stage,
            heartbeat,
            limit,
            health,
            stalled: false,
        };
        std::thread::Builder::new()
            .name(format!("{stage}-watchdog"))
            .spawn(move || watch.run(&ended))
            .map_err(|error| LogError::Refused(format!("cannot start a thread: {error}")))?;
        Ok(Self { _end: end })
    }
}

struct Watch {
    stage: &'static str,
    heartbeat: Heartbeat,
    limit: Duration,
    health: Health,
    stalled: bool,
}

impl Watch {
    fn run(&mut self, ended: &Receiver<()>) {
        while ended.recv_timeout(INTERVAL) == Err(RecvTimeoutError::Timeout) {
            self.look(Instant::now());
        }
        self.report(Duration::ZERO);
    }

    fn look(&mut self, now: Instant) {
        let age = self.heartbeat.age(now);
        self.report(if age > self.limit {
            age
        } else {
            Duration::ZERO
        });
    }

    /// The loop has stalled for this time; zero: it runs.
    fn report(&mut self, stalled: Duration) {
        metrics::gauge!("tollgate_log_loop_stalled_seconds", "stage" => self.stage)
            .set(stalled.as_secs_f64());
        if stalled.is_zero() {
            if std::mem::take(&mut self.stalled) {
                self.health.ready(COMPONENT);
                tracing::info!(stage = self.stage, "the consumer loop runs again");
            }
        } else if !std::mem::replace(&mut self.stalled, true) {
            let seconds = self.limit.as_secs();
            let reason = format!("the consumer loop has taken no turn for more than {seconds} s");
            tracing::warn!(stage = self.stage, reason);
            self.health.not_ready(COMPONENT, reason);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loop_without_a_beat_makes_the_service_not_ready_until_the_next_one() {
        let health = Health::default();
        let mut watch = Watch {
            stage: "scorer",
            heartbeat: Heartbeat::new(),
            limit: Duration::from_secs(5),
            health: health.clone(),
            stalled: false,
        };
        let begin = watch.heartbeat.begin;
        watch.look(begin + Duration::from_secs(5));
        assert!(health.is_ready());
        watch.look(begin + Duration::from_secs(6));
        assert!(health.reasons().contains_key(COMPONENT));
        // A beat six seconds after the beginning.
        watch.heartbeat.last.store(6_000, Ordering::Relaxed);
        watch.look(begin + Duration::from_secs(7));
        assert!(health.is_ready());
    }
}
