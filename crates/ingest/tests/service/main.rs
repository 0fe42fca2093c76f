//! The service seen from outside: over HTTP, with a log of its own.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod answers;
mod bad_input;
mod document;
mod events;
mod functions;
mod imports;
mod keys_and_limits;
mod lifecycle;
mod stress;
mod support;
mod waiting;
