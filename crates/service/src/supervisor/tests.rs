//! Whole services with parts that end, fail, panic and hang.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::anyhow;

use super::*;
use crate::http::bind;

async fn supervisor(shutdown: &Shutdown) -> Supervisor {
    let admin = bind("test.admin_listen", SocketAddr::from(([127, 0, 0, 1], 0)))
        .await
        .unwrap();
    Supervisor::new("test", Health::default(), shutdown, admin)
}

/// A part that ends at the shutdown.
async fn until(shutdown: Shutdown) -> anyhow::Result<()> {
    shutdown.begun().await;
    Ok(())
}

async fn nothing(_: Duration) -> anyhow::Result<()> {
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn after_the_shutdown_the_parts_end_then_the_close_runs_and_the_outcome_is_good() {
    let shutdown = Shutdown::new(Duration::from_secs(20));
    let mut supervisor = supervisor(&shutdown).await;
    let part_ended = Arc::new(AtomicBool::new(false));
    let (inner, ended) = (supervisor.shutdown().clone(), Arc::clone(&part_ended));
    supervisor.spawn("a slow part", async move {
        inner.begun().await;
        tokio::time::sleep(Duration::from_secs(5)).await;
        ended.store(true, Ordering::Relaxed);
        Ok(())
    });
    let drained = supervisor.drained().clone();
    supervisor.spawn_support("a support part", until(drained.clone()));
    let seen = Arc::clone(&part_ended);
    let service = supervisor.start(async move |left| {
        assert!(seen.load(Ordering::Relaxed) && !drained.is_begun());
        assert_eq!(left, Duration::from_secs(15));
        Ok(())
    });
    assert!(service.ready().await);
    assert!(!service.is_finished());
    shutdown.begin();
    service.join().await.unwrap();
    assert!(part_ended.load(Ordering::Relaxed));
}

#[tokio::test(start_paused = true)]
async fn a_part_that_ends_fails_or_panics_takes_the_service_down_under_its_name() {
    type Part = fn() -> anyhow::Result<()>;
    let cases: [(Part, &str); 3] = [
        (|| Ok(()), "the odd one has ended by itself"),
        (
            || Err(anyhow!("disk full")),
            "the odd one has failed: disk full",
        ),
        (|| panic!("oh"), "the odd one has failed: it panicked"),
    ];
    for (part, expected) in cases {
        let shutdown = Shutdown::new(Duration::from_secs(20));
        let mut supervisor = supervisor(&shutdown).await;
        let inner = supervisor.shutdown().clone();
        supervisor.spawn("the other", until(inner.clone()));
        supervisor.spawn("the odd one", async move { part() });
        let service = supervisor.start(nothing);
        let error = service.join().await.unwrap_err();
        assert_eq!(format!("{error:#}"), expected);
        assert!(inner.is_begun() && !shutdown.is_begun());
    }
}

#[tokio::test(start_paused = true)]
async fn a_part_that_fails_while_the_service_drains_is_the_outcome() {
    let shutdown = Shutdown::new(Duration::from_secs(20));
    let mut supervisor = supervisor(&shutdown).await;
    let inner = supervisor.shutdown().clone();
    supervisor.spawn("the writer", async move {
        inner.begun().await;
        Err(anyhow!("disk full"))
    });
    let service = supervisor.start(async |_| Err(anyhow!("too late")));
    shutdown.begin();
    let error = service.join().await.unwrap_err();
    assert_eq!(format!("{error:#}"), "the writer has failed: disk full");
}

#[tokio::test(start_paused = true)]
async fn a_part_that_does_not_end_is_aborted_after_the_grace_period() {
    let shutdown = Shutdown::new(Duration::from_secs(20));
    let mut supervisor = supervisor(&shutdown).await;
    supervisor.spawn("the endless one", std::future::pending());
    let service = supervisor.start(nothing);
    shutdown.begin();
    let begun = tokio::time::Instant::now();
    service.join().await.unwrap();
    assert_eq!(begun.elapsed(), Duration::from_secs(20) + ABORT_DELAY);
}

#[tokio::test(start_paused = true)]
async fn the_second_phase_begins_at_its_time() {
    let shutdown = Shutdown::new(Duration::from_secs(20));
    let mut supervisor = supervisor(&shutdown).await;
    let late = CancellationToken::new();
    supervisor.begin_second_phase(Duration::from_secs(10), late.clone());
    supervisor.spawn("a part", async move {
        late.cancelled().await;
        Ok(())
    });
    let service = supervisor.start(nothing);
    tokio::time::sleep(Duration::from_secs(100)).await;
    shutdown.begin();
    let begun = tokio::time::Instant::now();
    service.join().await.unwrap();
    assert_eq!(begun.elapsed().as_secs(), 10);
}

#[tokio::test]
async fn probes_are_answered_while_the_service_drains_and_it_is_not_ready() {
    let shutdown = Shutdown::new(Duration::from_secs(20));
    let mut supervisor = supervisor(&shutdown).await;
    let let_go = CancellationToken::new();
    let held = let_go.clone();
    supervisor.spawn("a part", async move {
        held.cancelled().await;
        Ok(())
    });
    let service = supervisor.start(nothing);
    let address = service.admin_address;
    shutdown.begin();
    let client = reqwest::Client::new();
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    loop {
        let answer = client.get(format!("http://{address}/readyz")).send().await;
        let text = answer.unwrap().text().await.unwrap();
        if text.contains("draining") {
            break;
        }
        assert!(tokio::time::Instant::now() < deadline, "{text}");
        tokio::task::yield_now().await;
    }
    let alive = client.get(format!("http://{address}/livez")).send().await;
    assert!(alive.unwrap().status().is_success());
    let_go.cancel();
    service.join().await.unwrap();
    assert!(
        client
            .get(format!("http://{address}/livez"))
            .send()
            .await
            .is_err()
    );
}
