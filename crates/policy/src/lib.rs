//! Policies: the document that holds everything that decides, and the language of its conditions.
//!
//! [`check`] reads a document, finds every fault with line and column, and gives the [`Policy`]: thresholds, parameters of
//! the built-in indicators, features as declarations, and rules whose conditions are compiled to operations over
//! [`Slots`]. Pure: no I/O, no clock, no randomness; the same text gives the same result on every machine, for ever.

mod canonical;
mod document;
mod fault;
mod language;
mod money;
mod policy;
mod slots;
mod source;
mod toml_version;

pub use document::{Report, check};
pub use fault::{Fault, FaultKind};
pub use language::Type;
pub use money::Money;
pub use policy::{
    Action, Aggregate, Builtin, Condition, ConflictingDuplicate, Effect, Feature,
    GeographicAnomaly, HighAmount, HighVelocity, Member, MemberType, Mode, Policy, PolicyHash,
    Read, Rule, SuspiciousPattern, Tables, Thresholds,
};
pub use slots::{Entry, Input, Layout, Slot, Slots, Value};
