//! What one connection is doing, and when it must be closed. No I/O: times are passed in.
//!
//! Invariant: every state has a deadline, except that of a request which the service works on; services bound that
//! themselves. So a connection that sends nothing, part of a head, or takes nothing or next to nothing of its answers is
//! closed.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

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
    /// The caller does not take its answer, or too slowly.
    Write,
    /// It made room for another one.
    Evicted,
    /// Its unread answers made room for others.
    Unread,
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
            Self::Unread => "unread_answers",
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
    write_blocked: Option<Pace>,
    /// The answers of which not everything is written, by request.
    answers: BTreeMap<u64, Answering>,
    /// How fast they are taken, all together. `None` without any.
    answers_pace: Option<Pace>,
    /// The bytes of them in memory.
    unread: usize,
    /// Why it is closed for others.
    evicted: Close,
}

/// An answer that is being written.
#[derive(Debug)]
struct Answering {
    since: Instant,
    /// The last byte that was taken of it.
    taken: Instant,
    /// How long nothing may be taken of it.
    timeout: Duration,
}

/// What was taken since an instant. A caller that takes a byte now and then must not live for ever, so that the instant
/// moves on only when a quota was taken.
#[derive(Debug, Clone, Copy)]
struct Pace {
    since: Instant,
    bytes: usize,
}

impl Pace {
    const fn from(since: Instant) -> Self {
        Self { since, bytes: 0 }
    }

    fn take(&mut self, bytes: usize, now: Instant, quota: usize) {
        self.bytes = self.bytes.saturating_add(bytes);
        if self.bytes >= quota {
            *self = Self::from(now);
        }
    }
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
            answers: BTreeMap::new(),
            answers_pace: None,
            unread: 0,
            evicted: Close::Evicted,
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

    /// Bytes were taken from the buffers of the connection.
    pub(super) fn wrote(&self, bytes: usize, now: Instant, limits: &ConnectionLimits) {
        if let Some(pace) = &mut self.state().write_blocked {
            pace.take(bytes, now, limits.quota());
        }
    }

    /// Nothing waits in the buffers of the connection.
    pub(super) fn flushed(&self) {
        self.state().write_blocked = None;
    }

    /// Bytes wait for the caller.
    pub(super) fn write_blocked(&self, now: Instant) {
        self.state().write_blocked.get_or_insert(Pace::from(now));
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

    /// The answer is there, and nothing of it is written yet. The connection is closed if nothing of it is taken for as
    /// long as `patience`.
    pub(super) fn answer_begins(&self, request: u64, now: Instant, timeout: Duration) {
        let mut state = self.state();
        let answering = Answering {
            since: now,
            taken: now,
            timeout,
        };
        state.answers.insert(request, answering);
        state.answers_pace.get_or_insert(Pace::from(now));
    }

    /// Bytes of the answer were written.
    pub(super) fn answer_taken(
        &self,
        request: u64,
        bytes: usize,
        now: Instant,
        limits: &ConnectionLimits,
    ) {
        let mut state = self.state();
        if let Some(answer) = state.answers.get_mut(&request) {
            answer.taken = now;
        }
        if let Some(pace) = &mut state.answers_pace {
            pace.take(bytes, now, limits.quota());
        }
    }

    /// Bytes of answers are in memory from now on.
    pub(super) fn charge(&self, bytes: usize) {
        self.state().unread += bytes;
    }

    /// They are not any more.
    pub(super) fn release(&self, bytes: usize) {
        self.state().unread -= bytes;
    }

    /// The bytes of answers in memory.
    pub(super) fn unread(&self) -> usize {
        self.state().unread
    }

    /// The last byte that was taken of the answer which has been waiting for longest.
    pub(super) fn stalled_since(&self) -> Option<Instant> {
        let state = self.state();
        state.answers.values().map(|answer| answer.taken).min()
    }

    /// The answer was written completely, or the request was aborted.
    pub(super) fn end_request(&self, request: u64, now: Instant) {
        let mut state = self.state();
        state.answers.remove(&request);
        if state.answers.is_empty() {
            state.answers_pace = None;
        }
        state.in_flight -= 1;
        if state.in_flight == 0 {
            state.quiet_since = now;
            state.head_since = None;
        }
    }

    /// When the connection must be closed if nothing more happens, and why.
    pub(super) fn deadline(&self, limits: &ConnectionLimits) -> Option<(Instant, Close)> {
        let state = self.state();
        let answers = state
            .answers
            .values()
            .flat_map(|answer| [answer.taken + answer.timeout, answer.since + limits.answer]);
        let paces = state.write_blocked.into_iter().chain(state.answers_pace);
        let write = answers
            .chain(paces.map(|pace| pace.since + limits.write))
            .min()
            .map(|at| (at, Close::Write));
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
    pub(super) fn evict(&self, why: Close) {
        self.state().evicted = why;
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
                () = self.evicted.notified() => return self.state().evicted,
            }
        }
    }
}

#[cfg(test)]
mod tests;
