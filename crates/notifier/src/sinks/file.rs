//! Appends one decision a line to a file, and syncs it before it counts as delivered.
//!
//! Invariant: every delivered alert stands on a line of its own, and once. What a crash or a full disk cut off is ended
//! with a line feed before anything is written behind it, and a file that was rotated or removed is made anew. An alert
//! that was written right before a crash is not in the delivery log and comes again: it is found at the end of the file.

use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use serde::Deserialize;
use serde_json::value::RawValue;
use tollgate_service::files::{metadata_no_link, open_no_link};
use tollgate_types::Transaction;

use super::{Failure, blocking};
use crate::alert::{Alert, AlertKey};

/// How much of the end of a file is searched for alerts: far more than a sink has in flight at a crash.
const TAIL_BYTES: u64 = 1024 * 1024;

#[derive(Debug)]
pub(crate) struct FileSink {
    path: PathBuf,
    open: Arc<Mutex<Option<OpenFile>>>,
}

#[derive(Debug)]
struct OpenFile {
    file: File,
    /// Alerts that stood at its end when it was opened.
    tail: HashSet<AlertKey>,
}

impl FileSink {
    pub(super) async fn open(path: PathBuf) -> io::Result<Self> {
        let sink = Self {
            path,
            open: Arc::default(),
        };
        sink.with_file(|_| Ok(())).await?;
        Ok(sink)
    }

    pub(super) async fn deliver(&self, alert: &Arc<Alert>) -> Result<(), Failure> {
        let line = format!("{}\n", alert.json);
        let key = alert.key.clone();
        let written = self.with_file(move |OpenFile { file, tail }| {
            if tail.remove(&key) {
                return Ok(());
            }
            file.write_all(line.as_bytes())?;
            // A pipe or a terminal cannot be synced.
            if file.metadata()?.is_file() {
                file.sync_data()?;
            }
            Ok(())
        });
        written
            .await
            .map_err(|error| Failure::retry(format!("{}: {error}", self.path.display())))
    }

    async fn with_file(
        &self,
        write: impl FnOnce(&mut OpenFile) -> io::Result<()> + Send + 'static,
    ) -> io::Result<()> {
        let (path, open) = (self.path.clone(), Arc::clone(&self.open));
        blocking(move || {
            let mut open = open.lock().unwrap_or_else(PoisonError::into_inner);
            // The lock keeps `tollgate user erase` from replacing the file between the look at its path and the write.
            // It is put back only after a whole line: whatever failed, the next opening mends the end.
            let mut opened = match open.take() {
                Some(open) => open,
                None => open_whole(&path)?,
            };
            lock(&opened.file)?;
            while !is_still_at(&opened.file, &path)? {
                opened = open_whole(&path)?;
                lock(&opened.file)?;
            }
            write(&mut opened)?;
            opened.file.unlock()?;
            *open = Some(opened);
            Ok(())
        })
        .await
    }
}

/// Locks a file until it is unlocked or closed. A pipe or a terminal cannot be replaced, and is not locked.
fn lock(file: &File) -> io::Result<()> {
    if file.metadata()?.is_file() {
        file.lock()?;
    }
    Ok(())
}

/// Whether the path still names this file.
fn is_still_at(file: &File, path: &Path) -> io::Result<bool> {
    let here = file.metadata()?;
    match metadata_no_link(path) {
        Ok(there) => Ok((here.dev(), here.ino()) == (there.dev(), there.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Opens for appending, with the last line ended.
fn open_whole(path: &Path) -> io::Result<OpenFile> {
    let is_new = !path.exists();
    let mut options = OpenOptions::new();
    // For its owner only: alerts have payments in them. One that exists keeps its mode.
    options.create(true).mode(0o600).append(true).read(true);
    let mut file = open_no_link(&mut options, path)?;
    if is_new {
        // A new file survives a power failure only after its directory was synced.
        let parent = path
            .parent()
            .filter(|parent| !parent.as_os_str().is_empty());
        File::open(parent.unwrap_or(Path::new(".")))?.sync_all()?;
        let tail = HashSet::new();
        return Ok(OpenFile { file, tail });
    }
    let metadata = file.metadata()?;
    let mut tail = HashSet::new();
    // A pipe or a terminal has no end to look at.
    if metadata.is_file() && metadata.len() > 0 {
        let mut end = Vec::new();
        file.seek(SeekFrom::Start(metadata.len().saturating_sub(TAIL_BYTES)))?;
        file.read_to_end(&mut end)?;
        tail = alerts_in(&end);
        if end.last() != Some(&b'\n') {
            tracing::warn!(path = %path.display(), "the last line of the file was cut off; it is ended here");
            file.write_all(b"\n")?;
        }
        // What is found counts as delivered, so it must be on disk.
        file.sync_data()?;
    }
    Ok(OpenFile { file, tail })
}

/// The alerts of these lines. A line that is none, or that was cut off, is passed over.
fn alerts_in(lines: &[u8]) -> HashSet<AlertKey> {
    #[derive(Deserialize)]
    struct Ids<'a> {
        user_id: String,
        transaction_id: String,
        #[serde(default)]
        tenant: String,
        #[serde(default)]
        conflict: bool,
        #[serde(borrow, default)]
        transaction: Option<&'a RawValue>,
    }
    let ids = |line| serde_json::from_slice::<Ids<'_>>(line).ok();
    let found = lines.split(|byte| *byte == b'\n').filter_map(ids);
    found
        .map(|ids| {
            let made = ids.transaction.filter(|_| ids.conflict);
            let made = made.and_then(|made| Transaction::parse(made.get().as_bytes()).ok());
            AlertKey {
                user_id: ids.user_id,
                transaction_id: ids.transaction_id,
                tenant: ids.tenant,
                conflict_amount: made.map_or_else(String::new, |made| made.amount_and_currency()),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conflicts_over_one_amount_in_two_currencies_are_two_alerts() {
        let line = |currency: &str| {
            format!(
                r#"{{"user_id":"u","transaction_id":"t","conflict":true,"transaction":{{"transaction_id":"t","user_id":"u","amount":"900","timestamp":"2026-03-01T12:00:00Z","currency":"{currency}"}}}}"#
            )
        };
        let lines = [line("EUR"), line("KWD"), line("eur")].join("\n");
        let mut amounts: Vec<String> = alerts_in(lines.as_bytes())
            .into_iter()
            .map(|key| key.conflict_amount)
            .collect();
        amounts.sort_unstable();
        assert_eq!(amounts, ["900 EUR", "900 KWD"]);
    }
}
