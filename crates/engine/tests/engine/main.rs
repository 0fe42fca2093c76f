//! The engine from outside: golden vectors, a model that applies the rules literally, histories that move.

mod golden;
mod histories;
mod model;
#[path = "../stream/mod.rs"]
mod stream;
