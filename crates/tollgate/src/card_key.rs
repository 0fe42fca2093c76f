//! The key of the tokens of card numbers, where none is configured: `up` keeps one in its data directory.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use anyhow::Context as _;
use data_encoding::HEXLOWER;
use tollgate_service::Secret;

/// Its name in the data directory.
pub(crate) const FILE: &str = "card-token.key";

/// A new key, from the randomness of the system.
///
/// # Errors
/// Where the system gives none.
pub(crate) fn new() -> anyhow::Result<Secret> {
    let mut key = [0; 32];
    File::open("/dev/urandom")
        .and_then(|mut random| random.read_exact(&mut key))
        .context("cannot read /dev/urandom")?;
    Ok(Secret::new(HEXLOWER.encode(&key)))
}

/// The key in the file, which is made where there is none, readable for its owner only.
///
/// # Errors
/// Where the file cannot be read or made, or is no key.
pub(crate) fn kept_in(directory: &Path) -> anyhow::Result<Secret> {
    let path = directory.join(FILE);
    let shown = || path.display().to_string();
    match OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&path)
    {
        Ok(mut file) => {
            let key = new()?;
            file.write_all(key.expose().as_bytes())
                .and_then(|()| file.sync_all())
                .with_context(|| format!("cannot write {}", shown()))?;
            Ok(key)
        }
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            let text = std::fs::read_to_string(&path)
                .with_context(|| format!("cannot read {}", shown()))?;
            let text = text.trim();
            anyhow::ensure!(
                text.len() >= 32,
                "{} is damaged: it must have 64 hexadecimal digits. If there is no copy of it, remove it: tokens are others then",
                shown()
            );
            Ok(Secret::new(text))
        }
        Err(error) => Err(error).with_context(|| format!("cannot make {}", shown())),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    #[test]
    fn the_key_is_made_once_for_its_owner_only_and_a_damaged_one_is_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let key = kept_in(dir.path()).unwrap();
        assert_eq!(key.expose().len(), 64);
        assert_eq!(kept_in(dir.path()).unwrap(), key);
        assert_ne!(new().unwrap(), key);
        let path = dir.path().join(FILE);
        assert_eq!(path.metadata().unwrap().mode() & 0o777, 0o600);
        std::fs::write(&path, "x").unwrap();
        assert!(
            kept_in(dir.path())
                .unwrap_err()
                .to_string()
                .contains("is damaged")
        );
    }
}
