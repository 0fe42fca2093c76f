//! What an entry says.

use serde::{Deserialize, Serialize};
use tollgate_types::Timestamp;

use super::chain::Head;

/// The action of the retention, and the name under which its entry has the head of what was removed.
const RETENTION: &str = "audit retention";
const ANCHOR: &str = "anchor";

/// One access to personal data. It holds ids as they were given, and no amounts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditEvent {
    /// When.
    pub time: Timestamp,
    /// The name of the caller's key, or the user of the operating system for a command.
    pub caller: String,
    /// The tenant whose data the caller may read; empty for the default tenant, `*` for all of them.
    pub tenant: String,
    /// The address of the caller, without port; empty for a command.
    pub peer: String,
    /// Method and route, such as `GET /v1/users/{user_id}/summary`, or the command, such as `user erase`.
    pub action: String,
    /// Names and values that say whose data was asked for, in their order.
    pub asked: Vec<(String, String)>,
    /// The HTTP status of the answer; of a command 200, or 500 if it failed.
    pub status: u16,
    /// How many rows the answer has, or how many the command changed.
    pub rows: u64,
}

impl AuditEvent {
    /// The entry of the retention, which removes the entries up to this head.
    pub(super) fn of_retention(anchor: Head, time: Timestamp) -> Self {
        Self {
            time,
            caller: "tollgate".to_owned(),
            tenant: "*".to_owned(),
            peer: String::new(),
            action: RETENTION.to_owned(),
            asked: vec![(ANCHOR.to_owned(), anchor.to_string())],
            status: 200,
            rows: 0,
        }
    }

    /// Whether the text of an entry can be read, and was made before this time.
    pub(super) fn was_before(text: &str, time: Timestamp) -> bool {
        serde_json::from_str::<Self>(text).is_ok_and(|event| event.time < time)
    }

    /// The head of what was removed, in the text of an entry of the retention.
    pub(super) fn anchor_in(text: &str) -> Option<Head> {
        if !text.contains(RETENTION) {
            return None;
        }
        let event: Self = serde_json::from_str(text).ok()?;
        let of_retention = event.action == RETENTION;
        let (_, anchor) = event
            .asked
            .iter()
            .find(|(name, _)| of_retention && name == ANCHOR)?;
        anchor.parse().ok()
    }

    /// The text that is hashed and stored.
    pub(super) fn text(&self) -> String {
        // Texts and numbers can always be serialised.
        serde_json::to_string(self).unwrap_or_default()
    }
}
