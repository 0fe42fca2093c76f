//! Histories outside an engine: their bytes ([`Engine::write_histories`](crate::Engine::write_histories)), and the file
//! around them ([`write`], [`read`]). Where snapshots are stored, and when one is used, is the scorer's part.
//!
//! Invariant: an engine that has read histories scores as the one that wrote them would have.

mod authentication;
mod format;
mod histories;

pub use authentication::SnapshotKey;
pub use format::{FORMAT, Header, UnreadableSnapshot, read, write};
pub use histories::UnreadableHistory;
