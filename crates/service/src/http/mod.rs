//! What the HTTP faces of the services share: listening, probes, problems, API keys.

mod admin;
mod api_keys;
mod observe;
mod problem;
mod server;

use url::{Host, Url};

pub use admin::{serve_admin, serve_admin_with};
pub use api_keys::{ApiKeyConfig, ApiKeys, Caller, Denied, Scope};
pub use observe::{RequestTrace, observed};
pub use problem::Problem;
pub use server::{Bound, bind};

/// Whether a URL leads to this machine, where plain HTTP will do.
#[must_use]
pub fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

/// Text of others in HTML, where it must not become markup.
#[must_use]
pub fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

/// An HTTP client's error with those beneath it: its own message says little.
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
