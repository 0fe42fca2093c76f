//! Appends one decision a line to a file, and syncs it before it counts as delivered.
//!
//! Invariant: every delivered alert is on a line of its own. A line that a crash or a full disk cut off is ended before the
//! next is written; a file that was rotated or removed is created again.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::{Failure, blocking};
use crate::alert::Alert;

#[derive(Debug)]
pub(crate) struct FileSink {
    path: PathBuf,
    open: Arc<Mutex<Option<File>>>,
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
        let written = self.with_file(move |file| {
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
        write: impl FnOnce(&mut File) -> io::Result<()> + Send + 'static,
    ) -> io::Result<()> {
        let (path, open) = (self.path.clone(), Arc::clone(&self.open));
        blocking(move || {
            let mut open = open.lock().unwrap_or_else(PoisonError::into_inner);
            // Kept open only after a whole line: after a failure the next open ends the cut-off line.
            let mut file = match open.take() {
                Some(file) if is_still_at(&file, &path)? => file,
                _ => open_whole(&path)?,
            };
            write(&mut file)?;
            *open = Some(file);
            Ok(())
        })
        .await
    }
}

/// Whether the path still names this file.
fn is_still_at(file: &File, path: &Path) -> io::Result<bool> {
    let here = file.metadata()?;
    match std::fs::metadata(path) {
        Ok(there) => Ok((here.dev(), here.ino()) == (there.dev(), there.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Opens for appending, and ends the last line if it was cut off.
fn open_whole(path: &Path) -> io::Result<File> {
    let is_new = !path.exists();
    let mut file = OpenOptions::new()
        .create(true)
        .append(true)
        .read(true)
        .open(path)?;
    if is_new {
        // A new file survives a power failure only after its directory was synced.
        let parent = path
            .parent()
            .filter(|parent| !parent.as_os_str().is_empty());
        File::open(parent.unwrap_or(Path::new(".")))?.sync_all()?;
        return Ok(file);
    }
    let metadata = file.metadata()?;
    // A pipe or a terminal has no end to look at.
    if metadata.is_file() && metadata.len() > 0 {
        let mut last = [0];
        file.seek(SeekFrom::End(-1))?;
        file.read_exact(&mut last)?;
        if last != *b"\n" {
            tracing::warn!(path = %path.display(), "the last line of the file was cut off; it is ended here");
            file.write_all(b"\n")?;
        }
    }
    Ok(file)
}
