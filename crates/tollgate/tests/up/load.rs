//! `tollgate load`: where it sends, what it asks before, and what it says of failures.

use std::path::Path;
use std::process::Stdio;

use tempfile::TempDir;

use crate::support::{Up, tollgate};

/// What `load` says, and whether it succeeds.
fn load(dir: &Path, args: &[&str]) -> (bool, String) {
    let usual = &["load", "--rate", "20", "--duration", "1s"];
    let mut command = tollgate(dir, &[usual, args].concat());
    let output = command.stderr(Stdio::piped()).output().unwrap();
    let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    (output.status.success(), said)
}

#[test]
fn load_says_where_it_sends_and_asks_before_it_writes_into_an_up_that_others_use() {
    let dir = TempDir::new().unwrap();
    let (_, said) = load(dir.path(), &["--url", "http://127.0.0.1:1"]);
    assert!(
        said.contains("cannot connect to http://127.0.0.1:1/"),
        "{said}"
    );
    assert!(!said.contains("p50"), "{said}");

    let up = Up::start(dir.path());
    let ingest = up.addresses()["ingest"].clone();
    let (well, said) = load(dir.path(), &[]);
    assert!(well && said.contains(&format!("to {ingest}")), "{said}");
    assert!(said.contains("are decided, stored and alerted"), "{said}");
    up.stop();

    let sinks = r#"[{"kind":"webhook","url":"http://127.0.0.1:1/","secret":"whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}]"#;
    let mut command = tollgate(dir.path(), &["up"]);
    let up = Up::of(command.env("TOLLGATE_NOTIFIER__SINKS", sinks));
    let ingest = up.addresses()["ingest"].clone();
    let (well, said) = load(dir.path(), &[]);
    assert!(
        !well && said.contains("--yes") && said.contains("--url"),
        "{said}"
    );
    for consent in [&["--yes"][..], &["--url", &ingest]] {
        let (well, said) = load(dir.path(), consent);
        assert!(well, "{said}");
    }
}

#[test]
fn load_names_and_counts_what_was_not_accepted() {
    use std::io::Read as _;

    let dir = TempDir::new().unwrap();
    // A server that answers no request: it closes each connection when the request has begun.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let _ = stream.unwrap().read(&mut [0; 64]);
        }
    });
    let (well, said) = load(dir.path(), &["--url", &url]);
    assert!(
        !well && said.contains("connection closed without an answer 20"),
        "{said}"
    );
    assert!(
        said.contains("nothing was accepted") && !said.contains("p99"),
        "{said}"
    );
}
