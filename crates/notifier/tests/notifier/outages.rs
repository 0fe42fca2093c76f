//! Receivers and stores that fail: which alerts wait, which are delivered, which are dead-lettered.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::common::{
    Answer, Receiver, World, alert, eventually, file, sorted, transactions_in, webhook,
};
use sqlx::Connection as _;
use tollgate_notifier::{ConsoleOut, SinkConfig};

fn named(name: &str, sink: SinkConfig) -> SinkConfig {
    SinkConfig {
        name: Some(name.into()),
        ..sink
    }
}

fn ids(count: usize) -> Vec<String> {
    (0..count).map(|i| format!("t{i:03}")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn receivers_that_fail_hang_or_close_first_get_every_alert_later_under_the_same_id() {
    let world = World::new();
    let fails =
        Receiver::start(|_, before| Answer::Status(if before < 2 { 500 } else { 200 })).await;
    let hangs = Receiver::start(|id, before| {
        if id == "t000" && before == 0 {
            Answer::Hang
        } else {
            Answer::Status(200)
        }
    })
    .await;
    let closes = Receiver::start_closing_first(5, |_, _| Answer::Status(200)).await;
    let receivers = [fails, hangs, closes];
    let ids = ids(20);
    world.write(ids.iter().map(|id| alert("ann", id)));
    let running = world
        .start(
            receivers
                .iter()
                .map(|receiver| webhook(receiver.address))
                .collect(),
        )
        .await;
    eventually("all", async || {
        receivers
            .iter()
            .all(|receiver| receiver.accepted().len() >= ids.len())
    })
    .await;
    running.stop().await;
    for receiver in &receivers {
        assert_eq!(sorted(receiver.accepted()), ids);
        for id in &ids {
            let attempts: Vec<_> = receiver
                .received()
                .into_iter()
                .filter(|one| one.transaction == *id)
                .collect();
            assert!(
                attempts
                    .iter()
                    .all(|one| one.headers["webhook-id"] == attempts[0].headers["webhook-id"])
            );
            assert!(attempts.iter().all(|one| one.body == attempts[0].body));
        }
    }
    assert_eq!(receivers[0].received().len(), 3 * ids.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_is_down_delays_no_other_sink_and_shows_in_a_metric_not_in_readiness() {
    let world = World::new();
    let up = Arc::new(AtomicBool::new(false));
    let is_up = Arc::clone(&up);
    let receiver = Receiver::start(move |_, _| {
        if is_up.load(Ordering::Relaxed) {
            Answer::Status(200)
        } else {
            Answer::Status(503)
        }
    })
    .await;
    let path = world.path("alerts.ndjson");
    let running = world
        .start(vec![
            named("down-hook", webhook(receiver.address)),
            file(&path),
        ])
        .await;
    let ids = ids(500);
    world.write(ids.iter().map(|id| alert("ann", id)));
    eventually("the file", async || {
        transactions_in(&path).len() == ids.len()
    })
    .await;
    let series = r#"tollgate_dependency_circuit{dependency="sink down-hook"}"#;
    eventually("the metric", async || {
        running.metric(series).await > Some(0.0)
    })
    .await;
    assert_eq!(running.readiness().await.0, 200);
    assert!(receiver.accepted().is_empty());
    up.store(true, Ordering::Relaxed);
    eventually("the receiver", async || {
        receiver.accepted().len() >= ids.len()
    })
    .await;
    assert_eq!(running.metric(series).await, Some(0.0));
    assert_eq!(
        running
            .metric(r#"tollgate_notifier_alerts_total{sink="down-hook",outcome="delivered"}"#)
            .await,
        Some(500.0)
    );
    running.stop().await;
    assert_eq!(sorted(receiver.accepted()), ids);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alert_that_fails_while_others_are_accepted_is_dead_lettered_and_blocks_no_other() {
    let world = World::new();
    let receiver =
        Receiver::start(|id, _| Answer::Status(if id == "poison" { 500 } else { 200 })).await;
    let mut config = world.config(vec![named("picky-hook", webhook(receiver.address))]);
    config.poison_after = 4;
    let running = world.start_with(config, ConsoleOut::stdout()).await;
    world.write([alert("ann", "poison")]);
    let refused = r#"tollgate_notifier_alerts_total{sink="picky-hook",outcome="refused"}"#;
    let written = AtomicUsize::new(0);
    eventually("the dead letter", async || {
        let number = written.fetch_add(1, Ordering::Relaxed);
        world.write([alert("ann", &format!("t{number:04}"))]);
        running.metric(refused).await == Some(1.0)
    })
    .await;
    let (payload, headers) = world.dead_letters(1).remove(0);
    assert!(String::from_utf8(payload).unwrap().contains("poison"));
    assert_eq!(
        headers["error.reason"],
        "sink picky-hook: it fails while others are accepted: HTTP 500 Internal Server Error"
    );
    assert!(headers["attempts"].parse::<u32>().unwrap() > 4);
    eventually("the others", async || {
        receiver.accepted().len() == written.load(Ordering::Relaxed)
    })
    .await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_budget_that_is_full_holds_the_log_and_loses_nothing() {
    let world = World::new();
    let up = Arc::new(AtomicBool::new(false));
    let is_up = Arc::clone(&up);
    let receiver = Receiver::start(move |_, _| {
        Answer::Status(if is_up.load(Ordering::Relaxed) {
            200
        } else {
            503
        })
    })
    .await;
    let mut config = world.config(vec![named("small-budget", webhook(receiver.address))]);
    config.budget_records = 50;
    let running = world.start_with(config, ConsoleOut::stdout()).await;
    let ids: Vec<String> = (0..3_000).map(|i| format!("t{i:04}")).collect();
    // In portions, since the consumer reads up to 512 records between two checks of its budget.
    for portion in ids.chunks(100) {
        world.write(portion.iter().map(|id| alert("ann", id)));
    }
    let paused = r#"tollgate_log_paused{stage="notifier"}"#;
    eventually("the pause", async || {
        running.metric(paused).await == Some(1.0)
    })
    .await;
    up.store(true, Ordering::Relaxed);
    eventually("all", async || receiver.accepted().len() >= ids.len()).await;
    running.stop().await;
    assert_eq!(sorted(receiver.accepted()), ids);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alert_that_the_receiver_refuses_is_dead_lettered_for_that_sink_and_the_next_goes_through()
 {
    let world = World::new();
    let answers = |id: &str, _| match id {
        "bad" => Answer::Status(400),
        "gone" => Answer::Status(410),
        _ => Answer::Status(200),
    };
    let receiver = Receiver::start(answers).await;
    let path = world.path("alerts.ndjson");
    let all = ["before", "bad", "gone", "behind"];
    world.write(all.map(|id| alert("ann", id)));
    let running = world
        .start(vec![named("picky", webhook(receiver.address)), file(&path)])
        .await;
    let letters = world.dead_letters(2);
    eventually("the rest", async || {
        receiver.accepted().len() == 2 && transactions_in(&path).len() == 4
    })
    .await;
    assert_eq!(sorted(receiver.accepted()), ["before", "behind"]);
    assert_eq!(transactions_in(&path), all);
    let mut reasons: Vec<&str> = letters
        .iter()
        .map(|(_, headers)| headers["error.reason"].as_str())
        .collect();
    reasons.sort_unstable();
    assert_eq!(
        reasons,
        [
            "sink picky: HTTP 400 Bad Request",
            "sink picky: HTTP 410 Gone"
        ]
    );
    for (payload, headers) in &letters {
        assert_eq!(headers["error.kind"], "refused");
        assert_eq!(headers["attempts"], "1");
        assert!(
            [alert("ann", "bad"), alert("ann", "gone")]
                .iter()
                .any(|alert| alert.as_bytes() == payload)
        );
    }
    assert_eq!(
        running
            .metric(r#"tollgate_notifier_alerts_total{sink="picky",outcome="refused"}"#)
            .await,
        Some(2.0)
    );
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redriven_alert_goes_only_to_the_sink_that_had_refused_it() {
    let world = World::new();
    let receiver =
        Receiver::start(|_, before| Answer::Status(if before == 0 { 400 } else { 200 })).await;
    let path = world.path("alerts.ndjson");
    let running = world
        .start(vec![webhook(receiver.address), file(&path)])
        .await;
    world.write([alert("ann", "a")]);
    let (payload, _) = world.dead_letters(1).remove(0);
    eventually("the file", async || transactions_in(&path).len() == 1).await;
    world.write([payload]);
    eventually("the receiver", async || receiver.accepted().len() == 1).await;
    world.write([alert("ann", "b")]);
    eventually("b", async || transactions_in(&path).len() == 2).await;
    running.stop().await;
    assert_eq!(transactions_in(&path), ["a", "b"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_asks_for_a_pause_gets_it() {
    let world = World::new();
    let receiver = Receiver::start(|_, before| {
        if before == 0 {
            Answer::After(1)
        } else {
            Answer::Status(200)
        }
    })
    .await;
    world.write([alert("ann", "a")]);
    let running = world.start(vec![webhook(receiver.address)]).await;
    eventually("a", async || receiver.accepted().len() == 1).await;
    running.stop().await;
    let times: Vec<Instant> = receiver.received().iter().map(|one| one.at).collect();
    assert!(times[1] - times[0] >= Duration::from_secs(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redirect_is_not_followed() {
    let world = World::new();
    let receiver =
        Receiver::start(|_, before| Answer::Status(if before == 0 { 307 } else { 200 })).await;
    world.write([alert("ann", "a")]);
    let running = world.start(vec![webhook(receiver.address)]).await;
    eventually("a", async || receiver.accepted().len() == 1).await;
    running.stop().await;
    assert_eq!(receiver.received().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_while_a_receiver_is_down_is_prompt_and_the_alert_goes_out_after_the_restart() {
    let world = World::new();
    let up = Arc::new(AtomicBool::new(false));
    let is_up = Arc::clone(&up);
    let receiver = Receiver::start(move |_, _| {
        Answer::Status(if is_up.load(Ordering::Relaxed) {
            200
        } else {
            500
        })
    })
    .await;
    let ids = ids(100);
    world.write(ids.iter().map(|id| alert("ann", id)));
    let running = world.start(vec![webhook(receiver.address)]).await;
    eventually("an attempt", async || !receiver.received().is_empty()).await;
    let begun = Instant::now();
    running.stop().await;
    assert!(
        begun.elapsed() < Duration::from_secs(5),
        "{:?}",
        begun.elapsed()
    );
    up.store(true, Ordering::Relaxed);
    let running = world.start(vec![webhook(receiver.address)]).await;
    eventually("all", async || receiver.accepted().len() >= ids.len()).await;
    running.stop().await;
    assert_eq!(sorted(receiver.accepted()), ids);
}

#[tokio::test(flavor = "multi_thread")]
async fn while_a_postgres_delivery_log_is_down_the_service_is_not_ready_and_sends_nothing() {
    let world = World::new();
    let path = world.path("alerts.ndjson");
    world.write([alert("ann", "a")]);
    let mut config = world.config(vec![file(&path)]);
    // A port that was free a moment ago.
    let free = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    config.delivery_log_url = format!("postgres://me:hunter2@{free}/delivery_log");
    let running = world.start_with(config, ConsoleOut::stdout()).await;
    eventually("the reason", async || {
        running
            .readiness()
            .await
            .1
            .contains("the store is not available")
    })
    .await;
    let (status, body) = running.readiness().await;
    assert_eq!(status, 503);
    assert!(
        body.contains("delivery_log") && !body.contains("hunter2"),
        "{body}"
    );
    let begun = Instant::now();
    running.stop().await;
    assert!(
        begun.elapsed() < Duration::from_secs(10),
        "{:?}",
        begun.elapsed()
    );
    assert!(transactions_in(&path).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_delivery_log_cannot_be_written_no_more_than_the_alert_in_flight_is_sent() {
    let world = World::new();
    let path = world.path("alerts.ndjson");
    let running = world.start(vec![file(&path)]).await;
    assert!(running.notifier.ready().await);
    let url = format!("sqlite://{}", world.path("delivery-log.db").display());
    let mut other = sqlx::SqliteConnection::connect(&url).await.unwrap();
    sqlx::query("BEGIN IMMEDIATE")
        .execute(&mut other)
        .await
        .unwrap();
    world.write(ids(10).iter().map(|id| alert("ann", id)));
    // SQLite waits five seconds for the lock before it fails.
    eventually("the reason", async || running.readiness().await.0 == 503).await;
    assert_eq!(transactions_in(&path), ["t000"]);
    sqlx::query("ROLLBACK").execute(&mut other).await.unwrap();
    eventually("the rest", async || transactions_in(&path).len() == 10).await;
    assert_eq!(transactions_in(&path), ids(10));
    eventually("readiness", async || running.readiness().await.0 == 200).await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delivery_log_of_another_make_ends_the_service_with_the_reason() {
    let world = World::new();
    let url = format!(
        "sqlite://{}?mode=rwc",
        world.path("delivery-log.db").display()
    );
    let mut other = sqlx::SqliteConnection::connect(&url).await.unwrap();
    sqlx::query("CREATE TABLE alert_deliveries (x)")
        .execute(&mut other)
        .await
        .unwrap();
    let running = world.start(vec![crate::common::console()]).await;
    let ended = tokio::time::timeout(crate::common::DEADLINE, running.notifier.join())
        .await
        .unwrap();
    let message = format!("{:#}", ended.unwrap_err());
    assert!(
        message.contains("the delivery log") && message.contains("already exists"),
        "{message}"
    );
}

/// A way to the server that can be cut.
#[cfg(feature = "postgres-tests")]
struct Way {
    address: std::net::SocketAddr,
    open: tokio::sync::watch::Sender<bool>,
}

#[cfg(feature = "postgres-tests")]
impl Way {
    async fn to(server: String) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (open, is_open) = tokio::sync::watch::channel(true);
        tokio::spawn(async move {
            while let Ok((mut here, _)) = listener.accept().await {
                let (server, mut is_open) = (server.clone(), is_open.clone());
                tokio::spawn(async move {
                    if !*is_open.borrow() {
                        return;
                    }
                    let mut there = tokio::net::TcpStream::connect(server).await.unwrap();
                    tokio::select! {
                        _ = tokio::io::copy_bidirectional(&mut here, &mut there) => {}
                        _ = is_open.wait_for(|open| !open) => {}
                    }
                });
            }
        });
        Self { address, open }
    }
}

#[cfg(feature = "postgres-tests")]
#[tokio::test(flavor = "multi_thread")]
async fn alerts_wait_while_a_postgres_delivery_log_is_cut_off_and_each_is_delivered_once() {
    let Ok(server) = std::env::var("TEST_POSTGRES_URL") else {
        eprintln!("skipped: TEST_POSTGRES_URL is not set");
        return;
    };
    let pool = sqlx::PgPool::connect(&server).await.unwrap();
    let name = format!("notifier_outage_{}", std::process::id());
    sqlx::query(sqlx::AssertSqlSafe(format!("CREATE DATABASE {name}")))
        .execute(&pool)
        .await
        .unwrap();
    let mut url = url::Url::parse(&server).unwrap();
    let (host, port) = (
        url.host_str().unwrap().to_owned(),
        url.port().unwrap_or(5432),
    );
    let way = Way::to(format!("{host}:{port}")).await;
    url.set_path(&name);
    url.set_host(Some("127.0.0.1")).unwrap();
    url.set_port(Some(way.address.port())).unwrap();

    let world = World::new();
    let receiver = Receiver::start(|_, _| Answer::Status(200)).await;
    let path = world.path("alerts.ndjson");
    let mut config = world.config(vec![webhook(receiver.address), file(&path)]);
    config.delivery_log_url = url.to_string();
    let ids: Vec<String> = (0..400).map(|i| format!("t{i:03}")).collect();
    let running = world.start_with(config.clone(), ConsoleOut::stdout()).await;
    world.write(ids[..200].iter().map(|id| alert("ann", id)));
    for round in 1..4 {
        eventually("progress", async || receiver.accepted().len() >= 40 * round).await;
        way.open.send(false).unwrap();
        eventually("the reason", async || running.readiness().await.0 == 503).await;
        way.open.send(true).unwrap();
        eventually("readiness", async || running.readiness().await.0 == 200).await;
    }
    world.write(ids[200..].iter().map(|id| alert("ann", id)));
    eventually("all", async || {
        receiver.accepted().len() >= 400 && transactions_in(&path).len() >= 400
    })
    .await;
    running.stop().await;
    // Read again from the beginning with the same delivery log.
    let running = world.start_with(config, ConsoleOut::stdout()).await;
    world.write([alert("ann", "z")]);
    eventually("the last", async || {
        receiver.accepted().len() >= 401 && transactions_in(&path).len() >= 401
    })
    .await;
    running.stop().await;
    let expected: Vec<String> = ids.into_iter().chain(["z".to_owned()]).collect();
    assert_eq!(sorted(receiver.accepted()), expected);
    assert_eq!(transactions_in(&path), expected);
    sqlx::query(sqlx::AssertSqlSafe(format!(
        "DROP DATABASE {name} WITH (FORCE)"
    )))
    .execute(&pool)
    .await
    .unwrap();
}
