//! Ingest: accepts transactions over HTTP, from events and from objects, and writes them to the log.
//!
//! Invariant: 202 and 200 are answered only after every in-sync replica of the log has acknowledged every accepted
//! transaction. After any other answer, or none, the caller sends the request again with the same ids.

mod admission;
mod api;
mod availability;
mod body;
mod coding;
mod config;
mod events;
mod functions;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod imports;
mod items;
mod lateness;
mod lenient_base64;
mod letters;
mod openapi;
mod pending_replies;
mod prefer;
mod process;
mod provenance;
mod publish;
mod reject_limits;
mod replies;
mod report;
mod request;
mod sent;
mod service;
mod shares;
mod tenant_rates;
mod transactions;

pub use config::{IngestConfig, RateLimitConfig};
pub use imports::{FormatSetting, ImportState, ImportStatus, SourceConfig, list_imports};
pub use process::run_process;
pub use reject_limits::RejectLimits;
pub use sent::{SentTransaction, read_again};
pub use service::{run, start};
