//! What a caller may read, and the audit of what it has read.
//!
//! Invariant: the rows of an answer are those of one tenant, which the caller's key allows; and the answer to a request for
//! personal data is sent after its entry is in the audit.

use std::net::SocketAddr;

use axum::extract::{ConnectInfo, MatchedPath, Request};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse as _, Response};
use tollgate_service::http::{Caller, Problem};
use tollgate_types::{CardPolicy, Tenant};

use super::bad_parameter;
use crate::audit::{AuditEvent, Recorder};

/// The longest value of a parameter that the audit keeps, in characters. A valid id has at most 128 bytes.
const MAX_VALUE: usize = 256;
/// Most parameters of a request that it keeps.
const MAX_PARAMETERS: usize = 16;
/// The routes whose answers hold no personal data.
const IMPERSONAL: [&str; 1] = ["/v1/stats"];

/// How many rows an answer has, as an extension of the response.
#[derive(Debug, Clone, Copy)]
pub(super) struct RowCount(pub(super) usize);

/// A request that may have to be recorded before it is answered.
pub(super) struct Access<'r>(Option<(&'r Recorder, AuditEvent)>);

impl<'r> Access<'r> {
    /// The access by a request; nothing is recorded without a recorder, or if the answer holds no personal data.
    pub(super) fn of(recorder: Option<&'r Recorder>, request: &Request, caller: &Caller) -> Self {
        Self(recorder.and_then(|recorder| Some((recorder, event_of(request, caller)?))))
    }

    /// The answer to send: the response, or a problem if the access must be recorded and cannot be.
    pub(super) async fn recorded(self, response: Response) -> Response {
        let Some((recorder, mut event)) = self.0 else {
            return response;
        };
        event.status = response.status().as_u16();
        let rows = response.extensions().get::<RowCount>();
        event.rows = rows.map_or(0, |rows| rows.0 as u64);
        match recorder.record(event).await {
            Ok(()) => response,
            Err(problem) => problem.into_response(),
        }
    }
}

/// Records a request that its key does not permit. Unknown callers have no name.
pub(super) fn refused(
    recorder: &Recorder,
    request: &Request,
    owner: Option<&Caller>,
    status: StatusCode,
) {
    let route = request.extensions().get::<MatchedPath>();
    recorder.refused(AuditEvent {
        time: tollgate_service::now(),
        caller: owner.map_or_else(String::new, |caller| caller.name().to_owned()),
        tenant: owner.map_or_else(String::new, tenant_of),
        peer: peer_of(request),
        action: format!(
            "{} {}",
            method_of(request),
            route.map_or("other", |route| route.as_str())
        ),
        asked: Vec::new(),
        status: status.as_u16(),
        rows: 0,
    });
}

/// Callers without a key may send any word.
fn method_of(request: &Request) -> &str {
    match *request.method() {
        Method::GET | Method::HEAD => request.method().as_str(),
        _ => "other",
    }
}

fn tenant_of(caller: &Caller) -> String {
    match caller.reads_only() {
        Some(tenant) => tenant.name().to_owned(),
        None => "*".to_owned(),
    }
}

fn peer_of(request: &Request) -> String {
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>();
    peer.map_or_else(String::new, |peer| peer.ip().to_string())
}

fn event_of(request: &Request, caller: &Caller) -> Option<AuditEvent> {
    let route = request.extensions().get::<MatchedPath>()?.as_str();
    if IMPERSONAL.contains(&route) {
        return None;
    }
    Some(AuditEvent {
        time: tollgate_service::now(),
        caller: caller.name().to_owned(),
        tenant: tenant_of(caller),
        peer: peer_of(request),
        action: format!("{} {route}", request.method()),
        asked: asked(route, request),
        status: 0,
        rows: 0,
    })
}

/// The parameters of the route and of the query, as they were given.
fn asked(route: &str, request: &Request) -> Vec<(String, String)> {
    let segments = route.split('/').zip(request.uri().path().split('/'));
    let of_path = segments.filter_map(|(name, value)| {
        let name = name.strip_prefix('{')?.strip_suffix('}')?;
        let value = percent_encoding::percent_decode_str(value).decode_utf8_lossy();
        Some((name.to_owned(), value.into_owned()))
    });
    let query = request.uri().query().unwrap_or_default();
    let of_query = url::form_urlencoded::parse(query.as_bytes()).into_owned();
    // An entry cannot be changed, and a card number is no id unless somebody asks for one.
    let cards = CardPolicy::default();
    let short = |text: String| match text.char_indices().nth(MAX_VALUE) {
        Some((end, _)) => cards.mask(&text[..end]).into_owned(),
        None => cards.mask(&text).into_owned(),
    };
    of_path
        .chain(of_query)
        .take(MAX_PARAMETERS)
        .map(|(name, value)| (short(name), short(value)))
        .collect()
}

/// The tenant whose rows a request reads, by its name in the store: that of its key; for a key of all tenants the one in the
/// parameter `tenant`, where an empty one is the default tenant, or all of them (`None`).
///
/// # Errors
/// The parameter is invalid, or names a tenant that is not the key's.
pub(super) fn tenant_read(
    caller: &Caller,
    parameter: Option<&str>,
) -> Result<Option<String>, Problem> {
    let asked = match parameter {
        None => None,
        Some("") => Some(Tenant::DEFAULT),
        Some(name) => {
            Some(Tenant::parse(name).map_err(|error| bad_parameter("tenant", error.to_string()))?)
        }
    };
    match (caller.reads_only(), asked) {
        (Some(own), Some(asked)) if own != asked => Err(bad_parameter(
            "tenant",
            "this API key reads another tenant only; leave the parameter out",
        )),
        (Some(own), _) => Ok(Some(own.name().to_owned())),
        (None, asked) => Ok(asked.map(|tenant| tenant.name().to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_of_one_tenant_reads_that_one_and_a_key_of_all_the_one_it_names() {
        let acme = Caller::of("a", Tenant::parse("acme").unwrap());
        let own = Some("acme".to_owned());
        assert_eq!(tenant_read(&acme, None).unwrap(), own);
        assert_eq!(tenant_read(&acme, Some("acme")).unwrap(), own);
        for foreign in ["", "other", "*", "ACME"] {
            assert!(tenant_read(&acme, Some(foreign)).is_err(), "{foreign}");
        }
        let all = Caller::of_all_tenants("auditor");
        assert_eq!(tenant_read(&all, None).unwrap(), None);
        assert_eq!(tenant_read(&all, Some("acme")).unwrap(), own);
        assert_eq!(tenant_read(&all, Some("")).unwrap(), Some(String::new()));
        assert!(tenant_read(&all, Some("*")).is_err());
    }
}
