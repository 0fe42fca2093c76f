//! The parts that the OpenAPI documents of all services share.

use serde::Serialize;
use utoipa::openapi::OpenApi;
use utoipa::openapi::security::{ApiKey, ApiKeyValue, Http, HttpAuthScheme, SecurityScheme};
use utoipa::{Modify, ToSchema};

/// Adds the three ways to send an API key: `bearer`, `basic` and `api_key`.
#[derive(Debug)]
pub struct ApiKeySchemes;

impl Modify for ApiKeySchemes {
    fn modify(&self, document: &mut OpenApi) {
        let components = document.components.get_or_insert_default();
        let bearer = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
        components.add_security_scheme("bearer", bearer);
        // The key is the password; the user name is ignored.
        let basic = SecurityScheme::Http(Http::new(HttpAuthScheme::Basic));
        components.add_security_scheme("basic", basic);
        let header = ApiKeyValue::new("X-API-Key");
        components.add_security_scheme("api_key", SecurityScheme::ApiKey(ApiKey::Header(header)));
    }
}

/// The schema of a problem (RFC 9457).
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Problem)]
pub struct ProblemSchema {
    #[serde(rename = "type")]
    #[schema(example = "about:blank")]
    kind: String,
    #[schema(example = "Bad Request")]
    title: String,
    #[schema(example = 400)]
    status: u16,
    /// What was wrong this time, and what to do.
    #[schema(example = "malformed JSON at line 1, column 5: EOF while parsing a value")]
    detail: String,
    /// The line of malformed JSON.
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<u64>,
    /// The column of malformed JSON.
    #[serde(skip_serializing_if = "Option::is_none")]
    column: Option<u64>,
    /// The invalid query parameter.
    #[serde(skip_serializing_if = "Option::is_none")]
    parameter: Option<String>,
    /// What is wrong with the parameter.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}
