//! When a sink gets its next message, and how many alerts are in it.
//!
//! A sink that takes so many messages a minute gets each alert alone while the minute has room for all that wait;
//! else all that wait go together, up to a thousand.

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use governor::clock::Clock as _;
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};

/// Most alerts in one message.
const TOGETHER: usize = 1_000;
/// Alerts that may wait for their message, beyond which the queue holds them.
const WAITING: usize = 10_000;

#[derive(Debug)]
pub(super) enum Pace {
    /// Each alone, as soon as there is a place.
    Unlimited,
    Limited(Box<Bucket>),
}

#[derive(Debug)]
pub(super) struct Bucket {
    messages: DefaultDirectRateLimiter,
    /// Messages that are taken from the bucket for alerts that wait.
    taken: AtomicUsize,
}

impl Pace {
    /// `messages` in any minute, whichever way its edges lie: a sixth of them at once, the rest evenly.
    pub(super) fn a_minute(messages: Option<NonZeroU32>) -> Self {
        let Some(messages) = messages else {
            return Self::Unlimited;
        };
        let burst = NonZeroU32::new(messages.get() / 6).unwrap_or(NonZeroU32::MIN);
        let evenly = messages.get().saturating_sub(burst.get()).max(1);
        let quota = Quota::with_period(Duration::from_secs(60) / evenly)
            .unwrap_or_else(|| Quota::per_minute(NonZeroU32::MIN))
            .allow_burst(burst);
        Self::Limited(Box::new(Bucket {
            messages: RateLimiter::direct(quota),
            taken: AtomicUsize::new(0),
        }))
    }

    /// How many alerts may wait here before no more are taken from the queue.
    pub(super) const fn room(&self) -> usize {
        match self {
            Self::Unlimited => 1,
            Self::Limited(_) => WAITING,
        }
    }

    /// Waits for the next message. How many of those that wait go with it.
    pub(super) async fn next(&self, waiting: usize) -> usize {
        let Self::Limited(bucket) = self else {
            return 1;
        };
        let less = |taken: usize| taken.checked_sub(1);
        let own = bucket
            .taken
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, less);
        if own.is_ok() {
            return 1;
        }
        let all = u32::try_from(waiting).ok().and_then(NonZeroU32::new);
        if let Some(Ok(Ok(()))) = all.map(|all| bucket.messages.check_n(all)) {
            bucket.taken.fetch_add(waiting - 1, Ordering::AcqRel);
            return 1;
        }
        self.wait().await;
        waiting.min(TOGETHER)
    }

    /// Waits until one more message may be sent.
    pub(super) async fn wait(&self) {
        let Self::Limited(bucket) = self else { return };
        while let Err(early) = bucket.messages.check() {
            let wait = early.wait_time_from(bucket.messages.clock().now());
            tokio::time::sleep(wait).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn alerts_go_alone_while_the_minute_has_room_for_all_and_then_together() {
        let pace = Pace::a_minute(NonZeroU32::new(60));
        for waiting in [4, 3, 2, 1] {
            assert_eq!(pace.next(waiting).await, 1, "{waiting} wait");
        }
        // More than ever go at once, however long the machine took for the four before.
        assert_eq!(pace.next(900).await, 900);
        for waiting in [5, 4, 3, 2, 1] {
            assert_eq!(pace.next(waiting).await, 1, "{waiting} wait");
        }
        assert_eq!(pace.next(5_000).await, TOGETHER);
    }

    #[test]
    fn no_minute_sees_more_than_it_may() {
        // One a minute is one at once, and the next a minute later.
        for messages in [2, 5, 10, 60, 600] {
            let burst = (messages / 6).max(1);
            let evenly = (messages - burst).max(1);
            // What the bucket holds, and what comes into it within a minute.
            assert!(burst + evenly <= messages, "{messages}");
        }
    }
}
