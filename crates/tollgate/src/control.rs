//! `tollgate score --control FILE`: the changes of the control topic as the lines of a file, and markers among transactions.

use std::path::Path;

use anyhow::Context as _;
use data_encoding::HEXLOWER_PERMISSIVE;
use serde::Deserialize;
use serde_json::value::RawValue;
use tollgate_engine::{Control, Engine, MarkerOutcome};
use tollgate_service::terminal::printable;
use tollgate_types::Rejection;

/// The changes, and whether one of them has stopped the partition.
pub(crate) struct ControlFile {
    control: Control,
    stopped: bool,
}

/// A record that puts changes in force.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Marker {
    change: u64,
    hash: Option<[u8; 32]>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MarkerRecord<'a> {
    #[serde(borrow)]
    tollgate: &'a RawValue,
}

#[derive(Deserialize)]
struct MarkerMembers {
    change: u64,
    #[serde(default)]
    hash: Option<String>,
}

impl ControlFile {
    /// Reads the changes: line N, from 0, is change N. One that cannot be read stops the partition once a marker reaches it.
    pub(crate) fn read(path: &Path) -> anyhow::Result<Self> {
        let bytes = std::fs::read(path).with_context(|| format!("--control {}", path.display()))?;
        let mut control = Control::default();
        let bytes = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
        if !bytes.is_empty() {
            for line in bytes.split(|byte| *byte == b'\n') {
                control.append(line);
            }
        }
        Ok(Self {
            control,
            stopped: false,
        })
    }

    /// Whether nothing may be decided any more.
    pub(crate) const fn is_stopped(&self) -> bool {
        self.stopped
    }

    /// The marker on a line, if it is one by its only member.
    pub(crate) fn marker(line: &[u8]) -> Option<Result<Marker, Rejection>> {
        let record: MarkerRecord<'_> = serde_json::from_slice(line).ok()?;
        let wrong = |reason: &'static str| Err(Rejection::new("tollgate", reason));
        let Ok(members) = serde_json::from_str::<MarkerMembers>(record.tollgate.get()) else {
            return Some(wrong("a marker is {\"change\":N,\"hash\":\"…\"}"));
        };
        let hash = members.hash.map(|hash| {
            let bytes = HEXLOWER_PERMISSIVE.decode(hash.as_bytes()).ok()?;
            <[u8; 32]>::try_from(bytes).ok()
        });
        Some(match hash {
            // What is no hash is not that of the change.
            Some(None) => wrong("unknown_change: the hash is not that of the change"),
            Some(Some(hash)) => Ok(Marker {
                change: members.change,
                hash: Some(hash),
            }),
            None => Ok(Marker {
                change: members.change,
                hash: None,
            }),
        })
    }

    /// Puts the changes up to a marker's in force.
    ///
    /// # Errors
    /// A marker that no scorer wrote.
    #[expect(clippy::print_stderr, reason = "this is the command's output")]
    pub(crate) fn pass(
        &mut self,
        line: u64,
        marker: &Marker,
        engine: &mut Engine,
    ) -> Result<(), Rejection> {
        if self.stopped {
            return Ok(());
        }
        let outcome = self
            .control
            .pass_marker(marker.change, marker.hash.as_ref(), engine);
        match outcome {
            MarkerOutcome::InForce | MarkerOutcome::NothingNew => Ok(()),
            MarkerOutcome::UnknownChange => Err(Rejection::new(
                "tollgate",
                "unknown_change: there is no such change, or the hash is another's",
            )),
            MarkerOutcome::Stopped { change, reason } => {
                let reason = reason.to_string();
                eprintln!(
                    "tollgate: change {change} cannot be applied: {}; nothing is decided after the marker on line {line}, and \
                     null stands for each decision",
                    printable(&reason)
                );
                self.stopped = true;
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_marker_is_recognised_by_its_only_member() {
        let marker = |line: &str| ControlFile::marker(line.as_bytes());
        let found = marker(r#" {"tollgate": {"change": 7}} "#).unwrap().unwrap();
        assert_eq!((found.change, found.hash), (7, None));
        let hash = "Ab".repeat(32);
        let found = marker(&format!(r#"{{"tollgate":{{"change":0,"hash":"{hash}"}}}}"#));
        assert_eq!(found.unwrap().unwrap().hash, Some([0xab; 32]));
        for other in [
            r#"{"tollgate": {"change": 7}, "amount": 1}"#,
            r#"{"transaction_id": "tollgate"}"#,
            "[]",
            "",
        ] {
            assert!(marker(other).is_none(), "{other}");
        }
        for wrong in [
            r#"{"tollgate": 7}"#,
            r#"{"tollgate": {"change": -1}}"#,
            r#"{"tollgate": {}}"#,
            r#"{"tollgate": {"change": 1, "hash": "ab"}}"#,
        ] {
            assert!(marker(wrong).unwrap().is_err(), "{wrong}");
        }
    }
}
