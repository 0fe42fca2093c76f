//! What `up` keeps is for its owner only, and prints no control characters.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{DEADLINE, Up, tollgate};

const PAN: &str = "4111111111111111";

async fn post(url: &str, body: &Value) -> Value {
    let sent = reqwest::Client::new()
        .post(url)
        .header("prefer", "wait=20")
        .json(body)
        .send();
    sent.await.unwrap().json().await.unwrap()
}

/// Every file and directory below this one, with its mode.
fn modes(directory: &Path, found: &mut Vec<(String, u32)>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let metadata = path.symlink_metadata().unwrap();
        found.push((path.display().to_string(), metadata.mode() & 0o777));
        if metadata.is_dir() {
            modes(&path, found);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn files_of_an_up_are_for_their_owner_only_and_have_no_card_number() {
    let directory = TempDir::new().unwrap();
    let up = Up::start(directory.path());
    let addresses = up.addresses();
    let url = format!("{}/v1/transactions", addresses["ingest"]);
    let payment = |id: &str| {
        json!({"transaction_id": id, "user_id": "u", "amount": "9000", "timestamp": "2026-03-01T12:30:00Z",
            "card_number": PAN, "cvv": "987"})
    };
    let first = post(&url, &payment("t1")).await;
    let token = first["decisions"][0]["transaction"]["card_number_token"].clone();
    assert!(token.as_str().unwrap().starts_with("tok_"), "{first}");
    up.stop();

    // The same card has the same token after a restart: the key is kept.
    let up = Up::start(directory.path());
    let url = format!("{}/v1/transactions", up.addresses()["ingest"]);
    let second = post(&url, &payment("t2")).await;
    assert_eq!(
        second["decisions"][0]["transaction"]["card_number_token"],
        token
    );
    let alerts = directory.path().join("tollgate-data/alerts.ndjson");
    let deadline = std::time::Instant::now() + DEADLINE;
    while !std::fs::read_to_string(&alerts).is_ok_and(|text| text.lines().count() == 2) {
        assert!(std::time::Instant::now() < deadline, "no second alert");
        std::thread::yield_now();
    }
    up.stop();

    let mut found = Vec::new();
    modes(directory.path(), &mut found);
    assert!(found.len() > 6, "{found:?}");
    for (path, mode) in &found {
        assert_eq!(mode & 0o077, 0, "{path} has the mode {mode:o}");
    }
    for (path, _) in found {
        if let Ok(bytes) = std::fs::read(&path) {
            let text = String::from_utf8_lossy(&bytes);
            assert!(!text.contains(PAN) && !text.contains("\"987\""), "{path}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn escape_sequences_in_dead_letters_are_shown_and_not_obeyed() {
    let directory = TempDir::new().unwrap();
    let up = Up::start(directory.path());
    let ingest = up.addresses()["ingest"].clone();
    let hostile = "{\"user_id\":\"ann\\u001b]0;owned\\u0007\",\"note\":\"\u{9b}31m\u{202e}\"}";
    let batch = json!({"messages": [{"value": hostile, "stream": "s\u{1b}[2J", "partition": "0", "offset": "1"}]});
    post(&format!("{ingest}/v1/functions/streaming"), &batch).await;
    let shown = |args: &[&str]| {
        let output = tollgate(directory.path(), args).output().unwrap();
        assert!(output.status.success());
        String::from_utf8(output.stdout).unwrap()
    };
    let json: Value = serde_json::from_str(&shown(&["dlq", "list", "--json"])).unwrap();
    let letter = json["letter"].as_str().unwrap();
    for (args, word) in [
        (&["dlq", "list"][..], "ann"),
        (&["dlq", "show", letter], "ann"),
        (&["dlq", "drop", "--all", "--dry-run"], "ann"),
        // It is refused, with the member that is missing.
        (
            &["dlq", "redrive", "--all", "--dry-run"],
            "0 letters would be redriven",
        ),
    ] {
        let text = shown(args);
        let hidden = |c: char| c.is_control() && c != '\n' || c == '\u{202e}';
        assert!(!text.contains(hidden), "{args:?}: {text:?}");
        assert!(text.contains(word), "{args:?}: {text}");
    }
    up.stop();
}
