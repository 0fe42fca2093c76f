//! A file with every dead letter of the embedded log, which is kept longer than the log's retention.
//!
//! The offsets of the dead letters in the file are committed, like those of a consumer group. Invariant: every dead letter
//! is in the file at least once, and twice only if the process was killed between writing the line and the commit.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Map, Value, json};
use tollgate_log::{EmbeddedLog, Log, LogRecord, TopicReader};
use tollgate_service::Shutdown;
use tollgate_service::files::{metadata_no_link, open_no_link};

/// The thread that writes them.
pub(crate) struct DeadLetterArchive(tokio::task::JoinHandle<anyhow::Result<()>>);

impl DeadLetterArchive {
    /// Appends every dead letter to the file at `path`, one JSON object a line, until the shutdown.
    pub(crate) fn start(kafka: &Log, path: PathBuf, shutdown: Shutdown) -> anyhow::Result<Self> {
        let topics = kafka.topics();
        let reader = kafka.reader(&[
            &topics.transactions_dlq,
            &topics.decisions_dlq,
            &topics.alerts_dlq,
        ])?;
        let log = kafka.embedded().context("the log is not embedded")?.clone();
        Ok(Self(tokio::task::spawn_blocking(move || {
            write(reader, &log, &path, &shutdown)
        })))
    }

    /// Waits until the last one is written.
    pub(crate) async fn join(self) -> anyhow::Result<()> {
        self.0
            .await
            .context("the archive of dead letters has panicked")?
    }
}

/// The file in the data directory of `up`.
pub(crate) const DEAD_LETTERS: &str = "dead-letters.ndjson";

/// The consumer group under which the file's progress is committed.
const GROUP: &str = "tollgate-dead-letter-archive";

fn write(
    mut reader: TopicReader,
    log: &EmbeddedLog,
    path: &Path,
    shutdown: &Shutdown,
) -> anyhow::Result<()> {
    let cannot_write = || format!("cannot write {}", path.display());
    let mut file: Option<File> = None;
    // The offset to go on from in each partition whose letters are in the file and not committed.
    let mut written: BTreeMap<(String, i32), i64> = BTreeMap::new();
    loop {
        match reader.next(Duration::from_millis(100))? {
            Some(letter) => {
                let committed = log.committed_offset(GROUP, &letter.topic, letter.partition);
                if committed.is_some_and(|next| letter.offset < next) {
                    continue;
                }
                let file = match &mut file {
                    Some(file) => file,
                    none => {
                        let opened = open_whole(path);
                        none.insert(
                            opened.with_context(|| format!("cannot open {}", path.display()))?,
                        )
                    }
                };
                writeln!(file, "{}", entry(&letter)).with_context(cannot_write)?;
                written.insert((letter.topic, letter.partition), letter.offset + 1);
            }
            None => {
                if let (Some(file), false) = (&file, written.is_empty()) {
                    file.sync_data().with_context(cannot_write)?;
                }
                // Unlocked, so that `tollgate user erase` can write it anew.
                file = None;
                for ((topic, partition), next) in std::mem::take(&mut written) {
                    log.commit_offset(GROUP, &topic, partition, next);
                }
                if shutdown.is_begun() {
                    return Ok(());
                }
            }
        }
    }
}

/// Opens for appending, and locks the file until it is closed. A line that was cut off when the process was killed is ended.
fn open_whole(path: &Path) -> std::io::Result<File> {
    let mut options = OpenOptions::new();
    options.create(true).append(true).read(true);
    let mut file = loop {
        let file = open_no_link(&mut options, path)?;
        file.lock()?;
        // It may have been replaced while this waited for the lock.
        let (here, there) = (file.metadata()?, metadata_no_link(path));
        if there.is_ok_and(|there| (here.dev(), here.ino()) == (there.dev(), there.ino())) {
            break file;
        }
    };
    let mut last = [b'\n'];
    if file.metadata()?.len() > 0 {
        file.seek(SeekFrom::End(-1))?;
        file.read_exact(&mut last)?;
    }
    if last != [b'\n'] {
        file.write_all(b"\n")?;
    }
    Ok(file)
}

/// Text where it is text; else base64, and true.
pub(crate) fn text_or_base64(bytes: &[u8]) -> (Value, bool) {
    match std::str::from_utf8(bytes) {
        Ok(text) => (Value::from(text), false),
        Err(_) => (Value::from(BASE64_STANDARD.encode(bytes)), true),
    }
}

pub(crate) fn entry(letter: &LogRecord) -> Value {
    let optional =
        |bytes: Option<&Vec<u8>>| bytes.map_or(Value::Null, |bytes| text_or_base64(bytes).0);
    let headers: Map<String, Value> = letter
        .headers
        .iter()
        .map(|(name, value)| (name.clone(), optional(value.as_ref())))
        .collect();
    let (payload, base64) = text_or_base64(&letter.payload);
    let mut entry =
        json!({ "topic": letter.topic, "key": optional(letter.key.as_ref()), "headers": headers });
    entry[if base64 { "payload_base64" } else { "payload" }] = payload;
    entry
}
