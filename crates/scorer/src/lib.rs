//! The scorer: reads transactions from the log, decides on each with [`tollgate_engine`], and writes decisions, alerts
//! and replies.

mod config;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod measure;
mod process;
mod route;
mod service;
mod snapshot;
mod worker;

pub use config::{BatchConfig, Mode, ProcessConfig, ScorerConfig};
pub use process::run_process;
pub use service::{run, start};
