//! The service seen from outside: over HTTP, with a log of its own.

mod answers;
mod bad_input;
mod document;
mod keys_and_limits;
mod lifecycle;
mod support;
mod waiting;
