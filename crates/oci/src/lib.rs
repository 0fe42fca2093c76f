//! Oracle Cloud: signed calls, credentials, Notifications and Monitoring.
//!
//! Signing and transport are those of `oci-rust-sdk`, which is AGPL-3.0 and in a binary only with the feature `oci`.
//! This crate adds the renewal of keys (a client of the SDK keeps the key it was created with, so that each key has a
//! client of its own), retries by `tollgate_service::resilience` instead of the SDK, and other endpoints.

mod client;
mod cloud;
mod config;
mod credentials;
mod failure;
mod monitoring;
mod notifications;

pub use client::Client;
pub use cloud::Cloud;
pub use config::{Auth, MonitoringConfig, OciConfig};
pub use failure::OciFailure;
pub use notifications::{MAX_REQUEST_BYTES, Notifications};
