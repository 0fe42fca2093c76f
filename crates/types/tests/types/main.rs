//! Parsing and printing of transactions and decisions, from outside.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod bad_input;
mod card_data;
mod framing;
mod ids;
mod round_trip;
