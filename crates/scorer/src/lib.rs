//! The scorer: decides on every transaction by the rules of the scoring specification.
//!
//! [`Engine`] is the pure core, without I/O and without a clock: the same rules and the same log give the
//! same decisions, bit for bit. [`Rules`] hold every window, threshold, cap and weight.

mod engine;
mod rules;

pub use engine::{Engine, Verdict};
pub use rules::{
    GeographicAnomaly, HighAmount, HighVelocity, Rules, RulesError, StatusThresholds,
    SuspiciousPattern,
};
