//! The engine from outside: golden vectors, attacks, a model that applies the rules literally, histories that move.

mod attacks;
mod forgotten;
mod golden;
mod histories;
mod model;
mod money;
mod policy;
mod policy_model;
#[path = "../stream/mod.rs"]
mod stream;
