//! What the topic `imports` says: which objects were asked for, how far each came, how it ended. Pure.
//!
//! The log is the only memory of an import. Whoever gets a partition reads it from the beginning and knows what is left
//! to do, and from which row on. A request whose import is known already changes nothing.

use std::borrow::Cow;
use std::collections::HashMap;

use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tollgate_types::JsonError;

/// A record of the topic, under the import's id as its key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "import", rename_all = "lowercase")]
pub(crate) enum Entry {
    /// An event told of the object.
    Requested(Request),
    /// So many rows are on the log, or among the dead letters.
    Progress(Progress),
    /// All of them are.
    Done(Progress),
    /// It will not be read any further, unless another event asks for it.
    Failed(Failure),
}

/// Why an import ended before its object did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Failure {
    pub(crate) reason: String,
    #[serde(flatten)]
    pub(crate) progress: Progress,
}

/// An object to read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Request {
    pub(crate) id: String,
    pub(crate) bucket: String,
    pub(crate) object: String,
    /// The event that asked for it first.
    pub(crate) event_id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) traceparent: Option<String>,
}

impl Request {
    /// An import is one version of one object: another version is another one.
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
        }
    }
}

/// How far an import came.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Progress {
    pub(crate) id: String,
    /// Rows that are settled, from the beginning of the object.
    pub(crate) rows: u64,
    pub(crate) accepted: u64,
    pub(crate) rejected: u64,
    /// The store's own word for the object's version, once it was opened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) version: Option<String>,
}

impl Entry {
    pub(crate) fn id(&self) -> &str {
        match self {
            Self::Requested(request) => &request.id,
            Self::Progress(progress) | Self::Done(progress) => &progress.id,
            Self::Failed(failure) => &failure.progress.id,
        }
    }

    pub(crate) fn to_json(&self) -> Vec<u8> {
        // Text and numbers can always be written.
        serde_json::to_vec(self).unwrap_or_default()
    }
}

/// What is known of one partition.
#[derive(Debug, Default)]
pub(super) struct Journal {
    imports: HashMap<String, State>,
    /// In the order in which they were asked for.
    open: Vec<String>,
}

#[derive(Debug)]
enum State {
    Open(Request, Progress),
    Done,
    /// By the event that asked for it, and how far it came.
    Failed(String, Progress),
}

impl Journal {
    /// Takes a record of the partition, in the order of the log.
    pub(super) fn apply(&mut self, payload: &[u8]) -> Result<(), Cow<'static, str>> {
        let entry: Entry = serde_json::from_slice(payload)
            .map_err(|error| format!("no import: {}", JsonError::from(&error)))?;
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
            // Whatever was wrong may have been mended since; the same event may only have come twice.
            (Entry::Requested(request), Some(State::Failed(event, progress)))
                if request.event_id != event =>
            {
                self.open.push(id.clone());
                State::Open(request, progress)
            }
            // An owner that does not know yet that it is none may be behind.
            (Entry::Progress(new), Some(State::Open(request, progress)))
                if new.rows > progress.rows =>
            {
                State::Open(request, new)
            }
            (Entry::Done(_), _) => {
                self.open.retain(|open| *open != id);
                State::Done
            }
            (Entry::Failed(_), Some(State::Done)) => State::Done,
            (Entry::Failed(failure), known) => {
                self.open.retain(|open| *open != id);
                let event = match known {
                    Some(State::Open(request, _)) => request.event_id,
                    Some(State::Failed(event, _)) => event,
                    Some(State::Done) | None => String::new(),
                };
                State::Failed(event, failure.progress)
            }
            (Entry::Requested(_) | Entry::Progress(_), Some(known)) => known,
            // Of an import whose request the log holds no more.
            (Entry::Progress(_), None) => return Ok(()),
        };
        self.imports.insert(id, state);
        Ok(())
    }

    pub(super) fn is_open(&self, id: &str) -> bool {
        matches!(self.imports.get(id), Some(State::Open(..)))
    }

    /// What is to be done, oldest first, and how far it is.
    pub(super) fn open(&self) -> impl Iterator<Item = (&Request, &Progress)> {
        self.open
            .iter()
            .filter_map(|id| match self.imports.get(id)? {
                State::Open(request, progress) => Some((request, progress)),
                State::Done | State::Failed(..) => None,
            })
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
    fn an_import_goes_on_from_its_last_row_until_it_ends() {
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
    fn an_import_that_failed_is_tried_again_when_another_event_asks_for_it() {
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
        fn whatever_was_written_twice_an_import_that_is_done_stays_done(
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
