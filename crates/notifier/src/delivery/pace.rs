//! When a sink is sent its next message, and how many alerts are in it.
//!
//! A sink with a limit of messages per minute is sent each alert alone while the limit has room for all alerts that wait;
//! otherwise those that wait, up to a thousand, go in one message.

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use governor::clock::Clock as _;
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};

/// Most alerts in one message.
const TOGETHER: usize = 1_000;
/// Most alerts that wait for their message; further ones stay in the queue.
const WAITING: usize = 10_000;

#[derive(Debug)]
pub(super) enum Pace {
    /// Each alert alone, as soon as there is a slot.
    Unlimited,
    Limited(Box<Bucket>),
}

#[derive(Debug)]
pub(super) struct Bucket {
    messages: DefaultDirectRateLimiter,
    /// Messages that were taken from the bucket for alerts that wait.
    taken: AtomicUsize,
}

impl Pace {
    /// At most `messages` in any interval of a minute: a burst of a sixth of them, the rest evenly.
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

    /// The number of alerts that may wait here before the queue is left alone.
    pub(super) const fn room(&self) -> usize {
        match self {
            Self::Unlimited => 1,
            Self::Limited(_) => WAITING,
        }
    }

    /// Waits until the next message may be sent. Returns the number of alerts that go with it.
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
    async fn alerts_go_alone_while_the_limit_has_room_for_all_and_then_together() {
        let pace = Pace::a_minute(NonZeroU32::new(60));
        for waiting in [4, 3, 2, 1] {
            assert_eq!(pace.next(waiting).await, 1, "{waiting} wait");
        }
        // More than a burst, however long the four messages before took.
        assert_eq!(pace.next(900).await, 900);
        for waiting in [5, 4, 3, 2, 1] {
            assert_eq!(pace.next(waiting).await, 1, "{waiting} wait");
        }
        assert_eq!(pace.next(5_000).await, TOGETHER);
    }

    #[test]
    fn no_minute_exceeds_the_limit() {
        // One a minute is one at once, and the next a minute later.
        for messages in [2, 5, 10, 60, 600] {
            let burst = (messages / 6).max(1);
            let evenly = (messages - burst).max(1);
            // The content of the bucket, and its refill within a minute.
            assert!(burst + evenly <= messages, "{messages}");
        }
    }
}
