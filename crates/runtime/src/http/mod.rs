//! What the HTTP faces of the services share: listening, probes, problems, API keys.

mod admin;
mod api_keys;
mod observe;
mod problem;
mod server;

pub use admin::serve_admin;
pub use api_keys::{ApiKeyConfig, ApiKeys, Caller, Denied, Scope};
pub use observe::{RequestTrace, observed};
pub use problem::Problem;
pub use server::{Bound, bind};
