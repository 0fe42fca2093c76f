//! `tollgate up` from outside: what it keeps when it is killed, and the commands that work on its log.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod crash;
mod dlq;
mod exports;
mod load;
mod ports;
mod private;
mod secrets;
mod starting;
mod support;
mod user;
