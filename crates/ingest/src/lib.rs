//! The HTTP face of Tollgate: takes transactions and writes them to the log.
//!
//! Invariant: 202 and 200 are answered only when the log has acknowledged every accepted transaction, by every
//! in-sync replica. Any other answer, and none, means: send again with the same ids.

mod api;
mod availability;
mod body;
mod config;
mod events;
mod functions;
mod imports;
mod intake;
mod items;
mod limits;
mod openapi;
mod prefer;
mod publish;
mod replies;
mod report;
mod service;
mod transactions;
mod waiters;

pub use config::{IngestConfig, RateLimitConfig};
pub use imports::{FormatSetting, SourceConfig};
pub use service::{run, start};
