//! The engine from outside: golden vectors, a model that reads the specification literally, histories that move.

mod golden;
mod histories;
mod model;
#[path = "../stream/mod.rs"]
mod stream;
