//! `tollgate user` beside a running `up`: the data of one user in store, files and dead letters.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{DEADLINE, Up, tollgate};

/// Exit status and standard output of `tollgate user …`.
fn user(directory: &Path, args: &[&str]) -> (Option<i32>, String) {
    let mut command = tollgate(directory, &[&["user"], args].concat());
    let output = command.output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    (output.status.code(), text)
}

/// The sources of what is kept about a user.
fn sources(directory: &Path, user_id: &str) -> Vec<String> {
    let (status, text) = user(directory, &["export", user_id]);
    let expected = if text.is_empty() { 3 } else { 0 };
    assert_eq!(status, Some(expected), "{text}");
    let source = |line: &str| {
        let line: Value = serde_json::from_str(line).unwrap();
        assert!(line["data"].to_string().contains(user_id), "{line}");
        let source = line["source"].as_str().unwrap().to_owned();
        source.split(' ').next().unwrap().to_owned()
    };
    text.lines().map(source).collect()
}

async fn send(ingest: &str, user_id: &str) {
    let transactions: Vec<Value> = (0..8)
        .map(|n| {
            let time = format!("2026-03-01T12:00:0{n}Z");
            json!({"transaction_id": format!("{user_id}-{n}"), "user_id": user_id, "amount": "9000", "timestamp": time})
        })
        .collect();
    let client = reqwest::Client::new();
    let url = format!("{ingest}/v1/transactions");
    let sent = client.post(url).json(&transactions).send().await.unwrap();
    assert_eq!(sent.status(), 202);
    let batch = json!({ "messages": [{ "value": { "user_id": user_id, "amount": -1 } }] });
    let url = format!("{ingest}/v1/functions/streaming");
    let sent = client.post(url).json(&batch).send().await.unwrap();
    assert!(sent.status().is_success());
}

async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !is_so().await {
        assert!(Instant::now() < deadline, "in vain waited until {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_is_exported_and_erased_beside_a_running_up_and_does_not_come_back() {
    let directory = TempDir::new().unwrap();
    let directory = directory.path();
    let up = Up::start(directory);
    let ingest = up.addresses()["ingest"].clone();
    send(&ingest, "mallory").await;
    send(&ingest, "alice").await;
    let whole = |user_id: &str| {
        let sources = sources(directory, user_id);
        let count = |name: &str| {
            sources
                .iter()
                .filter(|source| source.contains(name))
                .count()
        };
        (count("store"), count("alerts.ndjson"), count("dead"))
    };
    until("everything is stored, delivered and archived", async || {
        let (alice, mallory) = (whole("alice"), whole("mallory"));
        alice == mallory && alice.0 == 8 && alice.1 > 0 && alice.2 == 2
    })
    .await;
    let before = whole("mallory");

    assert_eq!(
        user(directory, &["erase", "mallory"]).0,
        Some(2),
        "without --yes"
    );
    let (status, text) = user(directory, &["erase", "mallory", "--dry-run"]);
    assert!(
        status == Some(0) && text.contains("8 decisions would be erased"),
        "{text}"
    );
    assert_eq!(whole("mallory"), before);
    let output = tollgate(directory, &["user", "export", "nobody"])
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(
        said.contains("nothing is kept about the user \"nobody\" of the default tenant"),
        "{said}"
    );
    // Another tenant's user of this id is another user.
    let (status, text) = user(
        directory,
        &["erase", "mallory", "--tenant", "shop", "--yes"],
    );
    assert!(
        status == Some(0) && text.contains("store: 0 decisions erased"),
        "{text}"
    );
    assert_eq!(whole("mallory"), before);

    let (status, text) = user(directory, &["erase", "mallory", "--yes"]);
    assert!(
        status == Some(0) && text.contains("store: 8 decisions erased"),
        "{text}"
    );
    assert!(
        text.contains("kafka.retention_hours") && text.contains("\"user_hash\""),
        "{text}"
    );
    assert!(text.contains("standard output of `up`"), "{text}");
    assert_eq!(whole("mallory"), (0, 0, 0));
    assert_eq!(whole("alice"), before);

    // Who exported and who erased is in the audit; of the erased user it has the hash.
    let audit = |args: &[&str]| {
        let output = tollgate(directory, &[&["audit"], args].concat())
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let entries = audit(&["export"]);
    let of = |action: &str| {
        let action = format!("\"action\":\"{action}\"");
        entries
            .lines()
            .rfind(|line| line.contains(&action))
            .unwrap()
    };
    assert!(of("user export").contains("alice"), "{entries}");
    let erased = of("user erase");
    assert!(
        erased.contains("user_hash") && erased.contains("\"rows\":8"),
        "{erased}"
    );
    assert!(!erased.contains("mallory"), "{erased}");
    audit(&["verify", "store"]);

    // The log is read again from its beginning after a kill; alerts and dead letters still have their files.
    up.kill();
    let up = Up::start(directory);
    let ingest = up.addresses()["ingest"].clone();
    send(&ingest, "bob").await;
    until("another user is stored", async || whole("bob").0 == 8).await;
    assert_eq!(whole("mallory").0, 0);
    assert_eq!(whole("alice").0, 8);
    up.stop();
}

/// The id as it is sent and as it is typed may be composed in another way than the one that is stored; and the invalid items of
/// one request share letters.
#[tokio::test(flavor = "multi_thread")]
async fn a_user_is_found_by_any_spelling_and_in_letters_that_others_share() {
    let directory = TempDir::new().unwrap();
    let directory = directory.path();
    let up = Up::start(directory);
    let ingest = up.addresses()["ingest"].clone();
    let decomposed = "zoe\u{308}";
    send(&ingest, decomposed).await;
    let messages: Vec<Value> = (0..130)
        .map(|n| {
            let user = if n % 2 == 0 { decomposed } else { "bob" };
            // Long enough for a letter of its own.
            let memo = "a transaction without an id and with an amount that is none";
            json!({"value": {"user_id": user, "amount": -1, "n": n, "memo": memo}})
        })
        .collect();
    let url = format!("{ingest}/v1/functions/streaming");
    let client = reqwest::Client::new();
    let sent = client
        .post(url)
        .json(&json!({ "messages": messages }))
        .send();
    assert!(sent.await.unwrap().status().is_success());
    let export = |user_id: &str| {
        let (status, text) = user(directory, &["export", user_id]);
        // 3 where nothing is known.
        assert_eq!(status, Some(if text.is_empty() { 3 } else { 0 }), "{text}");
        text
    };
    // Of each user 50 letters and a share of one, in the log and in the archive; of this one a letter more.
    until("everything is stored and archived", async || {
        let (zoe, bob) = (export(decomposed), export("bob"));
        zoe.lines()
            .filter(|line| line.contains("\"store\""))
            .count()
            == 8
            && zoe.matches("dead-letters.ndjson").count() == 52
            && bob.matches("dead-letters.ndjson").count() == 51
    })
    .await;
    for (user_id, other) in [(decomposed, "bob"), ("zoë", "bob"), ("bob", decomposed)] {
        let text = export(user_id);
        assert!(!text.contains(other), "{text}");
        assert_eq!(text.matches("invalid_items").count(), 2, "{text}");
    }
    let bob = export("bob");
    let (status, text) = user(directory, &["erase", decomposed, "--yes"]);
    assert!(
        status == Some(0) && text.contains("store: 8 decisions erased"),
        "{text}"
    );
    assert_eq!(export("zoë"), "");
    let archived = |text: &str| {
        let lines = text
            .lines()
            .filter(|line| line.contains("dead-letters.ndjson"));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(archived(&export("bob")), archived(&bob));
    up.stop();
}
