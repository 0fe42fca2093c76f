//! A `tollgate up` in a directory of the test's own.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

pub(crate) const DEADLINE: Duration = Duration::from_secs(60);
/// The last address that `up` prints.
const LAST_ADDRESS: &str = "notifier admin: ";

/// `tollgate` in a directory of the test's own, without the settings of the user who runs the test.
pub(crate) fn tollgate(directory: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tollgate"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("TOLLGATE_") {
            command.env_remove(name);
        }
    }
    for listener in [
        "INGEST__LISTEN",
        "PERSISTENCE__LISTEN",
        "INGEST__ADMIN_LISTEN",
        "SCORER__ADMIN_LISTEN",
        "PERSISTENCE__ADMIN_LISTEN",
        "NOTIFIER__ADMIN_LISTEN",
    ] {
        command.env(format!("TOLLGATE_{listener}"), "127.0.0.1:0");
    }
    command
        .args(args)
        .current_dir(directory)
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    command
}

/// A running `up`. Killed when it is dropped.
pub(crate) struct Up {
    child: Child,
    lines: mpsc::Receiver<String>,
}

impl Up {
    pub(crate) fn start(directory: &Path) -> Self {
        Self::of(&mut tollgate(directory, &["up"]))
    }

    pub(crate) fn of(command: &mut Command) -> Self {
        let mut child = command.spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (send, lines) = mpsc::channel();
        // Alerts follow the addresses, and have a reader as long as it runs.
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                let _ = send.send(line);
            }
        });
        Self { child, lines }
    }

    /// The addresses, by their names, once it is ready.
    pub(crate) fn addresses(&self) -> BTreeMap<String, String> {
        let deadline = Instant::now() + DEADLINE;
        let mut addresses = BTreeMap::new();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let line = self.lines.recv_timeout(left).unwrap();
            if let Some((name, url)) = line.split_once(": http") {
                addresses.insert(name.to_owned(), format!("http{url}"));
            }
            if line.starts_with(LAST_ADDRESS) {
                return addresses;
            }
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub(crate) fn stop(mut self) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args(["-TERM", &pid]).status();
        assert!(sent.unwrap().success());
        let deadline = Instant::now() + DEADLINE;
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(Instant::now() < deadline, "it does not stop");
            std::thread::yield_now();
        };
        assert!(status.success(), "{status}");
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
