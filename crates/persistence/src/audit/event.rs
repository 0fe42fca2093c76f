//! What an entry says.

use serde::{Deserialize, Serialize};
use tollgate_types::Timestamp;

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
    /// The text that is hashed and stored.
    pub(super) fn text(&self) -> String {
        // Texts and numbers can always be serialised.
        serde_json::to_string(self).unwrap_or_default()
    }
}
