//! The scoring engine: every user's history in memory, and the rules that are applied to it.
//!
//! Pure: no I/O, no clock and no randomness. Invariant: a verdict is a function of the transactions scored before it, in
//! their order, and of the rules. The README lists the modules, and [`state::layout`] draws the bytes of a history.

mod checks;
mod engine;
mod log_time;
mod origin;
mod policy;
mod rules;
pub mod snapshot;
mod state;
mod verdict;
mod worth;

pub use engine::{ACCEPTED_AGE_HOURS, Engine};
pub use origin::{Origin, Sender};
pub use policy::{
    Change, Control, Fired, MarkerOutcome, PartitionTimes, PolicyReference, Ruling, Shown,
    UnreadableChange,
};
pub use rules::{
    ConflictingDuplicate, GeographicAnomaly, HighAmount, HighVelocity, Money, Rules, RulesError,
    StatusThresholds, SuspiciousPattern,
};
pub use state::{UserHasher, UserKey};
pub use verdict::Verdict;
