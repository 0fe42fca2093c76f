//! The scorer: decides on every transaction by the rules of the scoring specification.
//!
//! [`Engine`] is the pure core, without I/O and without a clock: the same rules and the same log give the
//! same decisions, bit for bit. [`Rules`] hold every window, threshold, cap and weight.

mod config;
mod engine;
mod measure;
mod route;
mod rules;
mod service;
mod snapshot;
mod worker;

pub use config::{BatchConfig, Mode, ProcessConfig, ScorerConfig};
pub use engine::{Engine, UnreadableHistory, UserHasher, UserKey, Verdict};
pub use rules::{
    GeographicAnomaly, HighAmount, HighVelocity, Rules, RulesError, StatusThresholds,
    SuspiciousPattern,
};
pub use service::{Scorer, run, start};

/// A key for the hashes in an [`Engine`] that nobody can know beforehand.
#[must_use]
pub fn random_key() -> [u8; 16] {
    use std::hash::{BuildHasher, RandomState};
    // The standard library seeds each state from the system's randomness.
    let halves = [
        RandomState::new().hash_one(1_u8),
        RandomState::new().hash_one(2_u8),
    ];
    let mut key = [0; 16];
    key[..8].copy_from_slice(&halves[0].to_le_bytes());
    key[8..].copy_from_slice(&halves[1].to_le_bytes());
    key
}
