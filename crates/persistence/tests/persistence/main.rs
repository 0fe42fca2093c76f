//! Persistence from outside: records go onto an embedded log, answers come over HTTP, rows are looked at in the store.
//!
//! Each test runs against a SQLite file, and with the feature `postgres-tests` against a database of its own on the
//! server of `TEST_POSTGRES_URL` too.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "this is a test")]

mod erasing;
mod faults;
mod harness;
#[cfg(feature = "postgres-tests")]
mod months;
mod querying;
mod reading;
mod serving;
mod storing;
mod tenants;
mod upgrading;
