//! Parsing and printing of transactions and decisions, from outside.

mod bad_input;
mod ids;
mod round_trip;
