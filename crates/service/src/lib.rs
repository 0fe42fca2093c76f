//! What every Tollgate service needs once: configuration, supervision, databases, HTTP for health checks and APIs, calls
//! to dependencies that may be down, telemetry and shutdown.
//!
//! Services depend on this crate and never on each other.

pub mod card_data;
pub mod cli;
pub mod cloud;
pub mod config;
pub mod database;
pub mod database_tls;
pub mod external_sort;
pub mod files;
pub mod health;
pub mod http;
pub mod objects;
pub mod resilience;
pub mod secret;
pub mod shutdown;
pub mod supervisor;
pub mod telemetry;
pub mod terminal;

pub use secret::Secret;
pub use shutdown::Shutdown;

/// The current time by the machine's clock.
#[must_use]
pub fn now() -> tollgate_types::Timestamp {
    let micros = chrono::Utc::now().timestamp_micros();
    tollgate_types::Timestamp::from_micros(micros).unwrap_or(tollgate_types::Timestamp::MAX)
}

/// A random key for keyed hashes.
#[must_use]
pub fn random_key() -> [u8; 16] {
    use std::hash::{BuildHasher, RandomState};
    // The standard library seeds each state from the randomness of the system.
    let halves = [
        RandomState::new().hash_one(1_u8),
        RandomState::new().hash_one(2_u8),
    ];
    let mut key = [0; 16];
    key[..8].copy_from_slice(&halves[0].to_le_bytes());
    key[8..].copy_from_slice(&halves[1].to_le_bytes());
    key
}
