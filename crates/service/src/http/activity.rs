//! What one connection is doing, and when it must be closed. No I/O: times are passed in.
//!
//! Invariant: every state has a deadline, except that of a request which the service works on; services bound that
//! themselves. So a connection that sends nothing, part of a head, or takes nothing of its answer is closed.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio::time::Instant;

use super::config::ConnectionLimits;

/// Why a connection is closed by the service, and the label of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Close {
    /// No head within its time.
    Head,
    /// No request for long. The only reason that is not counted as a refusal.
    Idle,
    /// The caller does not take its answer.
    Write,
    /// It made room for another one.
    Evicted,
    /// The TLS handshake failed.
    Handshake,
}

impl Close {
    pub(super) const fn reason(self) -> &'static str {
        match self {
            Self::Head => "head_timeout",
            Self::Idle => "idle",
            Self::Write => "write_timeout",
            Self::Evicted => "evicted",
            Self::Handshake => "tls_handshake",
        }
    }
}

/// The state of a connection, shared by its input and output, its requests and its watch.
#[derive(Debug)]
pub(super) struct Activity {
    state: Mutex<State>,
    evicted: Notify,
}

#[derive(Debug)]
struct State {
    requests: u64,
    in_flight: usize,
    /// The accept, or the end of the last request.
    quiet_since: Instant,
    /// The first byte after it.
    head_since: Option<Instant>,
    /// HTTP/2 sends frames that are no head, such as pings.
    is_http2: bool,
    /// Bytes wait in the kernel's or the caller's buffers.
    write_blocked: Option<Instant>,
    /// Parts of answers that the caller has no window for, by request.
    unsent: BTreeMap<u64, Instant>,
}

impl Activity {
    /// A connection that was accepted `now`.
    pub(super) fn new(now: Instant) -> Self {
        let state = State {
            requests: 0,
            in_flight: 0,
            quiet_since: now,
            head_since: None,
            is_http2: false,
            write_blocked: None,
            unsent: BTreeMap::new(),
        };
        Self {
            state: Mutex::new(state),
            evicted: Notify::new(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes arrived.
    pub(super) fn read(&self, now: Instant) {
        let mut state = self.state();
        if state.in_flight == 0 && state.head_since.is_none() {
            state.head_since = Some(now);
        }
    }

    /// The caller took bytes, or nothing waits for it.
    pub(super) fn write_progressed(&self) {
        self.state().write_blocked = None;
    }

    /// Bytes wait for the caller.
    pub(super) fn write_blocked(&self, now: Instant) {
        self.state().write_blocked.get_or_insert(now);
    }

    /// A head has arrived. The number names the request in the calls below.
    pub(super) fn begin_request(&self, is_http2: bool) -> u64 {
        let mut state = self.state();
        state.requests += 1;
        state.in_flight += 1;
        state.head_since = None;
        state.is_http2 = is_http2;
        state.requests
    }

    /// A part of the answer was handed over, and the next one is not asked for yet.
    pub(super) fn part_begins(&self, request: u64, now: Instant) {
        self.state().unsent.insert(request, now);
    }

    /// The next part of the answer is asked for.
    pub(super) fn part_taken(&self, request: u64) {
        self.state().unsent.remove(&request);
    }

    /// The answer was handed over completely, or the request was aborted.
    pub(super) fn end_request(&self, request: u64, now: Instant) {
        let mut state = self.state();
        state.unsent.remove(&request);
        state.in_flight -= 1;
        if state.in_flight == 0 {
            state.quiet_since = now;
            state.head_since = None;
        }
    }

    /// When the connection must be closed if nothing more happens, and why.
    pub(super) fn deadline(&self, limits: &ConnectionLimits) -> Option<(Instant, Close)> {
        let state = self.state();
        let unsent = state.unsent.values().min().copied();
        let blocked = state.write_blocked.into_iter().chain(unsent).min();
        let write = blocked.map(|since| (since + limits.write, Close::Write));
        let quiet = (state.in_flight == 0).then(|| match state.head_since {
            _ if state.requests == 0 => (state.quiet_since + limits.head, Close::Head),
            Some(since) if !state.is_http2 => (since + limits.head, Close::Head),
            _ => (state.quiet_since + limits.idle, Close::Idle),
        });
        write.into_iter().chain(quiet).min_by_key(|(at, _)| *at)
    }

    /// How well the connection suits to make room for another one: the lowest first, `None` while it has a request.
    pub(super) fn eviction_rank(&self) -> Option<(bool, Instant)> {
        let state = self.state();
        (state.in_flight == 0).then_some((state.requests > 0, state.quiet_since))
    }

    /// Closes it, to make room.
    pub(super) fn evict(&self) {
        self.evicted.notify_one();
    }

    /// Waits until it has to be closed.
    pub(super) async fn expired(&self, limits: &ConnectionLimits) -> Close {
        // A request begins and ends without waking this task, which looks again at least this often.
        let most = limits.head.min(limits.idle).min(limits.write) / 4;
        loop {
            let now = Instant::now();
            let mut next = now + most;
            if let Some((at, why)) = self.deadline(limits) {
                if at <= now {
                    return why;
                }
                next = next.min(at);
            }
            tokio::select! {
                () = tokio::time::sleep_until(next) => {}
                () = self.evicted.notified() => return Close::Evicted,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn limits() -> ConnectionLimits {
        ConnectionLimits {
            head: Duration::from_secs(10),
            idle: Duration::from_secs(90),
            write: Duration::from_secs(30),
            ..ConnectionLimits::default()
        }
    }

    fn after(begin: Instant, seconds: u64) -> Instant {
        begin + Duration::from_secs(seconds)
    }

    fn deadline(activity: &Activity, begin: Instant) -> Option<(u64, Close)> {
        let (at, why) = activity.deadline(&limits())?;
        Some((at.duration_since(begin).as_secs(), why))
    }

    #[test]
    fn the_first_head_is_due_from_the_accept_on_however_many_bytes_arrive() {
        let begin = Instant::now();
        let activity = Activity::new(begin);
        assert_eq!(deadline(&activity, begin), Some((10, Close::Head)));
        activity.read(after(begin, 9));
        assert_eq!(deadline(&activity, begin), Some((10, Close::Head)));
    }

    #[test]
    fn a_kept_connection_may_be_idle_for_longer_than_a_head_may_take() {
        let begin = Instant::now();
        let activity = Activity::new(begin);
        let request = activity.begin_request(false);
        assert_eq!(deadline(&activity, begin), None);
        activity.end_request(request, after(begin, 1));
        assert_eq!(deadline(&activity, begin), Some((91, Close::Idle)));
        activity.read(after(begin, 50));
        activity.read(after(begin, 55));
        assert_eq!(deadline(&activity, begin), Some((60, Close::Head)));
    }

    #[test]
    fn pings_do_not_keep_an_idle_http2_connection_open() {
        let begin = Instant::now();
        let activity = Activity::new(begin);
        let request = activity.begin_request(true);
        activity.end_request(request, after(begin, 1));
        activity.read(after(begin, 60));
        assert_eq!(deadline(&activity, begin), Some((91, Close::Idle)));
    }

    #[test]
    fn an_answer_that_nobody_takes_has_a_deadline_in_the_socket_and_in_the_window_of_a_stream() {
        let begin = Instant::now();
        let activity = Activity::new(begin);
        let (first, second) = (activity.begin_request(true), activity.begin_request(true));
        activity.part_begins(first, after(begin, 3));
        activity.part_begins(second, after(begin, 2));
        assert_eq!(deadline(&activity, begin), Some((32, Close::Write)));
        activity.part_taken(second);
        assert_eq!(deadline(&activity, begin), Some((33, Close::Write)));
        activity.write_blocked(after(begin, 1));
        activity.write_blocked(after(begin, 2));
        assert_eq!(deadline(&activity, begin), Some((31, Close::Write)));
        activity.write_progressed();
        activity.end_request(first, after(begin, 4));
        assert_eq!(deadline(&activity, begin), None);
    }
}
