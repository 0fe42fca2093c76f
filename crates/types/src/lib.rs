//! The events that Tollgate's services exchange, and nothing else: no I/O, no clock.
//!
//! A [`Transaction`] comes in, a [`Decision`] goes out; an alert is a decision whose status is not
//! [`Status::Approved`]. Whatever a producer put into a transaction beyond the members known here travels
//! on untouched, because a decision carries the transaction's own JSON text.

mod amount;
mod decision;
pub mod headers;
mod json_error;
mod partitioner;
mod rejection;
mod timestamp;
mod topics;
mod trace_context;
mod transaction;

pub use amount::{Amount, AmountError};
pub use decision::{Contribution, Contributions, Decision, Indicator, Indicators, Status};
pub use json_error::JsonError;
pub use partitioner::Partitioner;
pub use rejection::Rejection;
pub use timestamp::{Timestamp, TimestampError};
pub use topics::{Stage, Topics};
pub use trace_context::{TRACEPARENT_BYTES, TraceContext};
pub use transaction::{Location, MAX_DEPTH, MAX_ID_BYTES, NewTransaction, Transaction};
