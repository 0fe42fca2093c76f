//! Black-box tests of the service over HTTP, each with its own log.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod amplification;
mod answers;
mod arrival;
mod bad_input;
mod browsers;
mod card_data;
mod clients;
mod connections;
mod document;
mod evasion;
mod events;
mod functions;
mod imports;
mod keys_and_limits;
mod lifecycle;
mod shares;
mod stress;
mod support;
mod tenants;
mod tls;
mod waiting;
