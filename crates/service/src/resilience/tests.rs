//! Whole calls, on a paused clock.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::*;
use crate::health::Health;

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
enum TestError {
    #[error("down")]
    Down,
    #[error("no answer within {0:?}")]
    Late(Duration),
    #[error("rejected")]
    Rejected,
}

impl CallError for TestError {
    fn timed_out(limit: Duration) -> Self {
        Self::Late(limit)
    }

    fn is_outage(&self) -> bool {
        *self != Self::Rejected
    }
}

fn config() -> DependencyConfig {
    DependencyConfig {
        timeout: Duration::from_secs(1),
        concurrency: 2,
        retry: RetryConfig::default(),
        poison_after: None,
        breaker: BreakerConfig::default(),
    }
}

/// A dependency that can be down, and counts the attempts that reach it.
#[derive(Debug, Default)]
struct Remote {
    down: AtomicBool,
    attempts: AtomicUsize,
    in_flight: AtomicUsize,
    most_in_flight: AtomicUsize,
}

impl Remote {
    async fn attempt(&self) -> Result<(), TestError> {
        self.attempts.fetch_add(1, Ordering::Relaxed);
        let now = self.in_flight.fetch_add(1, Ordering::Relaxed) + 1;
        self.most_in_flight.fetch_max(now, Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(10)).await;
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
        if self.down.load(Ordering::Relaxed) {
            return Err(TestError::Down);
        }
        Ok(())
    }

    fn attempts(&self) -> usize {
        self.attempts.load(Ordering::Relaxed)
    }
}

#[tokio::test(start_paused = true)]
async fn during_an_outage_calls_make_few_attempts_and_all_are_answered_after_it() {
    let remote = Arc::new(Remote::default());
    remote.down.store(true, Ordering::Relaxed);
    let health = Health::default();
    let dependency = Dependency::new("remote", &config(), Some((health.clone(), "remote")));
    let calls: Vec<_> = (0..20)
        .map(|_| {
            let (dependency, remote) = (dependency.clone(), Arc::clone(&remote));
            tokio::spawn(async move {
                dependency
                    .call(CallPolicy::unlimited(), || remote.attempt())
                    .await
                    .1
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_secs(60)).await;
    // Two at once until the third failure, then a probe a second at most.
    assert!(
        (10..70).contains(&remote.attempts()),
        "{}",
        remote.attempts()
    );
    assert_eq!(
        health.reasons().get("remote").map(String::as_str),
        Some("down")
    );
    remote.down.store(false, Ordering::Relaxed);
    for call in calls {
        assert!(call.await.unwrap().is_ok());
    }
    assert_eq!(dependency.circuit(), Circuit::Closed);
    assert!(health.is_ready());
    assert_eq!(remote.most_in_flight.load(Ordering::Relaxed), 2);
}

#[tokio::test(start_paused = true)]
async fn a_rejection_is_returned_at_once_and_is_no_failure_of_the_dependency() {
    let dependency = Dependency::new("remote", &config(), None);
    for _ in 0..10 {
        let (attempts, result) = dependency
            .call(CallPolicy::unlimited(), || async {
                Err::<(), _>(TestError::Rejected)
            })
            .await;
        assert_eq!(attempts, 1);
        assert!(matches!(
            result,
            Err(CallFailure::Rejected(TestError::Rejected))
        ));
    }
    assert_eq!(dependency.circuit(), Circuit::Closed);
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_hangs_times_out_and_counts_as_a_failure() {
    let dependency = Dependency::new("remote", &config(), None);
    let begun = tokio::time::Instant::now();
    for _ in 0..3 {
        let (_, result) = dependency
            .call(
                CallPolicy::no_retry(),
                std::future::pending::<Result<(), TestError>>,
            )
            .await;
        assert!(matches!(result, Err(CallFailure::Unavailable(_))));
    }
    assert_eq!(begun.elapsed().as_secs(), 3);
    assert_eq!(dependency.circuit(), Circuit::Open);
    // Without retries a call returns at once while the circuit is open.
    let (attempts, _) = dependency
        .call(
            CallPolicy::no_retry(),
            std::future::pending::<Result<(), TestError>>,
        )
        .await;
    assert_eq!((attempts, begun.elapsed().as_secs()), (0, 3));
}

#[tokio::test(start_paused = true)]
async fn a_call_that_keeps_failing_while_others_succeed_is_rejected_as_poison() {
    let mut config = config();
    config.poison_after = Some(5);
    let dependency = Dependency::new("remote", &config, None);
    let served = CancellationToken::new();
    let others = {
        let (dependency, served) = (dependency.clone(), served.clone());
        tokio::spawn(async move {
            while !served.is_cancelled() {
                let good =
                    dependency.call(CallPolicy::unlimited(), || async { Ok::<_, TestError>(()) });
                assert!(good.await.1.is_ok());
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        })
    };
    let (attempts, result) = dependency
        .call(CallPolicy::unlimited(), || async {
            Err::<(), _>(TestError::Down)
        })
        .await;
    assert!(matches!(
        result,
        Err(CallFailure::Rejected(TestError::Down))
    ));
    assert!((6..20).contains(&attempts), "{attempts}");
    served.cancel();
    others.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_call_stops_waiting_and_starts_no_attempt() {
    let remote = Remote::default();
    remote.down.store(true, Ordering::Relaxed);
    let dependency = Dependency::new("remote", &config(), None);
    let token = CancellationToken::new();
    let policy = CallPolicy::unlimited().cancelled_by(token.clone());
    let call = dependency.call(policy.clone(), || remote.attempt());
    let end = async {
        tokio::time::sleep(Duration::from_secs(30)).await;
        token.cancel();
    };
    let ((_, result), ()) = tokio::join!(call, end);
    assert!(matches!(result, Err(CallFailure::Unavailable(_))));
    let before = remote.attempts();
    let (attempts, result) = dependency.call(policy, || remote.attempt()).await;
    assert!(matches!(result, Err(CallFailure::Unavailable(_))));
    assert_eq!((attempts, remote.attempts()), (0, before));
}

#[tokio::test(start_paused = true)]
async fn an_expired_call_makes_no_further_attempt_and_returns_its_last_error() {
    let remote = Remote::default();
    remote.down.store(true, Ordering::Relaxed);
    let mut config = config();
    config.breaker.failures = 100;
    config.retry.base_ms = 60_000;
    config.retry.cap_ms = 60_000;
    let dependency = Dependency::new("remote", &config, None);
    let token = CancellationToken::new();
    let policy = CallPolicy::unlimited().retry_until(token.clone());
    let call = dependency.call(policy, || remote.attempt());
    let end = async {
        tokio::time::sleep(Duration::from_secs(300)).await;
        let attempted = remote.attempts();
        token.cancel();
        attempted
    };
    let ((attempts, result), attempted) = tokio::join!(call, end);
    assert!(matches!(
        result,
        Err(CallFailure::Unavailable(Some(TestError::Down)))
    ));
    assert!(attempted > 1);
    assert_eq!(
        (usize::try_from(attempts).unwrap(), remote.attempts()),
        (attempted, attempted)
    );
}
