//! Parsing and printing of transactions and decisions, from outside.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod bad_input;
mod card_data;
mod ids;
mod round_trip;
