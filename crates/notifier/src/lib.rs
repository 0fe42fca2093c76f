//! Delivers every alert to every configured sink, once.
//!
//! An alert is a decision in the topic `alerts`. Each sink has its own queue and its own concurrency, and the delivery log
//! records what was delivered to it. Invariant: the offset of a record is committed only after its alert was delivered to
//! each sink and that was recorded, or after the record was written to the dead-letter topic.

mod alert;
mod config;
mod dead_letters;
mod delivery;
mod delivery_log;
mod dispatch;
mod in_flight_batch;
mod members;
mod process;
mod service;
mod signature;
mod sinks;
mod traces;

pub use alert::{Alert, AlertKey};
pub use config::{NotifierConfig, SinkConfig, SinkKind, SinkSpec};
pub use process::run_process;
pub use service::{migrate, run, start};
pub use signature::webhook_key;
pub use sinks::ConsoleOut;
#[cfg(feature = "oci")]
pub use tollgate_oci::Cloud;
#[cfg(not(feature = "oci"))]
pub use tollgate_service::cloud::NoCloud as Cloud;
