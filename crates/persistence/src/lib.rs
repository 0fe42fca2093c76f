//! Persistence: stores decisions from the log, and answers questions about them.
//!
//! Invariant: whatever happens, a decision on the log ends as one row in each of the two tables, or as a dead letter.

mod api;
mod config;
mod cursor;
mod dead_letters;
mod intake;
mod process;
mod rows;
mod service;
mod store;
mod traces;
mod writer;

pub use config::{DatabaseUrl, PersistenceConfig, ProcessConfig};
pub use process::run_process;
pub use service::{Persistence, migrate, run, start};
