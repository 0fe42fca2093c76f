//! The requests that each service received, and their answers.

use std::collections::BTreeMap;
use std::sync::Mutex;

use axum::http::StatusCode;
use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::Value;

use super::call::Call;
use super::clock::as_rfc3339;
use super::service::Service;
use super::signature;
use super::store::{Kept, lock};

/// A request as it was received, and its answer.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Received {
    /// The service that received it.
    pub service: Service,
    /// In capitals.
    pub method: String,
    /// Path and query as on the wire.
    pub path: String,
    /// Key id of its signature, if it names one.
    pub key_id: Option<String>,
    /// A body that is no JSON is a string; no body is null.
    pub body: Value,
    /// None without an answer: the connection was closed, or the request hangs.
    pub status: Option<u16>,
    /// When it was received.
    #[serde(serialize_with = "as_rfc3339")]
    pub at: DateTime<Utc>,
    /// Names in lower case.
    pub headers: BTreeMap<String, String>,
}

/// The latest 10,000 requests.
#[derive(Debug, Default)]
pub(super) struct RequestLog(Mutex<Kept<Received>>);

impl RequestLog {
    /// Enters a request. Its number.
    pub(super) fn received(&self, service: Service, call: &Call, at: DateTime<Utc>) -> usize {
        let names = call.headers.keys().map(|name| name.as_str());
        let headers = names.filter_map(|name| Some((name.to_owned(), call.header(name)?)));
        let received = Received {
            service,
            method: call.method.to_string(),
            path: call.target.clone(),
            key_id: signature::key_id(call),
            body: call.readable_body(),
            status: None,
            at,
            headers: headers.collect(),
        };
        lock(&self.0).push(received)
    }

    pub(super) fn answered(&self, number: usize, status: StatusCode) {
        if let Some(received) = lock(&self.0).get_mut(number) {
            received.status = Some(status.as_u16());
        }
    }

    /// In the order they came; those for one service, or all.
    pub(super) fn all(&self, service: Option<Service>) -> Vec<Received> {
        let mut all = lock(&self.0).all();
        all.retain(|received| service.is_none_or(|service| received.service == service));
        all
    }
}
