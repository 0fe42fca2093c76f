//! Persistence: stores decisions from the log, and serves the read API over them.
//!
//! Invariant: each decision in the log becomes one row in each of the two tables, or a dead letter.

mod api;
pub mod audit;
mod batch_reader;
mod config;
mod cursor;
mod dead_letters;
mod differences;
mod process;
mod queryable;
mod repair;
mod retention;
mod rows;
mod service;
mod store;
mod traces;
mod user_data;
mod writer;

pub use config::{DatabaseUrl, PersistenceConfig, ProcessConfig};
pub use process::run_process;
pub use service::{migrate, run, start};
pub use user_data::{Erased, UserData};
