//! The audit: who read, exported or erased which personal data, append-only and hash-chained.
//!
//! Invariant: the answer to an audited request is sent after its entry is in the store. An entry cannot be changed, removed
//! or inserted without breaking the hashes of all later ones; what an attacker who controls the store can still do is cut
//! off the end, or, without a key, compute the chain anew. Both are detected by a head that was kept elsewhere.

mod chain;
mod config;
mod event;
mod log;
mod recorder;
mod refusals;
pub(crate) mod retention;
mod sql;

pub use chain::{Broken, Head, Link, Verifier};
pub use config::{AuditConfig, AuditMode};
pub use event::AuditEvent;
pub use log::{AuditError, AuditLog};
pub(crate) use recorder::Recorder;
