//! Files of JSON lines that other processes append to: their lines about a user, read or removed.
//!
//! Invariant: no line that is appended meanwhile is lost. The file is locked, and those who append lock it too, and look
//! whether the path still names the same file before they write.

use std::fs::{File, OpenOptions};
use std::io::{BufRead as _, BufReader, BufWriter, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use anyhow::Context as _;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::Value;
use tollgate_service::files::open_no_link;

use crate::archive::text_or_base64;
use crate::dlq::{Share, share_of};

/// A user of a tenant, by the spellings of the id that are looked for.
#[derive(Debug)]
pub(super) struct Whose<'w> {
    /// Empty for the default tenant.
    pub(super) tenant: &'w str,
    pub(super) users: &'w [String],
}

/// What of a line is of a user.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum LineShare {
    /// Nothing of it.
    None,
    /// All of it.
    Whole,
    /// Some items of a dead letter that several users share: the line with these, and with the others.
    Part { theirs: Vec<u8>, others: Vec<u8> },
}

impl Whose<'_> {
    /// What of a line, a decision, a transaction or a dead letter, is of the user.
    pub(super) fn share(&self, line: &[u8]) -> LineShare {
        let Ok(value) = serde_json::from_slice::<Value>(line) else {
            return LineShare::None;
        };
        let text = |name: &str| value.get(name).and_then(Value::as_str);
        let payload = text("payload").map(|payload| payload.as_bytes().to_vec());
        // A payload that is no UTF-8.
        let coded = || BASE64_STANDARD.decode(text("payload_base64")?).ok();
        let Some(payload) = payload.or_else(coded) else {
            let is_theirs =
                self.is(text("user_id")) && text("tenant").unwrap_or_default() == self.tenant;
            return match is_theirs {
                true => LineShare::Whole,
                false => LineShare::None,
            };
        };
        if tenant_of(&value, &payload) != self.tenant {
            return LineShare::None;
        }
        match share_of(&payload, text("key").map(str::as_bytes), self.users) {
            Share::None => LineShare::None,
            Share::Whole => LineShare::Whole,
            Share::Part { theirs, others } => LineShare::Part {
                theirs: with_payload(&value, &theirs),
                others: with_payload(&value, &others),
            },
        }
    }

    fn is(&self, user_id: Option<&str>) -> bool {
        user_id.is_some_and(|user| self.users.iter().any(|known| known == user))
    }
}

/// The tenant of a dead letter, empty for the default tenant. A transaction is of the tenant in its header, whatever its
/// text says; a decision has it as a member.
fn tenant_of(letter: &Value, payload: &[u8]) -> String {
    let header = letter.pointer("/headers/tollgate-tenant");
    let is_transaction = || {
        let topic = letter.get("topic").and_then(Value::as_str);
        topic.is_some_and(|topic| topic.ends_with("transactions.dlq"))
    };
    let member = || {
        let payload = serde_json::from_slice::<Value>(payload).unwrap_or_default();
        payload
            .get("tenant")
            .and_then(Value::as_str)
            .map(str::to_owned)
    };
    match header.and_then(Value::as_str) {
        Some(tenant) => tenant.to_owned(),
        None if is_transaction() => String::new(),
        None => member().unwrap_or_default(),
    }
}

fn with_payload(letter: &Value, payload: &[u8]) -> Vec<u8> {
    let mut letter = letter.clone();
    if let Some(members) = letter.as_object_mut() {
        members.remove("payload");
        members.remove("payload_base64");
        let (payload, is_coded) = text_or_base64(payload);
        let name = if is_coded {
            "payload_base64"
        } else {
            "payload"
        };
        members.insert(name.to_owned(), payload);
    }
    letter.to_string().into_bytes()
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

/// Writes the file anew without what is of the user, and returns the number of lines that were changed.
pub(super) fn erase(path: &Path, whose: &Whose<'_>) -> anyhow::Result<u64> {
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
        let share = whose.share(line.trim_ascii_end());
        erased += u64::from(share != LineShare::None);
        match share {
            LineShare::None => new.write_all(&line).with_context(cannot)?,
            LineShare::Whole => {}
            LineShare::Part { mut others, .. } => {
                others.push(b'\n');
                new.write_all(&others).with_context(cannot)?;
            }
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
            // What a caller says of the tenant means nothing, and a payload that is no UTF-8 has the user in the key.
            letter("u").replace(
                "\\\"amount\\\":",
                "\\\"tenant\\\":\\\"shop\\\",\\\"amount\\\":",
            ),
            r#"{"topic":"transactions.dlq","key":"u","headers":{},"payload_base64":"/w=="}"#
                .to_owned(),
        ];
        let all = [&kept[..2], &of_user[..], &kept[2..]].concat().join("\n");
        std::fs::write(&path, all).unwrap();
        let users = ["u".to_owned()];
        let of = |tenant| Whose {
            tenant,
            users: &users,
        };
        assert_eq!(erase(&path, &of("")).unwrap(), of_user.len() as u64);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), kept.join("\n"));
        assert_eq!(erase(&path, &of("")).unwrap(), 0);
        assert_eq!(erase(&path, &of("shop")).unwrap(), 1);
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn of_a_letter_that_users_share_only_their_own_items_are_exported_and_erased() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("dead-letters.ndjson");
        let line = |items: &[&str]| {
            let items: Vec<String> = items
                .iter()
                .map(|user| format!("\u{1e}{{\"user_id\":\"{user}\"}}\n"))
                .collect();
            serde_json::json!({"topic": "t-transactions.dlq", "key": null, "headers": {}, "payload": items.concat()})
                .to_string()
        };
        std::fs::write(&path, line(&["a", "b", "a "]) + "\n").unwrap();
        let users = ["a".to_owned()];
        let whose = Whose {
            tenant: "",
            users: &users,
        };
        let shared = std::fs::read(&path).unwrap();
        let LineShare::Part { theirs, .. } = whose.share(shared.trim_ascii_end()) else {
            panic!("it is shared");
        };
        assert_eq!(String::from_utf8(theirs).unwrap(), line(&["a", "a "]));
        assert_eq!(erase(&path, &whose).unwrap(), 1);
        let left = std::fs::read_to_string(&path).unwrap();
        assert_eq!(left, line(&["b"]) + "\n");
        assert_eq!(erase(&path, &whose).unwrap(), 0);
    }
}
