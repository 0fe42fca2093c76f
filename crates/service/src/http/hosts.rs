//! Refuses requests that a web page on another site makes through the browser of somebody who can reach this service.
//!
//! Such a page can send requests to any address (with `Origin`), and its name can be made to resolve to this machine (DNS
//! rebinding: `Host` is its name). Invariant: a request names this service, once, and comes from no other site.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use axum::http::uri::Authority;
use axum::http::{HeaderMap, Request, StatusCode, Version, header};

use super::Problem;
use super::config::is_host_name;

/// The names under which a listener answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Hosts {
    /// Whether other names are refused.
    closed: bool,
    names: BTreeSet<String>,
    listen: IpAddr,
}

/// Why a request is refused, and the label of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// No host, two of them, or not one at all.
    Malformed,
    /// Another name.
    Host,
    /// Another site.
    Origin,
}

impl Refusal {
    pub(super) const fn reason(self) -> &'static str {
        match self {
            Self::Malformed => "malformed_host",
            Self::Host => "host",
            Self::Origin => "origin",
        }
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Malformed => Self::new(
                StatusCode::BAD_REQUEST,
                "a request has exactly one Host, which is that of its address if it has one there too",
            ),
            Refusal::Host => Self::new(
                StatusCode::MISDIRECTED_REQUEST,
                "this service does not answer under this host; the setting http.hosts lists further ones",
            ),
            Refusal::Origin => Self::new(
                StatusCode::FORBIDDEN,
                "requests of web pages of other sites are not answered",
            ),
        }
    }
}

impl Hosts {
    /// The names of a listener without authentication: those of this machine and its address, if that is a loopback one.
    /// Elsewhere it is reached by names that are not known here.
    pub(super) fn of_open(listen: SocketAddr) -> Self {
        Self {
            closed: listen.ip().is_loopback(),
            names: BTreeSet::new(),
            listen: listen.ip(),
        }
    }

    /// With further names. Where there are any, others are refused; without any a listener with keys answers under all.
    pub(super) fn with(mut self, names: &[String], has_keys: bool) -> Self {
        self.closed = !names.is_empty() || (self.closed && !has_keys);
        self.names = names.iter().map(|name| name.to_ascii_lowercase()).collect();
        self
    }

    /// Checks the host and the origin of a request.
    pub(super) fn check<B>(&self, request: &Request<B>) -> Result<(), Refusal> {
        let host = self.host(request)?;
        let mut origins = request.headers().get_all(header::ORIGIN).iter();
        let Some(origin) = origins.next() else {
            return Ok(());
        };
        if origins.next().is_some() {
            return Err(Refusal::Origin);
        }
        let origin = origin.to_str().map_err(|_| Refusal::Origin)?;
        if self.is_own(origin, host.as_ref()) {
            return Ok(());
        }
        Err(Refusal::Origin)
    }

    fn host<B>(&self, request: &Request<B>) -> Result<Option<Authority>, Refusal> {
        let named = named(request.headers())?;
        let host = match (request.uri().authority(), named) {
            (Some(target), Some(named)) if !same(target, &named) => {
                return Err(Refusal::Malformed);
            }
            (Some(target), _) => target.clone(),
            (None, Some(named)) => named,
            // HTTP/1.0 has no Host; no browser sends it.
            (None, None) if request.version() <= Version::HTTP_10 => return Ok(None),
            (None, None) => return Err(Refusal::Malformed),
        };
        // Credentials in an address are for people who are to be deceived.
        if host.as_str().contains('@') {
            return Err(Refusal::Malformed);
        }
        if self.closed && !self.answers_to(host.host()) {
            return Err(Refusal::Host);
        }
        Ok(Some(host))
    }

    fn answers_to(&self, host: &str) -> bool {
        let host = host.to_ascii_lowercase();
        let host = host.strip_suffix('.').unwrap_or(&host);
        if self.names.contains(host) || host == "localhost" || host.ends_with(".localhost") {
            return true;
        }
        let literal = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'))
            .unwrap_or(host);
        literal.parse::<IpAddr>().is_ok_and(|address| {
            // A page cannot be made to resolve to another address if its name is an address.
            let anywhere = self.listen.is_unspecified() && !self.names.is_empty();
            address.is_loopback() || address == self.listen || anywhere
        })
    }

    /// Whether an origin, such as `https://pay.example.com`, is this service. `null` is not.
    fn is_own(&self, origin: &str, host: Option<&Authority>) -> bool {
        let parsed = origin
            .split_once("://")
            .filter(|(scheme, _)| ["http", "https"].contains(scheme))
            .and_then(|(_, rest)| rest.parse::<Authority>().ok());
        let Some(origin) = parsed else {
            return false;
        };
        // A proxy in front may have another port, and put its own name in place of the host.
        host.is_some_and(|host| same(host, &origin))
            || self.names.contains(&origin.host().to_ascii_lowercase())
    }
}

/// The `Host` header, if there is one.
fn named(headers: &HeaderMap) -> Result<Option<Authority>, Refusal> {
    let mut hosts = headers.get_all(header::HOST).iter();
    let Some(host) = hosts.next() else {
        return Ok(None);
    };
    if hosts.next().is_some() {
        return Err(Refusal::Malformed);
    }
    let host = host
        .to_str()
        .ok()
        .and_then(|host| host.parse::<Authority>().ok());
    host.filter(|host| is_host_name(host.host()))
        .map(Some)
        .ok_or(Refusal::Malformed)
}

/// Whether two authorities are the same; the usual ports need not be written.
fn same(one: &Authority, other: &Authority) -> bool {
    let port = |authority: &Authority| {
        authority
            .port_u16()
            .filter(|port| ![80, 443].contains(port))
    };
    one.host().eq_ignore_ascii_case(other.host()) && port(one) == port(other)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(listen: &str, names: &[&str], has_keys: bool) -> Hosts {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        Hosts::of_open(listen.parse().unwrap()).with(&names, has_keys)
    }

    fn check(hosts: &Hosts, uri: &str, headers: &[(&str, &str)]) -> Option<Refusal> {
        let mut request = Request::post(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        hosts.check(&request.body(()).unwrap()).err()
    }

    #[test]
    fn without_keys_only_names_of_this_machine_are_answered() {
        let hosts = hosts("127.0.0.1:8080", &[], false);
        for host in [
            "localhost",
            "LOCALHOST:8080",
            "localhost.",
            "up.localhost:8080",
            "127.0.0.1:8080",
            "[::1]:8080",
        ] {
            assert_eq!(check(&hosts, "/", &[("host", host)]), None, "{host}");
        }
        for host in [
            "rebound.example.com:8080",
            "localhost.example.com",
            "192.0.2.1",
            "notlocalhost",
        ] {
            let refused = check(&hosts, "/", &[("host", host)]);
            assert_eq!(refused, Some(Refusal::Host), "{host}");
        }
    }

    #[test]
    fn with_keys_every_name_is_answered_unless_some_are_listed() {
        let open = hosts("0.0.0.0:8080", &[], true);
        assert_eq!(check(&open, "/", &[("host", "pay.example.com")]), None);
        let listed = hosts("0.0.0.0:8080", &["Pay.example.com"], true);
        for host in ["pay.EXAMPLE.com", "10.0.0.7:8080", "localhost"] {
            assert_eq!(check(&listed, "/", &[("host", host)]), None, "{host}");
        }
        let other = check(&listed, "/", &[("host", "other.example.com")]);
        assert_eq!(other, Some(Refusal::Host));
    }

    #[test]
    fn a_host_that_is_missing_given_twice_or_contradicted_is_refused() {
        let hosts = hosts("127.0.0.1:8080", &[], false);
        let cases: [(&str, &[(&str, &str)]); 7] = [
            ("/", &[]),
            ("/", &[("host", "")]),
            ("/", &[("host", "localhost"), ("host", "localhost")]),
            ("/", &[("host", "localhost"), ("host", "evil.example")]),
            ("/", &[("host", "me@localhost")]),
            ("http://localhost:8080/", &[("host", "localhost:9")]),
            ("http://evil.example/", &[("host", "localhost")]),
        ];
        for (uri, headers) in cases {
            let refused = check(&hosts, uri, headers);
            assert_eq!(refused, Some(Refusal::Malformed), "{uri} {headers:?}");
        }
        assert_eq!(check(&hosts, "http://localhost:8080/", &[]), None);
        let named = [("host", "localhost:8080")];
        assert_eq!(check(&hosts, "http://localhost:8080/", &named), None);
    }

    #[test]
    fn a_request_of_a_page_of_another_site_is_refused() {
        for (names, has_keys) in [(&[] as &[&str], false), (&["pay.example.com"], true)] {
            let hosts = hosts("127.0.0.1:8080", names, has_keys);
            let origin = |origin| {
                let headers = [("host", "127.0.0.1:8080"), ("origin", origin)];
                check(&hosts, "/", &headers)
            };
            assert_eq!(origin("http://127.0.0.1:8080"), None);
            for foreign in [
                "https://evil.example",
                "http://127.0.0.1:3000",
                "http://localhost",
                "null",
                "",
                "file://",
            ] {
                assert_eq!(origin(foreign), Some(Refusal::Origin), "{foreign}");
            }
        }
        let behind_a_proxy = hosts("0.0.0.0:8080", &["pay.example.com"], true);
        let headers = [
            ("host", "10.0.0.7:8080"),
            ("origin", "https://pay.example.com"),
        ];
        assert_eq!(check(&behind_a_proxy, "/", &headers), None);
    }
}
