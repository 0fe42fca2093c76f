//! The state of imports, derived from the records of a partition of the topic `imports`. No I/O.
//!
//! The topic is the only state. The instance to which a partition is assigned reads it from the beginning, and so has the
//! open imports and their progress. Invariant: a repeated request changes nothing, and an import that is done stays done.

use std::borrow::Cow;
use std::collections::HashMap;

use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tollgate_types::JsonError;

use super::status::{ImportState, ImportStatus};

/// A record of the topic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "import", rename_all = "lowercase")]
pub(crate) enum Entry {
    /// An event requested the import.
    Requested(Request),
    /// The first rows are on the log or dead-lettered.
    Progress(Progress),
    /// All rows are on the log or dead-lettered.
    Done(Progress),
    /// The import failed. Another event for the same object continues it.
    Failed(Failure),
}

/// Why an import failed, and how far it had come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Failure {
    pub(crate) reason: String,
    #[serde(flatten)]
    pub(crate) progress: Progress,
}

/// A request to import an object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Request {
    pub(crate) id: String,
    pub(crate) bucket: String,
    pub(crate) object: String,
    /// The event that requested it.
    pub(crate) event_id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) traceparent: Option<String>,
    /// The tenant that may ask about the import; the default tenant unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) tenant: Option<String>,
    /// Whether the rows are backfill whatever the source says.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) backfill: bool,
}

impl Request {
    /// The id of the import is a hash of bucket, object and version: another version is another import.
    pub(crate) fn new(bucket: &str, object: &str, version: &str, event_id: &str) -> Self {
        let mut hash = Sha256::new();
        for part in [bucket, object, version] {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        let hex = HEXLOWER.encode(&hash.finalize()[..12]);
        Self {
            id: format!("import_{hex}"),
            bucket: bucket.to_owned(),
            object: object.to_owned(),
            event_id: event_id.to_owned(),
            traceparent: None,
            tenant: None,
            backfill: false,
        }
    }

    /// The bucket and the folder of the object. The objects of a folder are imported one after the other, by the instance
    /// that has the partition of this key.
    pub(crate) fn folder(&self) -> String {
        let folder = self.object.rsplit_once('/').map(|(folder, _)| folder);
        format!("{}/{}", self.bucket, folder.unwrap_or_default())
    }
}

/// The progress of an import.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Progress {
    pub(crate) id: String,
    /// The number of rows that are on the log or dead-lettered: the first of the segment, in the order of their timestamps,
    /// and all rows before the segment.
    pub(crate) rows: u64,
    pub(crate) accepted: u64,
    pub(crate) rejected: u64,
    /// Accepted rows that are older than the history of their user, as far as the importing instance knows it.
    #[serde(default)]
    pub(crate) late: u64,
    /// How much of the object was read, in bytes.
    #[serde(default)]
    pub(crate) bytes: u64,
    /// How large it is, in bytes.
    #[serde(default)]
    pub(crate) size: u64,
    /// The rows that are being written; `None` before their first batch, and at the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) segment: Option<Segment>,
    /// The version of the object, as the store identifies it; set once the object was opened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) version: Option<String>,
}

/// Rows that are sorted together: those after the first `rows` of the object, to its end or to where it cannot be read any
/// further. With it, what was written before them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Segment {
    pub(crate) rows: u64,
    pub(crate) accepted: u64,
    pub(crate) rejected: u64,
    pub(crate) late: u64,
    /// Fingerprint of their order.
    pub(crate) order: Option<String>,
}

impl Progress {
    /// The segment that begins here.
    pub(super) fn begin(&self) -> Segment {
        Segment {
            rows: self.rows,
            accepted: self.accepted,
            rejected: self.rejected,
            late: self.late,
            order: None,
        }
    }

    /// Returns to the beginning of a segment.
    pub(super) fn return_to(&mut self, segment: &Segment) {
        self.rows = segment.rows;
        self.accepted = segment.accepted;
        self.rejected = segment.rejected;
        self.late = segment.late;
    }
}

impl Entry {
    /// The key of the record: the folder for a request, so that one instance has all of a folder, and otherwise the id.
    pub(crate) fn key(&self) -> String {
        match self {
            Self::Requested(request) => request.folder(),
            Self::Progress(_) | Self::Done(_) | Self::Failed(_) => self.id().to_owned(),
        }
    }

    pub(crate) fn id(&self) -> &str {
        match self {
            Self::Requested(request) => &request.id,
            Self::Progress(progress) | Self::Done(progress) => &progress.id,
            Self::Failed(failure) => &failure.progress.id,
        }
    }

    pub(crate) fn to_json(&self) -> Vec<u8> {
        // Strings and numbers can always be serialized.
        serde_json::to_vec(self).unwrap_or_default()
    }
}

/// The imports of one partition.
#[derive(Debug, Default)]
pub(super) struct Journal {
    imports: HashMap<String, State>,
    /// The ids of open imports, in the order of their requests.
    open: Vec<String>,
}

#[derive(Debug)]
enum State {
    Open(Request, Progress),
    /// Without the request if retention has deleted it.
    Done(Option<Request>, Progress),
    Failed(Option<Request>, Failure),
}

impl State {
    fn request(self) -> Option<Request> {
        match self {
            Self::Open(request, _) => Some(request),
            Self::Done(request, _) | Self::Failed(request, _) => request,
        }
    }
}

impl Journal {
    /// Applies a record of the partition. Records must be applied in the order of their offsets.
    ///
    /// # Errors
    /// The record is not an import. The state is unchanged.
    pub(super) fn apply(&mut self, payload: &[u8]) -> Result<(), Cow<'static, str>> {
        let entry: Entry = serde_json::from_slice(payload)
            .map_err(|error| format!("not an import record: {}", JsonError::from(&error)))?;
        let id = entry.id().to_owned();
        let known = self.imports.remove(&id);
        let state = match (entry, known) {
            (Entry::Requested(request), None) => {
                let progress = Progress {
                    id: id.clone(),
                    ..Progress::default()
                };
                self.open.push(id.clone());
                State::Open(request, progress)
            }
            // A new event: the cause may have been repaired. The same event may just be a repetition.
            (Entry::Requested(request), Some(State::Failed(before, failure)))
                if before
                    .as_ref()
                    .is_none_or(|before| request.event_id != before.event_id) =>
            {
                self.open.push(id.clone());
                State::Open(request, failure.progress)
            }
            // A previous owner that has not yet noticed the reassignment may be behind.
            (Entry::Progress(new), Some(State::Open(request, progress)))
                if (new.rows, new.bytes) > (progress.rows, progress.bytes) =>
            {
                State::Open(request, new)
            }
            (Entry::Done(progress), known) => {
                self.open.retain(|open| *open != id);
                State::Done(known.and_then(State::request), progress)
            }
            (Entry::Failed(_), Some(State::Done(request, progress))) => {
                State::Done(request, progress)
            }
            (Entry::Failed(failure), known) => {
                self.open.retain(|open| *open != id);
                State::Failed(known.and_then(State::request), failure)
            }
            (Entry::Requested(_) | Entry::Progress(_), Some(known)) => known,
            // The request of this import was deleted by retention.
            (Entry::Progress(_), None) => return Ok(()),
        };
        self.imports.insert(id, state);
        Ok(())
    }

    pub(super) fn is_open(&self, id: &str) -> bool {
        matches!(self.imports.get(id), Some(State::Open(..)))
    }

    /// The open imports with their progress, oldest first.
    pub(super) fn open(&self) -> impl Iterator<Item = (&Request, &Progress)> {
        self.open
            .iter()
            .filter_map(|id| match self.imports.get(id)? {
                State::Open(request, progress) => Some((request, progress)),
                State::Done(..) | State::Failed(..) => None,
            })
    }

    /// Every import with its request, as far as the log has it, and its progress, by its id.
    pub(super) fn status(self) -> Vec<ImportStatus> {
        let mut all: Vec<ImportStatus> = self
            .imports
            .into_iter()
            .map(|(id, state)| match state {
                State::Open(request, progress) => {
                    ImportStatus::new(id, ImportState::Open, Some(request), progress, None)
                }
                State::Done(request, progress) => {
                    ImportStatus::new(id, ImportState::Done, request, progress, None)
                }
                State::Failed(request, failure) => ImportStatus::new(
                    id,
                    ImportState::Failed,
                    request,
                    failure.progress,
                    Some(failure.reason),
                ),
            })
            .collect();
        all.sort_by(|a, b| (&a.bucket, &a.object, &a.id).cmp(&(&b.bucket, &b.object, &b.id)));
        all
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn request(object: &str) -> Request {
        Request::new("b", object, "v", "e")
    }

    fn progress(object: &str, rows: u64) -> Progress {
        Progress {
            id: request(object).id,
            rows,
            ..Progress::default()
        }
    }

    fn journal(entries: &[Entry]) -> Journal {
        let mut journal = Journal::default();
        for entry in entries {
            journal.apply(&entry.to_json()).unwrap();
        }
        journal
    }

    fn open(journal: &Journal) -> Vec<(String, u64)> {
        journal
            .open()
            .map(|(request, progress)| (request.object.clone(), progress.rows))
            .collect()
    }

    #[test]
    fn an_open_import_continues_after_its_last_row_until_it_ends() {
        let mut entries = vec![
            Entry::Requested(request("a")),
            Entry::Requested(request("b")),
            Entry::Progress(progress("b", 1_000)),
            Entry::Requested(request("b")),
            Entry::Progress(progress("b", 500)),
        ];
        assert_eq!(
            open(&journal(&entries)),
            [("a".to_owned(), 0), ("b".to_owned(), 1_000)]
        );
        entries.push(Entry::Done(progress("b", 1_500)));
        entries.push(Entry::Requested(request("b")));
        assert_eq!(open(&journal(&entries)), [("a".to_owned(), 0)]);
    }

    #[test]
    fn a_failed_import_is_retried_when_another_event_requests_it() {
        let failed = Entry::Failed(Failure {
            reason: "r".to_owned(),
            progress: progress("a", 700),
        });
        let mut entries = vec![Entry::Requested(request("a")), failed];
        entries.push(Entry::Requested(request("a")));
        assert_eq!(open(&journal(&entries)), []);
        let mut again = request("a");
        again.event_id = "another".to_owned();
        entries.push(Entry::Requested(again));
        assert_eq!(open(&journal(&entries)), [("a".to_owned(), 700)]);
    }

    #[test]
    fn the_status_of_an_import_has_its_request_its_rows_and_why_it_failed() {
        let failed = Entry::Failed(Failure {
            reason: "r".to_owned(),
            progress: progress("a", 700),
        });
        let entries = [
            Entry::Requested(request("a")),
            Entry::Requested(request("b")),
            Entry::Requested(request("c")),
            failed,
            Entry::Done(progress("b", 1_500)),
            Entry::Done(progress("of a request that is gone", 1)),
        ];
        let status = journal(&entries).status();
        let shown: Vec<_> = status
            .iter()
            .map(|import| (&*import.object, import.state, import.rows))
            .collect();
        assert_eq!(
            shown,
            [
                ("", ImportState::Done, 1),
                ("a", ImportState::Failed, 700),
                ("b", ImportState::Done, 1_500),
                ("c", ImportState::Open, 0),
            ]
        );
        assert_eq!(status[1].reason.as_deref(), Some("r"));
    }

    #[test]
    fn another_version_of_an_object_is_another_import() {
        let id = |version| Request::new("b", "o", version, "e").id;
        assert_ne!(id("1"), id("2"));
        assert_eq!(id("1"), Request::new("b", "o", "1", "another event").id);
        assert_ne!(
            Request::new("bo", "x", "", "").id,
            Request::new("b", "ox", "", "").id
        );
    }

    proptest! {
        #[test]
        fn an_import_that_is_done_stays_done_whatever_is_repeated(
            entries in prop::collection::vec((0..4_u8, 0..3_u8, 0..50_u64), 0..60)
        ) {
            let entries: Vec<Entry> = entries
                .into_iter()
                .map(|(kind, object, rows)| {
                    let object = object.to_string();
                    match kind {
                        0 => Entry::Requested(request(&object)),
                        1 => Entry::Progress(progress(&object, rows)),
                        2 => Entry::Done(progress(&object, rows)),
                        _ => Entry::Failed(Failure { reason: "r".to_owned(), progress: progress(&object, rows) }),
                    }
                })
                .collect();
            let journal = journal(&entries);
            for (request, _) in journal.open() {
                let ended = entries.iter().any(|entry| {
                    entry.id() == request.id && matches!(entry, Entry::Done(_))
                });
                prop_assert!(!ended);
            }
        }
    }
}
