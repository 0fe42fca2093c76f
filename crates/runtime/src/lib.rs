//! What every Tollgate service needs once: configuration, the log (Kafka) on both ends, the store, HTTP around
//! probes and APIs, telemetry, and an orderly way to stop.
//!
//! Services depend on this crate and on `tollgate-types`, never on each other.

pub mod cli;
pub mod config;
pub mod database;
pub mod health;
pub mod http;
pub mod kafka;
pub mod secret;
pub mod shutdown;
pub mod telemetry;

pub use secret::Secret;
pub use shutdown::Shutdown;
