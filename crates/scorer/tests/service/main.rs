//! Black-box tests of the scorer, each with its own log.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod attacks;
mod harness;
mod records;
mod restore;
