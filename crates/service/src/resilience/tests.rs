//! The layers together, on a clock that the test moves.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::*;

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
enum Refusal {
    #[error("away")]
    Away,
    #[error("no answer within {0:?}")]
    Late(Duration),
    #[error("refused")]
    Refused,
}

impl CallError for Refusal {
    fn timed_out(limit: Duration) -> Self {
        Self::Late(limit)
    }

    fn is_outage(&self) -> bool {
        *self != Self::Refused
    }
}

fn limits() -> Limits {
    Limits {
        timeout: Duration::from_secs(1),
        concurrency: 2,
        retry: RetryConfig::default(),
        poison_after: None,
        breaker: BreakerConfig::default(),
    }
}

/// A dependency that can be down, and counts what reaches it.
#[derive(Debug, Default)]
struct Far {
    down: AtomicBool,
    asked: AtomicUsize,
    under_way: AtomicUsize,
    most: AtomicUsize,
}

impl Far {
    async fn ask(&self) -> Result<(), Refusal> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let now = self.under_way.fetch_add(1, Ordering::Relaxed) + 1;
        self.most.fetch_max(now, Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(10)).await;
        self.under_way.fetch_sub(1, Ordering::Relaxed);
        if self.down.load(Ordering::Relaxed) {
            return Err(Refusal::Away);
        }
        Ok(())
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }
}

#[tokio::test(start_paused = true)]
async fn calls_wait_out_an_outage_with_few_attempts_and_are_all_served_after_it() {
    let far = Arc::new(Far::default());
    far.down.store(true, Ordering::Relaxed);
    let health = Health::default();
    let dependency = Dependency::new("far", &limits(), Some((health.clone(), "far")));
    let calls: Vec<_> = (0..20)
        .map(|_| {
            let (dependency, far) = (dependency.clone(), Arc::clone(&far));
            tokio::spawn(async move { dependency.call(Patience::endless(), || far.ask()).await.1 })
        })
        .collect();
    tokio::time::sleep(Duration::from_secs(60)).await;
    // Two at once until the third failure, then a probe a second at most.
    assert!((10..70).contains(&far.asked()), "{}", far.asked());
    assert_eq!(
        health.reasons().get("far").map(String::as_str),
        Some("away")
    );
    far.down.store(false, Ordering::Relaxed);
    for call in calls {
        assert!(call.await.unwrap().is_ok());
    }
    assert_eq!(dependency.circuit(), Circuit::Closed);
    assert!(health.is_ready());
    assert_eq!(far.most.load(Ordering::Relaxed), 2);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_told_at_once_and_is_no_failure_of_the_dependency() {
    let dependency = Dependency::new("far", &limits(), None);
    for _ in 0..10 {
        let (attempts, result) = dependency
            .call(Patience::endless(), || async {
                Err::<(), _>(Refusal::Refused)
            })
            .await;
        assert_eq!(attempts, 1);
        assert!(matches!(result, Err(Unserved::Failed(Refusal::Refused))));
    }
    assert_eq!(dependency.circuit(), Circuit::Closed);
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_hangs_ends_in_time_and_counts_as_a_failure() {
    let dependency = Dependency::new("far", &limits(), None);
    let begun = tokio::time::Instant::now();
    for _ in 0..3 {
        let (_, result) = dependency
            .call(
                Patience::none(),
                std::future::pending::<Result<(), Refusal>>,
            )
            .await;
        assert!(matches!(result, Err(Unserved::GivenUp(_))));
    }
    assert_eq!(begun.elapsed().as_secs(), 3);
    assert_eq!(dependency.circuit(), Circuit::Open);
    // Who waits for nothing is told at once while the circuit is open.
    let (attempts, _) = dependency
        .call(
            Patience::none(),
            std::future::pending::<Result<(), Refusal>>,
        )
        .await;
    assert_eq!((attempts, begun.elapsed().as_secs()), (0, 3));
}

#[tokio::test(start_paused = true)]
async fn a_call_that_fails_while_others_are_served_is_given_back_after_its_attempts() {
    let mut limits = limits();
    limits.poison_after = Some(5);
    let dependency = Dependency::new("far", &limits, None);
    let served = CancellationToken::new();
    let others = {
        let (dependency, served) = (dependency.clone(), served.clone());
        tokio::spawn(async move {
            while !served.is_cancelled() {
                let good = dependency.call(Patience::endless(), || async { Ok::<_, Refusal>(()) });
                assert!(good.await.1.is_ok());
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        })
    };
    let (attempts, result) = dependency
        .call(Patience::endless(), || async {
            Err::<(), _>(Refusal::Away)
        })
        .await;
    assert!(matches!(result, Err(Unserved::Failed(Refusal::Away))));
    assert!((6..20).contains(&attempts), "{attempts}");
    served.cancel();
    others.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn whoever_gives_up_leaves_the_wait_and_nothing_is_begun_once_it_is_pointless() {
    let far = Far::default();
    far.down.store(true, Ordering::Relaxed);
    let dependency = Dependency::new("far", &limits(), None);
    let token = CancellationToken::new();
    let patience = Patience::endless().pointless_with(token.clone());
    let call = dependency.call(patience.clone(), || far.ask());
    let end = async {
        tokio::time::sleep(Duration::from_secs(30)).await;
        token.cancel();
    };
    let ((_, result), ()) = tokio::join!(call, end);
    assert!(matches!(result, Err(Unserved::GivenUp(_))));
    let before = far.asked();
    let (attempts, result) = dependency.call(patience, || far.ask()).await;
    assert!(matches!(result, Err(Unserved::GivenUp(_))));
    assert_eq!((attempts, far.asked()), (0, before));
}

#[tokio::test(start_paused = true)]
async fn whoever_waits_no_longer_makes_no_further_attempt_and_learns_what_failed_the_last_one() {
    let far = Far::default();
    far.down.store(true, Ordering::Relaxed);
    let mut limits = limits();
    limits.breaker.failures = 100;
    limits.retry.base_ms = 60_000;
    limits.retry.cap_ms = 60_000;
    let dependency = Dependency::new("far", &limits, None);
    let token = CancellationToken::new();
    let patience = Patience::endless().over_with(token.clone());
    let call = dependency.call(patience, || far.ask());
    let end = async {
        tokio::time::sleep(Duration::from_secs(300)).await;
        // Its wait is over, and nothing else.
        let asked = far.asked();
        token.cancel();
        asked
    };
    let ((attempts, result), asked) = tokio::join!(call, end);
    assert!(matches!(
        result,
        Err(Unserved::GivenUp(Some(Refusal::Away)))
    ));
    assert!(asked > 1);
    assert_eq!(
        (usize::try_from(attempts).unwrap(), far.asked()),
        (asked, asked)
    );
}
