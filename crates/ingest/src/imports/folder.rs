//! The objects of a `file://` source: files below a folder.
//!
//! Invariant: no file outside the folder is read. Each part of an object's name is opened in the directory before it without
//! following a symbolic link, so that a link that somebody puts there, also between two steps, leads nowhere.

use std::fs::{File, Metadata};
use std::io::{self, ErrorKind};
use std::ops::Range;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::PathBuf;
use std::time::UNIX_EPOCH;

use axum::body::Bytes;
use object_store::path::Path;
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;

/// The name by which the errors of local files are known.
pub(super) const STORE: &str = "LocalFileSystem";

/// A folder of objects.
#[derive(Debug, Clone)]
pub(super) struct Folder {
    directory: PathBuf,
    /// The same as the prefix of its objects' paths.
    root: Path,
}

impl Folder {
    pub(super) const fn new(directory: PathBuf, root: Path) -> Self {
        Self { directory, root }
    }

    /// Size and version of an object.
    pub(super) fn head(&self, path: &Path) -> object_store::Result<(u64, String)> {
        let (_, metadata) = self.open(path)?;
        Ok((metadata.len(), version(&metadata)))
    }

    /// A range of an object, if it has this version.
    pub(super) fn read(
        &self,
        path: &Path,
        range: Range<u64>,
        expected: Option<&str>,
    ) -> object_store::Result<Bytes> {
        let (file, metadata) = self.open(path)?;
        let found = version(&metadata);
        if expected.is_some_and(|expected| expected != found) {
            return Err(object_store::Error::Precondition {
                path: path.to_string(),
                source: "the file has changed".into(),
            });
        }
        let end = range.end.min(metadata.len());
        let length = usize::try_from(end.saturating_sub(range.start)).unwrap_or_default();
        let mut bytes = vec![0; length];
        file.read_exact_at(&mut bytes, range.start)
            .map_err(|error| failure(path, error))?;
        Ok(bytes.into())
    }

    fn open(&self, path: &Path) -> object_store::Result<(File, Metadata)> {
        self.open_below(path).map_err(|error| failure(path, error))
    }

    fn open_below(&self, path: &Path) -> io::Result<(File, Metadata)> {
        let parts = path
            .prefix_match(&self.root)
            .ok_or_else(|| io::Error::from(ErrorKind::InvalidInput))?;
        // The folder is the operator's choice, and may be a link.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let mut opened = openat(
            CWD,
            &self.directory,
            flags | OFlags::DIRECTORY,
            Mode::empty(),
        )?;
        for part in parts {
            // Without waiting for the writer of a pipe.
            let flags = flags | OFlags::NOFOLLOW | OFlags::NONBLOCK;
            opened =
                openat(&opened, part.as_ref(), flags, Mode::empty()).map_err(
                    |error| match error {
                        Errno::LOOP => io::Error::new(
                            ErrorKind::PermissionDenied,
                            "its name leads through a symbolic link, which is not followed",
                        ),
                        other => other.into(),
                    },
                )?;
        }
        let file = File::from(opened);
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(io::Error::new(ErrorKind::InvalidInput, "it is no file"));
        }
        Ok((file, metadata))
    }
}

/// The version of a file, as the crate `object_store` writes it: an import that it began can be continued.
fn version(metadata: &Metadata) -> String {
    let modified = metadata.modified().ok();
    let modified = modified.and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    format!(
        "\"{:x}-{:x}-{:x}\"",
        metadata.ino(),
        modified.unwrap_or_default().as_micros(),
        metadata.len()
    )
}

fn failure(path: &Path, error: io::Error) -> object_store::Error {
    if error.kind() == ErrorKind::NotFound {
        return object_store::Error::NotFound {
            path: path.to_string(),
            source: error.into(),
        };
    }
    object_store::Error::Generic {
        store: STORE,
        source: error.into(),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use tempfile::TempDir;

    use super::*;

    fn folder(directory: &TempDir) -> Folder {
        let root = Path::from_absolute_path(directory.path()).unwrap();
        Folder::new(directory.path().to_owned(), root)
    }

    fn path(directory: &TempDir, name: &str) -> Path {
        let root = Path::from_absolute_path(directory.path()).unwrap();
        Path::parse(format!("{root}/{name}")).unwrap()
    }

    #[test]
    fn a_file_below_the_folder_is_read_in_ranges_and_in_one_version() {
        let directory = TempDir::new().unwrap();
        std::fs::create_dir(directory.path().join("in 1%")).unwrap();
        let file = directory.path().join("in 1%/ä.csv");
        std::fs::write(&file, "0123456789").unwrap();
        let (folder, path) = (folder(&directory), path(&directory, "in 1%/ä.csv"));
        let (size, version) = folder.head(&path).unwrap();
        assert_eq!(size, 10);
        let read = folder.read(&path, 2..5, Some(&version)).unwrap();
        assert_eq!(&*read, b"234");
        std::fs::write(&file, "0123456789x").unwrap();
        assert!(matches!(
            folder.read(&path, 2..5, Some(&version)),
            Err(object_store::Error::Precondition { .. })
        ));
        std::fs::remove_file(&file).unwrap();
        assert!(matches!(
            folder.head(&path),
            Err(object_store::Error::NotFound { .. })
        ));
    }

    #[test]
    fn no_link_is_followed_and_nothing_but_a_file_is_read() {
        let (outside, directory) = (TempDir::new().unwrap(), TempDir::new().unwrap());
        std::fs::write(outside.path().join("secret.csv"), "secret").unwrap();
        symlink(outside.path(), directory.path().join("linked")).unwrap();
        symlink(
            outside.path().join("secret.csv"),
            directory.path().join("a.csv"),
        )
        .unwrap();
        std::fs::create_dir(directory.path().join("b.csv")).unwrap();
        let folder = folder(&directory);
        for name in ["a.csv", "linked/secret.csv", "b.csv"] {
            let refused = folder.head(&path(&directory, name));
            assert!(refused.is_err(), "{name}");
            assert!(folder.read(&path(&directory, name), 0..6, None).is_err());
        }
        let elsewhere = path(&outside, "secret.csv");
        assert!(folder.head(&elsewhere).is_err());
    }
}
