//! The programs of the workspace as processes: found, started, listened to, stopped.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use tempfile::TempDir;

use crate::wait;

/// How the programs are built.
const BUILD: &str = "cargo build --profile fast --workspace --bins";
/// How long a service may take to print its addresses, on a busy machine.
const START: Duration = Duration::from_secs(30);
/// How long it may take to end; its own grace period is 20 s.
const STOP: Duration = Duration::from_secs(40);
/// Lines of a service's log that a failed test shows.
const TAIL: usize = 40;

/// The path of a program of this workspace, built in the same profile as the test.
///
/// # Errors
/// Where it is not built, or older than its sources.
pub fn binary(name: &str) -> anyhow::Result<PathBuf> {
    let test = std::env::current_exe()?;
    // target/fast/deps/e2e-0123 or target/release/harness
    let dir = test
        .ancestors()
        .skip(1)
        .find(|dir| !dir.ends_with("deps"))
        .context("no target directory")?;
    let path = dir.join(name);
    let built = path
        .metadata()
        .and_then(|metadata| metadata.modified())
        .map_err(|_| anyhow::anyhow!("{} is not built; run: {BUILD}", path.display()))?;
    // Cargo lists the sources of a program beside it.
    let listed = std::fs::read_to_string(path.with_extension("d")).unwrap_or_default();
    let sources = listed.split_once(": ").map_or("", |(_, sources)| sources);
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .context("no workspace")?;
    for source in sources.split_whitespace().map(Path::new) {
        anyhow::ensure!(
            source.starts_with(root),
            "{} was built from {}; run: {BUILD}",
            path.display(),
            source.display()
        );
        let newer = source
            .metadata()
            .and_then(|metadata| metadata.modified())
            .is_ok_and(|changed| changed > built);
        anyhow::ensure!(
            !newer,
            "{} is older than {}; run: {BUILD}",
            path.display(),
            source.display()
        );
    }
    Ok(path)
}

/// Removes every setting of the caller's environment.
pub fn without_settings(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("TOLLGATE_") {
            command.env_remove(name);
        }
    }
}

/// A service in a process of its own. Dropping it kills it, and shows the end of its log if the test fails.
#[derive(Debug)]
pub struct Service {
    name: String,
    child: Child,
    log: PathBuf,
    /// Whether the end of the log is of interest when the service is dropped.
    shows_log: bool,
    _dir: TempDir,
    addresses: Arc<Mutex<HashMap<String, String>>>,
}

impl Service {
    /// Starts a program with these settings. It runs in a folder of its own.
    ///
    /// # Errors
    /// Where it cannot be started.
    pub fn spawn(name: &str, settings: &[(String, String)]) -> anyhow::Result<Self> {
        Self::spawn_logging(name, settings, None)
    }

    /// As [`Service::spawn`], with its log appended to a file, of which nothing is shown.
    ///
    /// # Errors
    /// Where it cannot be started.
    pub fn spawn_logging(
        name: &str,
        settings: &[(String, String)],
        log: Option<&Path>,
    ) -> anyhow::Result<Self> {
        let shows_log = log.is_none();
        let dir = tempfile::tempdir()?;
        let log = log.map_or_else(|| dir.path().join("log"), Path::to_owned);
        let written = File::options().create(true).append(true).open(&log)?;
        let mut command = Command::new(binary(name)?);
        without_settings(&mut command);
        let mut child = command
            .envs(settings.iter().map(|(name, value)| (name, value)))
            .current_dir(dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(written)
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        let addresses = Arc::new(Mutex::new(HashMap::new()));
        if let Some(stdout) = child.stdout.take() {
            let found = Arc::clone(&addresses);
            // Ends with the process.
            std::thread::spawn(move || {
                for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                    if let Some((what, address)) = line
                        .split_once(": ")
                        .filter(|(_, rest)| rest.starts_with("http://"))
                    {
                        let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
                        found.insert(what.to_owned(), address.to_owned());
                    }
                }
            });
        }
        Ok(Self {
            name: name.to_owned(),
            child,
            log,
            shows_log,
            _dir: dir,
            addresses,
        })
    }

    /// The address that it printed as `what: http://…`.
    ///
    /// # Errors
    /// Where it does not print one, or ends.
    pub async fn address(&mut self, what: &str) -> anyhow::Result<String> {
        wait::until(START, &format!("the address of {what}"), async || {
            if let Some(address) = self.known_address(what) {
                return Ok(Some(address));
            }
            self.ensure_running()?;
            Ok(None)
        })
        .await
    }

    /// Waits until `/readyz` answers that it is ready, and it has printed its address, if it has one.
    ///
    /// # Errors
    /// Where it does not within `limit`, with its last reasons.
    pub async fn ready(&mut self, limit: Duration) -> anyhow::Result<()> {
        let service = self.short_name().to_owned();
        if matches!(service.as_str(), "ingest" | "persistence") {
            self.address(&service).await?;
        }
        let url = format!("{}/readyz", self.admin().await?);
        let mut last = String::new();
        let waited = wait::until(limit, "readiness", async || {
            self.ensure_running()?;
            let answer = reqwest::get(&url).await?;
            let ready = answer.status().is_success();
            last = answer.text().await?;
            Ok(ready.then_some(()))
        });
        let result = waited.await;
        result.with_context(|| format!("{}: {last}", self.name))
    }

    fn short_name(&self) -> &str {
        self.name.strip_prefix("tollgate-").unwrap_or(&self.name)
    }

    /// The address of its probes and metrics.
    ///
    /// # Errors
    /// Where it does not print one.
    pub async fn admin(&mut self) -> anyhow::Result<String> {
        let what = format!("{} admin", self.short_name());
        self.address(&what).await
    }

    /// The answer of `/readyz`.
    ///
    /// # Errors
    /// Where it does not answer.
    pub async fn readiness(&mut self) -> anyhow::Result<serde_json::Value> {
        let url = format!("{}/readyz", self.admin().await?);
        Ok(reqwest::get(url).await?.json().await?)
    }

    /// A metric, summed over its labels, or over those of a label too: `name{label="value"`; zero where it is not
    /// there.
    ///
    /// # Errors
    /// Where it does not answer.
    pub async fn metric(&mut self, metric: &str) -> anyhow::Result<f64> {
        let text = reqwest::get(format!("{}/metrics", self.admin().await?))
            .await?
            .text()
            .await?;
        let values = text.lines().filter_map(|line| {
            let rest = line
                .strip_prefix(metric)
                .filter(|rest| rest.starts_with([' ', '{', ',', '}']))?;
            rest.rsplit(' ').next()?.parse::<f64>().ok()
        });
        Ok(values.sum())
    }

    /// The address that it has printed as `what: http://…`, if it has.
    #[must_use]
    pub fn known_address(&self, what: &str) -> Option<String> {
        let addresses = self
            .addresses
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        addresses.get(what).cloned()
    }

    /// Makes sure that it has not ended.
    ///
    /// # Errors
    /// Where it has, with its status.
    pub fn ensure_running(&mut self) -> anyhow::Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => anyhow::bail!("{} ended with {status}", self.name),
        }
    }

    /// The number of its process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends SIGTERM, as Kubernetes does to stop it.
    ///
    /// # Errors
    /// Where the signal cannot be sent.
    pub fn terminate(&mut self) -> anyhow::Result<()> {
        self.signal("TERM")
    }

    /// Sends it a signal, by its name without SIG.
    ///
    /// # Errors
    /// Where it cannot be sent.
    pub fn signal(&self, signal: &str) -> anyhow::Result<()> {
        let pid = self.pid().to_string();
        let status = Command::new("sh")
            .args(["-c", "kill -\"$1\" \"$2\"", "sh", signal, &pid])
            .status()?;
        anyhow::ensure!(status.success(), "cannot send SIG{signal} to {}", self.name);
        Ok(())
    }

    /// Kills it with SIGKILL, and waits until it is gone.
    ///
    /// # Errors
    /// Where it cannot be killed.
    pub fn kill(mut self) -> anyhow::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Waits until it has ended by itself.
    ///
    /// # Errors
    /// Where it does not within `limit`.
    pub async fn ended(&mut self, limit: Duration) -> anyhow::Result<ExitStatus> {
        let what = format!("the end of {}", self.name);
        wait::until(limit, &what, async || Ok(self.child.try_wait()?)).await
    }

    /// Stops it with SIGTERM. It must end well.
    ///
    /// # Errors
    /// Where it does not.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        self.terminate()?;
        let status = self.ended(STOP).await?;
        self.ended_well(status)
    }

    fn ended_well(&self, status: ExitStatus) -> anyhow::Result<()> {
        let name = &self.name;
        anyhow::ensure!(status.success(), "{name} ended with {status} after SIGTERM");
        Ok(())
    }

    /// Whether it has ended after SIGTERM.
    ///
    /// # Errors
    /// Where it did not end well.
    pub fn has_stopped(&mut self) -> anyhow::Result<bool> {
        match self.child.try_wait()? {
            Some(status) => self.ended_well(status).map(|()| true),
            None => Ok(false),
        }
    }

    /// What it has logged.
    ///
    /// # Errors
    /// Where the log cannot be read.
    pub fn log(&self) -> anyhow::Result<String> {
        Ok(String::from_utf8_lossy(&std::fs::read(&self.log)?).into_owned())
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if !self.shows_log {
            return;
        }
        // The test runner shows this only where the test fails.
        let log = self.log().unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        if lines.is_empty() {
            return;
        }
        eprintln!("--- {}: the last of {} lines", self.name, lines.len());
        for line in &lines[lines.len().saturating_sub(TAIL)..] {
            eprintln!("{line}");
        }
    }
}
