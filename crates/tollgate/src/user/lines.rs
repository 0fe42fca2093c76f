//! Files of JSON lines that other processes append to: their lines about a user, read or removed.
//!
//! Invariant: no line that is appended meanwhile is lost. The file is locked, and those who append lock it too, and look
//! whether the path still names the same file before they write.

use std::fs::{File, OpenOptions};
use std::io::{BufRead as _, BufReader, BufWriter, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use anyhow::Context as _;
use serde_json::Value;
use tollgate_service::files::open_no_link;

use crate::dlq::user_in;

/// Whether a line is a decision, a transaction or a dead letter of this user.
pub(super) fn is_of(line: &[u8], tenant: &str, user_id: &str) -> bool {
    let Ok(value) = serde_json::from_slice::<Value>(line) else {
        return false;
    };
    if let Some(payload) = value.get("payload").and_then(Value::as_str) {
        let header = value.pointer("/headers/tollgate-tenant");
        let named = header.and_then(Value::as_str);
        let inner = serde_json::from_str::<Value>(payload).unwrap_or_default();
        // A payload that cannot be read has its user in the key still.
        let key = || Some(value.get("key")?.as_str()?.to_owned());
        let user = user_in(payload.as_bytes()).or_else(key);
        let named = named.or_else(|| inner.get("tenant").and_then(Value::as_str));
        return user.as_deref() == Some(user_id) && named.unwrap_or_default() == tenant;
    }
    let member = |name| value.get(name).and_then(Value::as_str);
    member("user_id") == Some(user_id) && member("tenant").unwrap_or_default() == tenant
}

/// Calls `each` with every line.
pub(super) fn each(
    path: &Path,
    mut each: impl FnMut(&[u8]) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let cannot = || format!("cannot read {}", path.display());
    let mut file = BufReader::new(File::open(path).with_context(cannot)?);
    let mut line = Vec::new();
    while file.read_until(b'\n', &mut line).with_context(cannot)? > 0 {
        each(line.trim_ascii_end())?;
        line.clear();
    }
    Ok(())
}

/// Writes the file anew without the lines that match, and returns their number.
pub(super) fn erase(path: &Path, matches: impl Fn(&[u8]) -> bool) -> anyhow::Result<u64> {
    let cannot = || format!("cannot write {}", path.display());
    let file = open_no_link(File::options().read(true), path).with_context(cannot)?;
    // Until the end of this function nothing is appended.
    file.lock().with_context(cannot)?;
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".erasing");
    let beside = path.with_file_name(name);
    let mode = file.metadata().with_context(cannot)?.mode();
    let new = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(mode & 0o777)
        .open(&beside)
        .with_context(cannot)?;
    let mut new = BufWriter::new(new);
    let mut erased = 0;
    let mut lines = BufReader::new(&file);
    let mut line = Vec::new();
    while lines.read_until(b'\n', &mut line).with_context(cannot)? > 0 {
        if matches(line.trim_ascii_end()) {
            erased += 1;
        } else {
            new.write_all(&line).with_context(cannot)?;
        }
        line.clear();
    }
    let new = new
        .into_inner()
        .map_err(std::io::IntoInnerError::into_error);
    new.with_context(cannot)?.sync_all().with_context(cannot)?;
    if erased == 0 {
        std::fs::remove_file(&beside).with_context(cannot)?;
        return Ok(0);
    }
    std::fs::rename(&beside, path).with_context(cannot)?;
    let parent = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    File::open(parent.unwrap_or(Path::new(".")))
        .and_then(|directory| directory.sync_all())
        .with_context(cannot)?;
    Ok(erased)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_lines_of_the_user_of_this_tenant_are_erased() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("alerts.ndjson");
        let letter = |user: &str| {
            let payload = format!(r#"{{\"user_id\":\"{user}\",\"amount\":-1}}"#);
            format!(
                r#"{{"topic":"transactions.dlq","key":"{user}","headers":{{}},"payload":"{payload}"}}"#
            )
        };
        let kept = [
            r#"{"user_id":"other","transaction":{"note":"u"}}"#.to_owned(),
            r#"{"user_id":"u","tenant":"shop"}"#.to_owned(),
            letter("other"),
            "not JSON, u".to_owned(),
            r#"{"user_id":"cut off"#.to_owned(),
        ];
        let of_user = [
            r#"{"user_id":"u","transaction_id":"t"}"#.to_owned(),
            letter("u"),
        ];
        let all = [&kept[..2], &of_user[..], &kept[2..]].concat().join("\n");
        std::fs::write(&path, all).unwrap();
        assert_eq!(erase(&path, |line| is_of(line, "", "u")).unwrap(), 2);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), kept.join("\n"));
        assert_eq!(erase(&path, |line| is_of(line, "", "u")).unwrap(), 0);
        assert_eq!(erase(&path, |line| is_of(line, "shop", "u")).unwrap(), 1);
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
    }
}
