//! Section `persistence.audit`.

use serde::{Deserialize, Serialize};
use tollgate_service::Secret;

/// Section `persistence.audit`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AuditConfig {
    /// Whether reads of personal data are audited.
    pub mode: AuditMode,
    /// Entries older than this are removed, once a newer entry names the head of what is removed. Unset: they are kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retention_days: Option<u32>,
    /// A secret with which the hashes are computed, so that who can write to the store cannot compute the chain anew.
    pub key: Secret,
}

/// Whether reads of personal data are audited.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AuditMode {
    /// As `required` if callers need API keys, and `off` if not: then they have no names.
    #[default]
    Auto,
    /// A read whose entry cannot be written is refused with 503.
    Required,
    /// A read whose entry cannot be written is answered, with an error in the log and in the metrics.
    BestEffort,
    /// Nothing is audited.
    Off,
}
