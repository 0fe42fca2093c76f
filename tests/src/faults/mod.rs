//! The fault suite: the deployment under load, with faults drawn from a seed, and the balance check at the end.
//!
//! Data flows one way: [`schedule`] is a list of faults, [`run`] applies it to the processes, the broker, the database,
//! the network and the receiver of alerts, while writers write; [`books`] compares what was accepted with its effects.

pub mod books;
mod cast;
mod proxy;
mod receiver;
mod run;
pub mod schedule;
mod stage;
mod traffic;

pub use run::{Options, run};
