//! Tollgate on Oracle Cloud: signed calls, where their keys come from, Notifications and Monitoring.
//!
//! Signing and transport are those of `oci-rust-sdk`, which is AGPL-3.0 and in a binary only with the feature `oci`.
//! Around it: keys that are renewed (a client of the SDK keeps the one it was made with, so each key gets a client of
//! its own), retries in one place (`tollgate_service::resilience`, not the SDK's), and our own endpoints.

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
