//! What the HTTP listeners of the services share: listening, probes, problems, API keys, and parts of the OpenAPI documents.

mod activity;
mod admin;
mod answer_headers;
mod answers;
mod api;
mod api_keys;
mod config;
mod connections;
mod documents;
mod guarded;
mod hosts;
mod media_type;
mod network;
mod observe;
pub mod openapi;
mod problem;
mod server;
mod tls;

use url::{Host, Url};

pub(crate) use admin::serve_admin;
pub use answers::hold_until_written;
use answers::shared;
pub use api::api;
pub use api_keys::{ApiKeyConfig, ApiKeys, Caller, Scope};
pub use config::HttpConfig;
pub use documents::documents;
pub use media_type::{require_json, unsupported_type};
pub use network::Network;
pub use observe::{RequestTrace, observed};
pub use problem::Problem;
pub use server::{Bound, bind};
pub use tls::{ClientCertificate, TlsConfig};

/// Whether the host of a URL is this machine, so that plain HTTP is acceptable.
#[must_use]
pub fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

/// Foreign text, escaped for HTML.
#[must_use]
pub fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

/// The message of an HTTP client's error with the messages of its causes, which hold the details.
#[must_use]
pub fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text += &format!(": {error}");
        cause = error.source();
    }
    text
}
