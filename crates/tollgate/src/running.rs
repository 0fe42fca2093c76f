//! The data directory of `tollgate up`: its lock, and `up.json`, the file by which other commands find the process.
//!
//! Invariant: `up.json` counts only while a process holds the lock. The kernel releases the lock of a process that was
//! killed, so a file that it left behind is ignored.

use std::fs::{File, Permissions, TryLockError};
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use tollgate_service::files::open_no_link;

/// The file with the addresses.
const FILE: &str = "up.json";
/// The file that is locked.
const LOCK: &str = "lock";
/// How long `up` waits for a lock that is held. A command that looks for a running `up` holds it for a moment.
const LOCK_WAIT: Duration = Duration::from_millis(500);
const LOCK_RETRY: Duration = Duration::from_millis(20);

/// Where a running `tollgate up` listens: the content of `up.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RunningUp {
    /// Its process.
    pub(crate) pid: u32,
    /// URL of the ingest API.
    pub(crate) ingest: String,
    /// URL of the read API.
    pub(crate) persistence: String,
    /// URLs of the admin ports.
    pub(crate) admin: AdminUrls,
    /// Whether it is one for trials: ingest listens on loopback, the store is SQLite, and alerts go to the console and files
    /// only. `tollgate load` writes made-up transactions to no other without being asked.
    #[serde(default)]
    pub(crate) local: bool,
    /// Brokers of its log, `host:port,…`, where other processes can reach it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) brokers: Option<String>,
}

/// URL of each service's admin port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct AdminUrls {
    pub(crate) ingest: String,
    pub(crate) scorer: String,
    pub(crate) persistence: String,
    pub(crate) notifier: String,
}

impl RunningUp {
    /// The `up` that works in this directory, if one does.
    ///
    /// # Errors
    /// Where the directory cannot be read, or the process is not ready and has not written its addresses yet.
    pub(crate) fn find(directory: &Path) -> anyhow::Result<Option<Self>> {
        let lock = match File::open(directory.join(LOCK)) {
            Ok(lock) => lock,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => {
                return Err(error)
                    .with_context(|| format!("cannot read {}", directory.join(LOCK).display()));
            }
        };
        match lock.try_lock_shared() {
            // No process holds it. Dropping `lock` releases it.
            Ok(()) => return Ok(None),
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(error)) => {
                return Err(error)
                    .with_context(|| format!("cannot lock {}", directory.join(LOCK).display()));
            }
        }
        let path = directory.join(FILE);
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => anyhow::bail!(
                "the `tollgate up` in {} is not ready yet; try again in a moment",
                directory.display()
            ),
            Err(error) => {
                return Err(error).with_context(|| format!("cannot read {}", path.display()));
            }
        };
        let running = serde_json::from_slice(&text)
            .with_context(|| format!("{} has no addresses of a running `up`", path.display()))?;
        Ok(Some(running))
    }
}

/// Neither settings nor this directory name a log.
pub(crate) fn no_log_here(directory: &Path) -> anyhow::Error {
    anyhow::anyhow!(
        "no `tollgate up` runs in this directory ({} is not in use) and kafka.brokers is not set: run the command where \
         `up` runs, or set TOLLGATE_KAFKA__BROKERS=host:port,…",
        directory.display()
    )
}

/// The URL at which a listener is reached from this machine.
pub(crate) fn local_url(scheme: &str, listener: SocketAddr) -> String {
    let ip = match listener.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    format!("{scheme}://{}", SocketAddr::new(ip, listener.port()))
}

/// The data directory of this process. Dropping it removes `up.json` and releases the lock, in this order.
#[derive(Debug)]
pub(crate) struct DataDirectory {
    path: PathBuf,
    /// This process has made it, and nothing was accepted yet: after a start that failed the place is as it was.
    is_temporary: bool,
    /// Held as long as the directory is in use.
    _lock: File,
}

impl DataDirectory {
    /// Makes the directory where it does not exist, and locks it: two processes on the same files would each see half of
    /// the records.
    ///
    /// # Errors
    /// Where another process holds the lock, or the directory cannot be written.
    pub(crate) fn lock(path: PathBuf) -> anyhow::Result<Self> {
        let is_new = !path.exists();
        std::fs::create_dir_all(&path)
            .with_context(|| format!("cannot make the directory {}", path.display()))?;
        if !is_new {
            refuse_what_others_left(&path)?;
        }
        // Also where an earlier version made it: payments are in the files.
        if let Err(error) = std::fs::set_permissions(&path, Permissions::from_mode(0o700)) {
            // A volume may belong to another user, and be writable all the same.
            tracing::warn!(%error, path = %path.display(), "the data directory may be readable for others");
        }
        let file = path.join(LOCK);
        let mut options = File::options();
        let lock = open_no_link(options.create(true).write(true), &file)
            .with_context(|| format!("cannot make {}", file.display()))?;
        let deadline = Instant::now() + LOCK_WAIT;
        loop {
            match lock.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) if Instant::now() < deadline => {
                    std::thread::sleep(LOCK_RETRY);
                }
                Err(TryLockError::WouldBlock) => anyhow::bail!(
                    "another process works in {}; stop it, or start this one in another directory",
                    path.display()
                ),
                Err(TryLockError::Error(error)) => {
                    return Err(error).with_context(|| format!("cannot lock {}", file.display()));
                }
            }
        }
        // Of a process that was killed.
        remove(&path.join(FILE))?;
        Ok(Self {
            path,
            is_temporary: is_new,
            _lock: lock,
        })
    }

    /// From now on it stays, also if this process has made it.
    pub(crate) fn keep(&mut self) {
        self.is_temporary = false;
    }

    /// Its path.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// A path in it.
    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Writes `up.json`.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub(crate) fn publish(&self, running: &RunningUp) -> anyhow::Result<()> {
        let (path, partial) = (self.path.join(FILE), self.path.join("up.json.partial"));
        let text = serde_json::to_vec_pretty(running)?;
        // Renamed into place, so that no reader gets half of it.
        std::fs::write(&partial, text)
            .and_then(|()| std::fs::rename(&partial, &path))
            .with_context(|| format!("cannot write {}", path.display()))
    }
}

impl Drop for DataDirectory {
    fn drop(&mut self) {
        if let Err(error) = remove(&self.path.join(FILE)) {
            tracing::warn!(%error, "up.json was left behind");
        }
        if self.is_temporary
            && let Err(error) = remove_whole(&self.path)
        {
            tracing::warn!(%error, path = %self.path.display(), "the data directory of a failed start was left behind");
        }
    }
}

/// Removes a directory in which services that are ending may still make files.
fn remove_whole(path: &Path) -> std::io::Result<()> {
    let deadline = Instant::now() + LOCK_WAIT;
    loop {
        match std::fs::remove_dir_all(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(_) if Instant::now() < deadline => std::thread::sleep(LOCK_RETRY),
            result => return result,
        }
    }
}

/// A directory that others could write to may have links in it that lead to files of this user, or files that others can
/// read.
fn refuse_what_others_left(path: &Path) -> anyhow::Result<()> {
    let cannot = || format!("cannot read the directory {}", path.display());
    let metadata = path.metadata().with_context(cannot)?;
    let mode = metadata.mode() & 0o777;
    if mode & 0o022 == 0 {
        return Ok(());
    }
    for entry in std::fs::read_dir(path).with_context(cannot)? {
        let entry = entry.with_context(cannot)?;
        let found = entry.metadata().with_context(cannot)?;
        let wrong = if found.is_symlink() {
            "a symbolic link"
        } else if found.uid() != metadata.uid() {
            "a file of another user"
        } else {
            continue;
        };
        anyhow::bail!(
            "{} could be written by others (mode {mode:o}), and {} is {wrong}: remove it, or the directory",
            path.display(),
            entry.path().display()
        );
    }
    tracing::warn!(
        path = %path.display(),
        mode = format!("{mode:o}"),
        "the data directory could be written by others; from now on it is for its owner only (mode 700)"
    );
    Ok(())
}

fn remove(path: &Path) -> anyhow::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn running() -> RunningUp {
        let url = |port| local_url("http", SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)));
        RunningUp {
            pid: 7,
            ingest: url(8080),
            persistence: url(8082),
            admin: AdminUrls {
                ingest: url(9101),
                scorer: url(9102),
                persistence: url(9103),
                notifier: url(9104),
            },
            local: true,
            brokers: None,
        }
    }

    #[test]
    fn a_running_up_is_found_from_when_it_is_ready_until_it_ends() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data");
        assert_eq!(RunningUp::find(&path).unwrap(), None);
        let mut directory = DataDirectory::lock(path.clone()).unwrap();
        directory.keep();
        let early = RunningUp::find(&path).unwrap_err().to_string();
        assert!(early.contains("not ready yet"), "{early}");
        directory.publish(&running()).unwrap();
        let found = RunningUp::find(&path).unwrap();
        assert_eq!(
            found.as_ref().map(|up| &*up.ingest),
            Some("http://127.0.0.1:8080")
        );
        assert_eq!(found, Some(running()));
        drop(directory);
        assert_eq!(RunningUp::find(&path).unwrap(), None);
        assert!(!path.join(FILE).exists());
    }

    #[test]
    fn a_file_that_a_killed_up_left_behind_is_ignored_and_removed_by_the_next() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().to_owned();
        let directory = DataDirectory::lock(path.clone()).unwrap();
        directory.publish(&running()).unwrap();
        let left = std::fs::read(path.join(FILE)).unwrap();
        drop(directory);
        std::fs::write(path.join(FILE), left).unwrap();
        assert_eq!(RunningUp::find(&path).unwrap(), None);
        let _next = DataDirectory::lock(path.clone()).unwrap();
        assert!(!path.join(FILE).exists());
    }

    #[test]
    fn a_directory_that_others_could_write_to_is_closed_and_refused_with_a_link_in_it() {
        let dir = tempfile::tempdir().unwrap();
        let open = || std::fs::set_permissions(dir.path(), Permissions::from_mode(0o777)).unwrap();
        open();
        std::fs::write(dir.path().join("journal.db"), "").unwrap();
        drop(DataDirectory::lock(dir.path().to_owned()).unwrap());
        assert_eq!(dir.path().metadata().unwrap().mode() & 0o777, 0o700);
        let link = dir.path().join("alerts.ndjson");
        std::os::unix::fs::symlink("/etc/passwd", &link).unwrap();
        // In a directory of its owner only, a link is its owner's.
        drop(DataDirectory::lock(dir.path().to_owned()).unwrap());
        open();
        let refused = DataDirectory::lock(dir.path().to_owned()).unwrap_err();
        let refused = refused.to_string();
        assert!(
            refused.contains("777") && refused.contains("alerts.ndjson"),
            "{refused}"
        );
        assert_eq!(dir.path().metadata().unwrap().mode() & 0o777, 0o777);
    }

    #[test]
    fn only_a_directory_that_was_made_is_removed_again() {
        let dir = tempfile::tempdir().unwrap();
        drop(DataDirectory::lock(dir.path().to_owned()).unwrap());
        assert!(dir.path().exists());
        let new = dir.path().join("data");
        let directory = DataDirectory::lock(new.clone()).unwrap();
        std::fs::write(directory.join("journal.db"), "").unwrap();
        drop(directory);
        assert!(!new.exists());
        let mut directory = DataDirectory::lock(new.clone()).unwrap();
        directory.keep();
        drop(directory);
        assert!(new.join(LOCK).exists());
    }

    #[test]
    fn a_second_process_is_refused_and_the_first_one_is_not_disturbed() {
        let dir = tempfile::tempdir().unwrap();
        let first = DataDirectory::lock(dir.path().to_owned()).unwrap();
        first.publish(&running()).unwrap();
        let refused = DataDirectory::lock(dir.path().to_owned()).unwrap_err();
        assert!(refused.to_string().contains("another process"), "{refused}");
        assert_eq!(RunningUp::find(dir.path()).unwrap(), Some(running()));
    }
}
