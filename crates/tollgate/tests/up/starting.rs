//! A start that fails says why, and leaves nothing behind.

use std::net::TcpListener;
use std::path::Path;
use std::process::Stdio;

use tempfile::TempDir;

use crate::support::{Up, tollgate};

/// What an `up` that does not start prints as its error.
fn refused(directory: &Path, settings: &[(&str, &str)]) -> String {
    let mut command = tollgate(directory, &["up"]);
    for (name, value) in settings {
        command.env(format!("TOLLGATE_{name}"), value);
    }
    let output = command.stderr(Stdio::piped()).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success(), "{said}");
    said
}

#[test]
fn a_failed_start_leaves_no_directory_behind_and_names_the_setting() {
    let directory = TempDir::new().unwrap();
    let directory = directory.path();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for setting in [
        "INGEST__LISTEN",
        "INGEST__ADMIN_LISTEN",
        "PERSISTENCE__LISTEN",
        "SCORER__ADMIN_LISTEN",
        "NOTIFIER__ADMIN_LISTEN",
    ] {
        let said = refused(directory, &[(setting, &address)]);
        let name = setting.to_lowercase().replace("__", ".");
        assert!(said.contains(&name) && said.contains(&address), "{said}");
        assert!(!directory.join("tollgate-data").exists(), "{setting}");
    }
}

#[test]
fn a_journal_at_an_unusable_path_is_no_missing_journal() {
    let directory = TempDir::new().unwrap();
    let directory = directory.path();
    let up = Up::start(directory);
    up.addresses();
    up.stop();
    std::fs::write(directory.join("file"), "").unwrap();
    for path in ["file/journal.db", "nowhere/journal.db"] {
        let said = refused(directory, &[("KAFKA__JOURNAL", path)]);
        assert!(said.contains(path), "{said}");
        assert!(!said.contains("is missing beside a store"), "{said}");
    }
    // A journal that was removed is one.
    std::fs::remove_file(directory.join("tollgate-data/journal.db")).unwrap();
    let mut command = tollgate(directory, &["up"]);
    let up = Up::of(command.stderr(std::fs::File::create(directory.join("log")).unwrap()));
    up.addresses();
    up.stop();
    let log = std::fs::read_to_string(directory.join("log")).unwrap();
    assert!(log.contains("is missing beside a store"), "{log}");
}

#[test]
fn alerts_are_not_written_through_a_symbolic_link() {
    let directory = TempDir::new().unwrap();
    let directory = directory.path();
    let other = directory.join("other");
    std::fs::write(&other, "untouched").unwrap();
    std::fs::create_dir(directory.join("tollgate-data")).unwrap();
    std::os::unix::fs::symlink(&other, directory.join("tollgate-data/alerts.ndjson")).unwrap();
    let said = refused(directory, &[]);
    assert!(
        said.contains("alerts.ndjson") && said.contains("symbolic link"),
        "{said}"
    );
    assert_eq!(std::fs::read_to_string(&other).unwrap(), "untouched");
}
