//! The notifier from outside: alerts on its topic, receivers that behave and that do not.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod common;
mod config;
mod delivery;
mod outages;
