//! A transaction to be sent.

use serde::Serialize;

use super::Location;
use crate::{Amount, Timestamp};

/// A transaction to be sent, as load generators and tests build it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct NewTransaction {
    /// Unique within the user.
    pub transaction_id: String,
    /// The key of the stream.
    pub user_id: String,
    /// Printed as a decimal string, which is exact in every reader.
    pub amount: Amount,
    /// Event time.
    pub timestamp: Timestamp,
    /// Where it took place.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub location: Option<Location>,
    /// Any other member.
    #[serde(flatten)]
    pub extra: serde_json::Map<String, serde_json::Value>,
}

impl NewTransaction {
    /// The transaction as JSON text.
    #[must_use]
    pub fn to_json(&self) -> String {
        // Nothing in it can fail to serialise: all keys are strings, all floats finite or printed as null.
        serde_json::to_string(self).unwrap_or_default()
    }
}
