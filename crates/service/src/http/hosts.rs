//! Refuses requests that a web page on another site makes through the browser of somebody who can reach this service.
//!
//! Such a page can send requests to any address (with `Origin`), and its name can be made to resolve to this machine (DNS
//! rebinding: `Host` is its name). Invariant: a request names this service, once, and comes from no other site.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use axum::http::uri::Authority;
use axum::http::{HeaderMap, Method, Request, StatusCode, Version, header};

use super::Problem;
use super::config::is_host_name;

/// The names under which a listener answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Hosts {
    /// Whether other names are refused.
    closed: bool,
    names: BTreeSet<String>,
    listen: IpAddr,
    /// Whether the address is beyond loopback and callers need no key: then pages may come from addresses only.
    exposed: bool,
    /// The setting that lists further names.
    setting: Option<String>,
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
    /// A header that must be single.
    Repeated(&'static str),
}

/// Headers that decide what a request is and who sends it. Given twice, a proxy in front and this service could read
/// different ones.
const SINGLE: [&str; 8] = [
    "content-type",
    "content-encoding",
    "authorization",
    "x-api-key",
    "idempotency-key",
    "tollgate-backfill",
    "x-oci-ns-messageid",
    "x-oci-ns-messagetype",
];

impl Refusal {
    pub(super) const fn reason(self) -> &'static str {
        match self {
            Self::Malformed => "malformed_host",
            Self::Host => "host",
            Self::Origin => "origin",
            Self::Repeated(_) => "repeated_header",
        }
    }
}

impl Hosts {
    /// The answer to a request that is refused.
    pub(super) fn problem(&self, refusal: Refusal) -> Problem {
        match refusal {
            Refusal::Malformed => Problem::new(
                StatusCode::BAD_REQUEST,
                "a request has exactly one Host, which is that of its address if it has one there too",
            ),
            Refusal::Repeated(name) => Problem::new(
                StatusCode::BAD_REQUEST,
                format!("the header {name} is given more than once"),
            ),
            Refusal::Host => Problem::new(
                StatusCode::MISDIRECTED_REQUEST,
                match &self.setting {
                    Some(setting) => format!(
                        "this service does not answer under this host; the setting {setting} lists further ones"
                    ),
                    None => {
                        "this port answers under addresses and names of its machine only".to_owned()
                    }
                },
            ),
            Refusal::Origin => Problem::new(
                StatusCode::FORBIDDEN,
                "requests of web pages of other sites are not answered",
            ),
        }
    }

    /// The names of a listener without authentication: those of this machine and its address, if that is a loopback one.
    /// Elsewhere it is reached by names that are not known here.
    pub(super) fn of_open(listen: SocketAddr) -> Self {
        Self {
            closed: listen.ip().is_loopback(),
            names: BTreeSet::new(),
            listen: listen.ip(),
            exposed: !listen.ip().is_loopback(),
            setting: None,
        }
    }

    /// With further names. Where there are any, others are refused; without any a listener with keys answers under all.
    /// `setting` is the one that lists them.
    pub(super) fn with(mut self, names: &[String], has_keys: bool, setting: String) -> Self {
        self.closed = !names.is_empty() || (self.closed && !has_keys);
        self.exposed = false;
        self.setting = Some(setting);
        self.names = names.iter().map(|name| name.to_ascii_lowercase()).collect();
        self
    }

    /// Checks the host and the origin of a request.
    pub(super) fn check<B>(&self, request: &Request<B>) -> Result<(), Refusal> {
        let host = self.host(request)?;
        let headers = request.headers();
        for name in SINGLE {
            if headers.get_all(name).iter().nth(1).is_some() {
                return Err(Refusal::Repeated(name));
            }
        }
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
            // HTTP/1.0 has no Host; no browser sends it, but the probes of some load balancers do.
            (None, None) if is_old_probe(request) => return Ok(None),
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
        address(host).is_some_and(|address| {
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
        // A page whose name resolves to an exposed port without keys would be its own site, but for its name.
        host.is_some_and(|host| same(host, &origin) && (!self.exposed || is_address(origin.host())))
            || self.names.contains(&origin.host().to_ascii_lowercase())
    }
}

/// The address in a host that is one.
fn address(host: &str) -> Option<IpAddr> {
    let literal = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .unwrap_or(host);
    literal.parse().ok()
}

fn is_address(host: &str) -> bool {
    address(host).is_some()
}

fn is_old_probe<B>(request: &Request<B>) -> bool {
    request.version() <= Version::HTTP_10
        && [Method::GET, Method::HEAD, Method::OPTIONS].contains(request.method())
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
        Hosts::of_open(listen.parse().unwrap()).with(&names, has_keys, "test.http.hosts".into())
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
    fn http_1_0_may_probe_without_a_host_and_do_nothing_else() {
        let hosts = hosts("0.0.0.0:8080", &[], true);
        for (method, expected) in [
            (Method::GET, None),
            (Method::HEAD, None),
            (Method::OPTIONS, None),
            (Method::POST, Some(Refusal::Malformed)),
            (Method::DELETE, Some(Refusal::Malformed)),
        ] {
            let request = Request::builder().method(&method).uri("/");
            let request = request.version(Version::HTTP_10).body(()).unwrap();
            assert_eq!(hosts.check(&request).err(), expected, "{method}");
        }
    }

    #[test]
    fn a_header_that_decides_what_a_request_is_may_not_be_given_twice() {
        let hosts = hosts("127.0.0.1:8080", &[], false);
        for name in SINGLE {
            let once = [("host", "localhost"), (name, "a")];
            assert_eq!(check(&hosts, "/", &once), None, "{name}");
            let twice = [("host", "localhost"), (name, "a"), (name, "a")];
            let refused = check(&hosts, "/", &twice);
            assert_eq!(refused, Some(Refusal::Repeated(name)));
        }
        let twice = [("host", "localhost"), ("prefer", "a"), ("prefer", "b")];
        assert_eq!(check(&hosts, "/", &twice), None);
    }

    #[test]
    fn an_exposed_port_without_keys_answers_no_page_whose_name_was_made_to_resolve_to_it() {
        let admin = Hosts::of_open("0.0.0.0:9101".parse().unwrap());
        let with_origin = |host: &str| {
            let origin = format!("http://{host}");
            check(&admin, "/log", &[("host", host), ("origin", &origin)])
        };
        assert_eq!(
            with_origin("rebound.example.com:9101"),
            Some(Refusal::Origin)
        );
        assert_eq!(with_origin("10.0.0.7:9101"), None);
        let scrape = [("host", "ingest:9101")];
        assert_eq!(check(&admin, "/metrics", &scrape), None);
    }

    #[test]
    fn who_uses_a_wrong_host_learns_which_setting_lists_the_right_ones() {
        let detail = |hosts: &Hosts| {
            let problem = serde_json::to_value(hosts.problem(Refusal::Host)).unwrap();
            problem["detail"].as_str().unwrap().to_owned()
        };
        let read_api = hosts("127.0.0.1:8082", &[], false);
        assert!(detail(&read_api).contains("the setting test.http.hosts "));
        let admin = Hosts::of_open("127.0.0.1:9101".parse().unwrap());
        assert!(!detail(&admin).contains("setting"));
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
