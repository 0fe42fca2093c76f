//! Dead letters of the embedded log, kept in a file: the log itself is gone when the process ends.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Map, Value, json};
use tollgate_log::{Kafka, LogRecord, TopicReader};
use tollgate_service::Shutdown;

/// The thread that writes them.
pub(crate) struct DeadLetterArchive(tokio::task::JoinHandle<anyhow::Result<()>>);

impl DeadLetterArchive {
    /// Appends every dead letter to the file at `path`, one JSON object a line, until the shutdown.
    pub(crate) fn start(kafka: &Kafka, path: PathBuf, shutdown: Shutdown) -> anyhow::Result<Self> {
        let topics = kafka.topics();
        let reader = kafka.reader(&[
            &topics.transactions_dlq,
            &topics.decisions_dlq,
            &topics.alerts_dlq,
        ])?;
        Ok(Self(tokio::task::spawn_blocking(move || {
            write(reader, &path, &shutdown)
        })))
    }

    /// Waits until the last one is written.
    pub(crate) async fn join(self) -> anyhow::Result<()> {
        self.0
            .await
            .context("the archive of dead letters has panicked")?
    }
}

fn write(mut reader: TopicReader, path: &Path, shutdown: &Shutdown) -> anyhow::Result<()> {
    let mut file: Option<File> = None;
    loop {
        match reader.next(Duration::from_millis(100))? {
            Some(letter) => {
                let open = || OpenOptions::new().create(true).append(true).open(path);
                let file = match &mut file {
                    Some(file) => file,
                    none => none
                        .insert(open().with_context(|| format!("cannot open {}", path.display()))?),
                };
                writeln!(file, "{}", entry(&letter))
                    .with_context(|| format!("cannot write {}", path.display()))?;
            }
            None if shutdown.is_begun() => return Ok(()),
            None => {}
        }
    }
}

/// Text where it is text; else base64, and true.
pub(crate) fn text_or_base64(bytes: &[u8]) -> (Value, bool) {
    match std::str::from_utf8(bytes) {
        Ok(text) => (Value::from(text), false),
        Err(_) => (Value::from(BASE64_STANDARD.encode(bytes)), true),
    }
}

fn entry(letter: &LogRecord) -> Value {
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
