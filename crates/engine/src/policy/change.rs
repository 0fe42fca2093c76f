//! Changes: the records of the control topic, and which of them a marker puts in force.
//!
//! Invariant: what becomes of a marker is a function of the changes before it and of the markers before it in its partition.

use std::sync::Arc;

use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use tollgate_policy::{Policy, check};
use tollgate_types::{Timestamp, TimestampError, UserIdCase, stored_id};

use crate::Engine;

/// A change that can be applied.
#[derive(Debug, Clone)]
pub enum Change {
    /// A policy comes into force, unless another came first.
    Policy {
        /// The checked policy.
        policy: Arc<Policy>,
        /// Its document.
        document: Arc<str>,
        /// The change of the policy that it replaces; `None` for the built-in one.
        expects: Option<u64>,
    },
    /// Entries of a list; those to be removed are removed first.
    List {
        /// The list.
        name: String,
        /// Values that are removed.
        remove: Vec<String>,
        /// Values that are added or replaced, with the instant from which they no longer count.
        add: Vec<(String, Option<Timestamp>)>,
    },
    /// A rule or built-in indicator is switched off for a user, for timestamps before an instant.
    Suppression {
        /// The rule.
        rule: String,
        /// The user, in the form in which ids are used.
        user_id: String,
        /// The instant.
        until: Timestamp,
    },
    /// Of a kind that decides nothing here.
    Nothing,
}

/// Why a record is no change that this version can apply.
#[derive(Debug, thiserror::Error)]
pub enum UnreadableChange {
    /// It is not JSON, or lacks a member.
    #[error("it is malformed: {0}")]
    Malformed(#[from] serde_json::Error),
    /// Its kind is unknown here; perhaps a later version knows it.
    #[error("its kind is {0:?}, which this version does not know")]
    Kind(String),
    /// The document of a policy does not check.
    #[error("its document has {faults} faults, the first in line {line}: {first}")]
    Faults {
        /// How many.
        faults: usize,
        /// The line of the first.
        line: usize,
        /// What is wrong there.
        first: String,
    },
    /// The hash is not that of the document.
    #[error("its document has the hash {0}, and it names another")]
    Hash(String),
    /// A time cannot be read.
    #[error("a time in it: {0}")]
    Time(#[from] TimestampError),
}

#[derive(Deserialize)]
struct Kind {
    kind: String,
}

#[derive(Deserialize)]
struct PolicyRecord {
    document: String,
    hash: String,
    #[serde(default)]
    expects: Option<u64>,
}

#[derive(Deserialize)]
struct ListRecord {
    name: String,
    #[serde(default)]
    remove: Vec<String>,
    #[serde(default)]
    add: Vec<EntryRecord>,
}

#[derive(Deserialize)]
struct EntryRecord {
    value: String,
    #[serde(default)]
    expires_at: Option<String>,
}

#[derive(Deserialize)]
struct SuppressionRecord {
    rule: String,
    user_id: String,
    until: String,
}

impl Change {
    /// Reads a record of the control topic. A policy is checked and compiled.
    ///
    /// # Errors
    /// Why it cannot be applied.
    pub fn parse(bytes: &[u8]) -> Result<Self, UnreadableChange> {
        let Kind { kind } = serde_json::from_slice(bytes)?;
        match kind.as_str() {
            "policy" => Self::policy(serde_json::from_slice(bytes)?),
            "list" => Self::list(serde_json::from_slice(bytes)?),
            "suppression" => {
                let record: SuppressionRecord = serde_json::from_slice(bytes)?;
                Ok(Self::Suppression {
                    rule: record.rule,
                    user_id: stored_id(&record.user_id, UserIdCase::Keep),
                    until: Timestamp::parse(&record.until)?,
                })
            }
            "model" | "profiles" => Ok(Self::Nothing),
            _ => Err(UnreadableChange::Kind(kind)),
        }
    }

    fn policy(record: PolicyRecord) -> Result<Self, UnreadableChange> {
        let report = check(&record.document);
        let Some(policy) = report.policy else {
            let first = report.faults.first();
            return Err(UnreadableChange::Faults {
                faults: report.faults.len(),
                line: first.map_or(0, |fault| fault.line),
                first: first.map_or_else(String::new, |fault| fault.message.clone()),
            });
        };
        let hash = policy.hash.to_string();
        if hash != record.hash {
            return Err(UnreadableChange::Hash(hash));
        }
        Ok(Self::Policy {
            policy: Arc::new(policy),
            document: record.document.into(),
            expects: record.expects,
        })
    }

    fn list(record: ListRecord) -> Result<Self, UnreadableChange> {
        let mut add = Vec::with_capacity(record.add.len());
        for entry in record.add {
            let expires_at = entry.expires_at.as_deref().filter(|text| !text.is_empty());
            let expires_at = expires_at.map(Timestamp::parse).transpose()?;
            add.push((entry.value, expires_at));
        }
        Ok(Self::List {
            name: record.name,
            remove: record.remove,
            add,
        })
    }
}

/// The changes of the control topic so far, by their numbers.
#[derive(Debug, Default)]
pub struct Control {
    changes: Vec<(Result<Change, UnreadableChange>, [u8; 32])>,
}

/// What became of a marker.
#[derive(Debug)]
pub enum MarkerOutcome<'c> {
    /// All changes up to it are in force.
    InForce,
    /// They were before.
    NothingNew,
    /// No scorer wrote it: there is no such change, or the hash is not the change's.
    UnknownChange,
    /// A change up to it cannot be read: nothing may be decided behind the marker.
    Stopped {
        /// The change.
        change: u64,
        /// Why.
        reason: &'c UnreadableChange,
    },
}

impl Control {
    /// Appends the next record of the topic and returns its number.
    pub fn append(&mut self, bytes: &[u8]) -> u64 {
        let hash = Sha256::digest(bytes).into();
        self.changes.push((Change::parse(bytes), hash));
        self.changes.len() as u64 - 1
    }

    /// Applies the changes up to a marker's to an engine that has read everything before the marker. `hash` is the
    /// SHA-256 of the change's record as the marker names it; without one, the number alone counts.
    ///
    /// An engine that a change has stopped must not be used again.
    pub fn pass_marker(
        &self,
        number: u64,
        hash: Option<&[u8; 32]>,
        engine: &mut Engine,
    ) -> MarkerOutcome<'_> {
        let next = engine.next_change();
        if number < next {
            return MarkerOutcome::NothingNew;
        }
        let found = usize::try_from(number)
            .ok()
            .and_then(|at| self.changes.get(at));
        let Some((_, digest)) = found else {
            return MarkerOutcome::UnknownChange;
        };
        if hash.is_some_and(|hash| hash != digest) {
            return MarkerOutcome::UnknownChange;
        }
        for (change, (parsed, _)) in (0..=number).zip(&self.changes) {
            if change < next {
                continue;
            }
            match parsed {
                Ok(parsed) => engine.apply(change, parsed),
                Err(reason) => return MarkerOutcome::Stopped { change, reason },
            }
        }
        MarkerOutcome::InForce
    }
}
