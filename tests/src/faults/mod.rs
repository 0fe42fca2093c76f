//! The fault suite: the deployment under load, with everything going wrong that a seed says, and books that must
//! balance at the end.
//!
//! Data flows one way: [`schedule`] is a list of faults, [`run`] applies it to the processes, the broker, the database,
//! the network and the receiver of alerts, while writers write; [`books`] compares what went in with what came of it.

pub mod books;
mod cast;
mod proxy;
mod receiver;
mod run;
pub mod schedule;
mod stage;
mod traffic;

pub use run::{Options, run};
