//! `tollgate dlq` on the log of an `up`, which has no address: through the running process, and on its journal.

use std::path::Path;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{Up, tollgate};

/// Standard output of `tollgate dlq …`, which succeeds.
fn dlq(directory: &Path, args: &[&str]) -> String {
    let output = tollgate(directory, &[&["dlq"], args].concat())
        .output()
        .unwrap();
    assert!(output.status.success(), "dlq {args:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn open_letters(directory: &Path) -> Vec<String> {
    let listed = dlq(directory, &["list", "--json"]);
    let letter = |line: &str| {
        let letter: Value = serde_json::from_str(line).unwrap();
        letter["letter"].as_str().unwrap().to_owned()
    };
    listed.lines().map(letter).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_of_an_up_are_listed_shown_and_dropped_whether_or_not_it_runs() {
    let directory = TempDir::new().unwrap();
    let directory = directory.path();
    let up = Up::start(directory);
    let ingest = up.addresses()["ingest"].clone();
    let send = async || {
        let batch = json!({ "messages": [{ "value": "no transaction" }, { "value": "nor this" }] });
        let sent = reqwest::Client::new()
            .post(format!("{ingest}/v1/functions/streaming"))
            .json(&batch)
            .send();
        assert!(sent.await.unwrap().status().is_success());
    };
    send().await;
    let letters = open_letters(directory);
    assert_eq!(letters.len(), 2, "{letters:?}");
    // Ingest has given them up, and is named so everywhere.
    assert!(
        letters.iter().all(|letter| letter.starts_with("ingest/")),
        "{letters:?}"
    );
    for (stage, count) in [("ingest", 2), ("scorer", 0), ("notifier", 0)] {
        let listed = dlq(directory, &["list", "--json", "--stage", stage]);
        assert_eq!(listed.lines().count(), count, "{stage}: {listed}");
    }
    let shown = dlq(directory, &["show", &letters[0]]);
    assert!(shown.contains("read from functions\n"), "{shown}");
    assert!(
        shown.contains(&format!("letter   {}", letters[0])),
        "{shown}"
    );
    let raw = dlq(directory, &["show", "--raw", &letters[0]]);
    let payloads = [r#"{"value":"no transaction"}"#, r#"{"value":"nor this"}"#];
    assert!(payloads.contains(&raw.as_str()), "{raw}");
    assert_eq!(dlq(directory, &["drop", &letters[0]]), "1 letter dropped\n");
    assert_eq!(open_letters(directory), letters[1..]);

    // What fails there fails here, with the same words.
    let failed = tollgate(directory, &["dlq", "show", &letters[0]])
        .stderr(std::process::Stdio::piped())
        .output()
        .unwrap();
    let text = String::from_utf8(failed.stderr).unwrap();
    assert!(
        !failed.status.success() && text.contains("there is no open letter"),
        "{text}"
    );

    // The file has each letter once, and what the drop wrote.
    up.stop();
    let archive = std::fs::read_to_string(directory.join("tollgate-data/dead-letters.ndjson"));
    let archived = archive.unwrap();
    for payload in ["no transaction", "nor this"] {
        assert_eq!(archived.matches(payload).count(), 1, "{archived}");
    }

    // Without a process the journal itself is worked on; a stop or a kill makes no difference.
    assert_eq!(open_letters(directory), letters[1..]);
    let up = Up::start(directory);
    up.addresses();
    assert_eq!(open_letters(directory), letters[1..]);
    up.kill();
    assert_eq!(dlq(directory, &["drop", "--all"]), "1 letter dropped\n");
    assert_eq!(dlq(directory, &["list"]), "no open dead letters\n");
}

#[test]
fn without_an_up_and_without_brokers_dlq_says_what_to_set() {
    let directory = TempDir::new().unwrap();
    let refused = tollgate(directory.path(), &["dlq", "list"])
        .stderr(std::process::Stdio::piped())
        .output()
        .unwrap();
    let text = String::from_utf8(refused.stderr).unwrap();
    assert!(
        !refused.status.success() && text.contains("kafka.brokers"),
        "{text}"
    );
    assert!(!directory.path().join("tollgate-data").exists());
}
