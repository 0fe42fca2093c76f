//! Every alert reaches every sink, once.

use std::sync::Arc;
use std::sync::Mutex;

use crate::common::{
    Answer, DEADLINE, Receiver, World, alert, console, eventually, file, sorted, transactions_in,
    webhook,
};
use tollgate_log::{AuthenticationConfig, KafkaConfig};
use tollgate_notifier::ConsoleOut;

#[tokio::test(flavor = "multi_thread")]
async fn every_alert_reaches_every_sink_once_with_everything_in_it() {
    let world = World::new();
    let receiver = Receiver::start(|_, _| Answer::Status(204)).await;
    let shown = Arc::new(Mutex::new(Vec::new()));
    let show = Arc::clone(&shown);
    let out = ConsoleOut::new(move |alert| {
        show.lock().unwrap().push(alert.key.transaction_id.clone());
        Ok(())
    });
    let path = world.path("alerts.ndjson");
    let mut hook = webhook(receiver.address);
    hook.headers.insert(
        "authorization".into(),
        tollgate_service::Secret::new("Bearer t"),
    );
    let config = world.config(vec![console(), file(&path), hook]);
    let ids: Vec<String> = (0..300).map(|i| format!("t{i:03}")).collect();
    let traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    world.write_with(
        ids.iter().map(|id| alert("ann", id)),
        &[("traceparent", Some(traceparent.as_bytes()))],
    );
    let running = world.start_with(config, out).await;
    eventually("every sink", async || {
        shown.lock().unwrap().len() >= 300
            && transactions_in(&path).len() >= 300
            && receiver.accepted().len() >= 300
    })
    .await;
    running.stop().await;

    assert_eq!(*shown.lock().unwrap(), ids);
    assert_eq!(transactions_in(&path), ids);
    assert_eq!(sorted(receiver.accepted()), ids);
    let expected: serde_json::Value = serde_json::from_str(&alert("ann", "t000")).unwrap();
    let line = std::fs::read_to_string(&path).unwrap();
    let line: serde_json::Value = serde_json::from_str(line.lines().next().unwrap()).unwrap();
    assert_eq!(line, expected);
    let received = receiver
        .received()
        .into_iter()
        .find(|one| one.transaction == "t000")
        .unwrap();
    assert_eq!(received.body["type"], "fraud.alert");
    assert_eq!(received.body["timestamp"], "2026-03-01T12:30:00.250000Z");
    assert_eq!(received.body["data"], expected);
    assert_eq!(received.headers["traceparent"], traceparent);
    assert_eq!(received.headers["authorization"], "Bearer t");
    assert_eq!(received.headers["content-type"], "application/json");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alert_written_twice_or_read_again_after_a_restart_is_not_sent_twice() {
    let world = World::new();
    let receiver = Receiver::start(|_, _| Answer::Status(200)).await;
    let path = world.path("alerts.ndjson");
    let sinks = vec![file(&path), webhook(receiver.address)];
    // Twice in one batch, and again behind.
    world.write(["a", "a", "b", "a"].map(|id| alert("ann", id)));
    let running = world.start(sinks.clone()).await;
    eventually("a and b", async || {
        receiver.accepted().len() >= 2 && transactions_in(&path).len() >= 2
    })
    .await;
    world.write(["b", "c"].map(|id| alert("ann", id)));
    eventually("c", async || receiver.accepted().contains(&"c".to_owned())).await;
    running.stop().await;

    // What was delivered and not committed comes again: here as records of its own. The order of the sinks is another.
    let running = world.start(sinks.into_iter().rev().collect()).await;
    world.write(["a", "b", "c", "d"].map(|id| alert("ann", id)));
    let all = ["a", "b", "c", "d"];
    eventually("d", async || {
        sorted(receiver.accepted()) == all && sorted(transactions_in(&path)) == all
    })
    .await;
    running.stop().await;
    assert_eq!(receiver.received().len(), 4);
    assert_eq!(transactions_in(&path).len(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_transaction_id_of_two_users_is_two_alerts() {
    let world = World::new();
    let receiver = Receiver::start(|_, _| Answer::Status(200)).await;
    world.write(["ann", "bob"].map(|user| alert(user, "t1")));
    let running = world.start(vec![webhook(receiver.address)]).await;
    eventually("both", async || receiver.accepted().len() == 2).await;
    running.stop().await;
    let ids: Vec<_> = receiver
        .received()
        .iter()
        .map(|one| one.headers["webhook-id"].clone())
        .collect();
    assert_ne!(ids[0], ids[1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sink_that_is_added_gets_the_alerts_that_the_others_have() {
    let world = World::new();
    let (first, second) = (world.path("first"), world.path("second"));
    world.write([alert("ann", "a")]);
    let running = world.start(vec![file(&first)]).await;
    eventually("the first sink", async || {
        transactions_in(&first).len() == 1
    })
    .await;
    running.stop().await;
    // It gets what comes again: here a record that was delivered to the first and not committed.
    world.write([alert("ann", "a")]);
    let running = world.start(vec![file(&second), file(&first)]).await;
    eventually("the second sink", async || {
        transactions_in(&second).len() == 1
    })
    .await;
    running.stop().await;
    assert_eq!(transactions_in(&first).len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_is_no_alert_is_dead_lettered_and_nothing_behind_it_is_lost() {
    let world = World::new();
    let path = world.path("alerts.ndjson");
    let approved = alert("ann", "x").replace("blocked", "approved");
    let nul = alert("ann", "x").replacen("\"ann\"", "\"a\\u0000\"", 1);
    let nul = nul.replace("\"user_id\":\"ann\"", "\"user_id\":\"a\\u0000\"");
    let card = alert("ann", "x").replace("80.5", "\"4111111111111111\"");
    let poison: Vec<Vec<u8>> = [
        b"{".to_vec(),
        b"".to_vec(),
        b"\xff\xfe".to_vec(),
        b"[]".to_vec(),
        vec![b'['; 100_000],
        approved.into_bytes(),
        nul.into_bytes(),
        card.into_bytes(),
    ]
    .to_vec();
    let good = |id: &str| alert("ann", id).into_bytes();
    let mut records = vec![good("before")];
    records.extend(poison.clone());
    records.push(good("behind"));
    world.write(records);
    let running = world.start(vec![file(&path), console()]).await;
    eventually("the records behind it", async || {
        transactions_in(&path).len() == 2
    })
    .await;
    let letters = world.dead_letters(poison.len());
    assert_eq!(transactions_in(&path), ["before", "behind"]);
    let payloads: Vec<_> = letters.iter().map(|(payload, _)| payload.clone()).collect();
    assert_eq!(payloads, poison);
    for (_, headers) in &letters {
        assert_eq!(headers["error.kind"], "malformed");
        assert_eq!(headers["error.stage"], "notifier");
        assert_eq!(headers["source.topic"], "alerts");
        let reason = &headers["error.reason"];
        assert!(!reason.is_empty() && !reason.contains("4111"), "{reason}");
    }
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_off_last_line_does_not_spoil_the_next_and_a_rotated_file_is_made_anew() {
    let world = World::new();
    let (path, rotated) = (world.path("alerts.ndjson"), world.path("alerts.1"));
    let whole = alert("ann", "old");
    std::fs::write(&path, format!("{whole}\n{{\"transaction_id\":\"cut o")).unwrap();
    world.write([alert("ann", "a")]);
    let running = world.start(vec![file(&path)]).await;
    eventually("a", async || transactions_in(&path).len() == 2).await;
    assert_eq!(transactions_in(&path), ["old", "a"]);

    std::fs::rename(&path, &rotated).unwrap();
    world.write([alert("ann", "b")]);
    eventually("b", async || transactions_in(&path).len() == 1).await;
    std::fs::remove_file(&path).unwrap();
    // An alert with line feeds in it stays one line.
    world.write([alert("ann", "c").replace(',', ",\r\n ")]);
    eventually("c", async || transactions_in(&path).len() == 1).await;
    assert_eq!(transactions_in(&path), ["c"]);
    assert_eq!(transactions_in(&rotated), ["old", "a"]);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alert_that_a_crash_left_at_the_end_of_the_file_is_not_written_again() {
    let world = World::new();
    let path = world.path("alerts.ndjson");
    // The delivery log has neither: the crash came before. The second was cut off, and was not delivered.
    let (written, cut) = (alert("ann", "written"), alert("ann", "cut"));
    std::fs::write(&path, format!("{written}\n{}", &cut[..cut.len() - 1])).unwrap();
    world.write([written, cut, alert("bob", "written")]);
    let running = world.start(vec![file(&path)]).await;
    eventually("both", async || transactions_in(&path).len() >= 3).await;
    running.stop().await;
    assert_eq!(transactions_in(&path), ["written", "cut", "written"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_finishes_what_is_in_flight_and_a_start_goes_on_behind_it() {
    let world = World::new();
    let path = world.path("alerts.ndjson");
    let ids: Vec<String> = (0..2_000).map(|i| format!("t{i:04}")).collect();
    world.write(ids.iter().map(|id| alert("ann", id)));
    let mut rounds = 0;
    while transactions_in(&path).len() < ids.len() {
        rounds += 1;
        let before = transactions_in(&path).len();
        let running = world.start(vec![file(&path)]).await;
        let mut wanted = before + 1;
        if rounds > 3 {
            wanted = ids.len();
        }
        eventually("progress", async || transactions_in(&path).len() >= wanted).await;
        let begun = std::time::Instant::now();
        running.stop().await;
        assert!(begun.elapsed() < DEADLINE);
    }
    assert_eq!(transactions_in(&path), ids);
}

/// Dropping a runtime aborts every task, as a crash does.
#[test]
fn an_alert_redelivered_after_a_crash_is_not_sent_twice_but_for_the_one_in_flight() {
    const CRASHES: usize = 6;
    let world = World::new();
    let path = world.path("alerts.ndjson");
    let ids: Vec<String> = (0..700).map(|i| format!("t{i:03}")).collect();
    world.write(ids.iter().map(|id| alert("ann", id)));
    for round in 0..=CRASHES {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let running = world.start(vec![file(&path)]).await;
            let wanted = if round < CRASHES {
                100 * (round + 1)
            } else {
                ids.len()
            };
            eventually("progress", async || {
                let mut there = transactions_in(&path);
                there.dedup();
                there.len() >= wanted
            })
            .await;
            drop(running);
        });
        runtime.shutdown_background();
    }
    let mut delivered = transactions_in(&path);
    assert!(
        delivered.len() <= ids.len() + CRASHES,
        "{} lines",
        delivered.len()
    );
    delivered.sort();
    delivered.dedup();
    assert_eq!(delivered, ids);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forged_alert_is_not_delivered() {
    let secret = "0123456789abcdef0123456789abcdef";
    let world = World::with(KafkaConfig {
        authentication: AuthenticationConfig::with_key("k1", secret),
        ..KafkaConfig::default()
    });
    let path = world.path("alerts.ndjson");
    let forged = alert("ann", "forged");
    world.write([&forged]);
    world.write_with([&forged], &[("tollgate-mac", Some(b"k1:AAAA"))]);
    world.write_signed(&alert("ann", "real"));
    let running = world.start(vec![file(&path)]).await;
    eventually("the alert of the scorer", async || {
        !transactions_in(&path).is_empty()
    })
    .await;
    for (payload, headers) in world.dead_letters(2) {
        assert_eq!(payload, forged.as_bytes());
        assert_eq!(headers["error.kind"], "unauthenticated");
    }
    assert_eq!(transactions_in(&path), ["real"]);
    running.stop().await;
}
