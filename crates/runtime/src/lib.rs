//! What every Tollgate service needs once: configuration, the log (Kafka) on both ends, the store, HTTP around
//! probes and APIs, telemetry, and an orderly way to stop.
//!
//! Services depend on this crate and on `tollgate-types`, never on each other.

pub mod cli;
pub mod cloud;
pub mod config;
pub mod database;
pub mod health;
pub mod http;
pub mod kafka;
pub mod objects;
pub mod resilience;
pub mod secret;
pub mod shutdown;
pub mod telemetry;

pub use secret::Secret;
pub use shutdown::Shutdown;

/// The time by this machine's clock.
#[must_use]
pub fn now() -> tollgate_types::Timestamp {
    let micros = chrono::Utc::now().timestamp_micros();
    tollgate_types::Timestamp::from_micros(micros).unwrap_or(tollgate_types::Timestamp::MAX)
}
