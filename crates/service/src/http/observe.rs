//! Metrics by route and a span for every request, by OpenTelemetry's conventions,
//! <https://opentelemetry.io/docs/specs/semconv/http/>.
//!
//! Invariant: neither contains the query, the body or the path parameters of a request: they contain ids, and may contain
//! card data.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Instant, SystemTime};

use axum::Router;
use axum::extract::{ConnectInfo, MatchedPath, Request};
use axum::http::uri::Scheme;
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use metrics::{counter, gauge, histogram};
use opentelemetry::context::FutureExt as _;
use tollgate_types::TraceContext;
use tollgate_types::headers::{TRACEPARENT, TRACESTATE};

use crate::telemetry::trace::{self, Span, SpanKind};

/// Longest `tracestate` that is propagated, in bytes: the length that the standard requires.
const MAX_STATE_BYTES: usize = 512;

/// Measures and traces every request to a service.
pub fn observed(routes: Router, service: &'static str) -> Router {
    routes.layer(from_fn(move |request: Request, next: Next| {
        observe(service, request, next)
    }))
}

/// The trace of a request, among the extensions of the request.
#[derive(Debug, Default)]
pub struct RequestTrace {
    parent: Option<TraceContext>,
    /// The context of the span of the request, or that of the caller.
    context: Option<TraceContext>,
    has_own: bool,
    state: Option<Box<str>>,
    kept: AtomicBool,
    /// Spans that have ended, until it is known whether they are sampled.
    held: Mutex<Vec<(Span, SystemTime)>>,
}

impl RequestTrace {
    fn of(headers: &HeaderMap) -> Self {
        let (parent, state) = caller(headers);
        let own = trace::begin(parent);
        let context = own.or(parent);
        Self {
            parent,
            context,
            has_own: own.is_some(),
            state,
            kept: AtomicBool::new(context.is_some_and(TraceContext::is_sampled)),
            held: Mutex::default(),
        }
    }

    /// The context of the request.
    #[must_use]
    pub const fn context(&self) -> Option<TraceContext> {
        self.context
    }

    /// Whether the caller sent a context.
    #[must_use]
    pub const fn has_parent(&self) -> bool {
        self.parent.is_some()
    }

    /// Whether the request has a span of its own.
    #[must_use]
    pub const fn has_own(&self) -> bool {
        self.has_own
    }

    /// The `tracestate` of the caller, propagated unchanged.
    #[must_use]
    pub fn state(&self) -> Option<&str> {
        self.state.as_deref()
    }

    /// Samples the trace because of the outcome of the request.
    pub fn keep(&self) {
        self.kept.store(true, Ordering::Relaxed);
    }

    /// The context of a failure, whose trace is sampled.
    #[must_use]
    pub fn failed(&self) -> Option<TraceContext> {
        self.keep();
        let context = self.context?;
        Some(if self.has_own {
            context.with_sampled(true)
        } else {
            context
        })
    }

    /// Adds a span of the request that has ended. It is exported if the trace is sampled, which may become known later.
    pub fn end(&self, span: Span) {
        self.held
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push((span, SystemTime::now()));
    }

    fn close(&self, own: Option<Span>) {
        if !self.kept.load(Ordering::Relaxed) {
            return;
        }
        let held = std::mem::take(&mut *self.held.lock().unwrap_or_else(PoisonError::into_inner));
        let own = own.map(|span| (span, SystemTime::now()));
        for (mut span, ended) in held.into_iter().chain(own) {
            span.keep();
            span.end_at(ended);
        }
    }
}

/// The valid trace context of a request. A state without a parent is ignored.
fn caller(headers: &HeaderMap) -> (Option<TraceContext>, Option<Box<str>>) {
    let mut parents = headers.get_all(TRACEPARENT).iter();
    let parent = match (parents.next(), parents.next()) {
        (Some(parent), None) => TraceContext::parse(parent.as_bytes()),
        _ => None,
    };
    if parent.is_none() {
        return (None, None);
    }
    let states: Option<Vec<&str>> = headers
        .get_all(TRACESTATE)
        .iter()
        .map(|value| value.to_str().ok())
        .collect();
    let state = states.unwrap_or_default().join(",");
    let state = (!state.is_empty() && state.len() <= MAX_STATE_BYTES).then(|| state.into());
    (parent, state)
}

/// Counts a request in flight until it is dropped, also if its caller disconnects.
struct InFlight(metrics::Gauge);

impl InFlight {
    fn begin(service: &'static str) -> Self {
        let gauge = gauge!("tollgate_http_in_flight_requests", "service" => service);
        gauge.increment(1.0);
        Self(gauge)
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.decrement(1.0);
    }
}

async fn observe(service: &'static str, mut request: Request, next: Next) -> Response {
    let (began, since) = (Instant::now(), SystemTime::now());
    let _in_flight = InFlight::begin(service);
    let traced = Arc::new(RequestTrace::of(request.headers()));
    request.extensions_mut().insert(Arc::clone(&traced));
    let route = request.extensions().get::<MatchedPath>().cloned();
    let route = route
        .as_ref()
        .map_or("other", |route| match route.as_str() {
            // The page of the documents consists of many files.
            path if path.starts_with("/docs") => "/docs",
            path => path,
        });
    let method = method(request.method());
    let mut own = None;
    if let (true, Some(context)) = (traced.has_own, traced.context()) {
        let span = Span::new(
            service,
            SpanKind::Server,
            format!("{} {route}", if method == OTHER { "HTTP" } else { method }),
            context,
            traced.parent,
        );
        own = Some(described(
            span.since(since).behind_remote(),
            method,
            route,
            &request,
        ));
    }
    let answer = next.run(request);
    let response = match traced.context().filter(|_| own.is_some()) {
        Some(context) => answer.with_context(trace::within(context)).await,
        None => answer.await,
    };
    let status = response.status();
    if let Some(span) = &mut own {
        span.set("http.response.status_code", i64::from(status.as_u16()));
        if status.is_server_error() {
            span.fail(status.as_str(), "");
        }
    }
    if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS {
        traced.keep();
    }
    traced.close(own);
    let status = status.as_str().to_owned();
    counter!("tollgate_http_requests_total", "service" => service, "method" => method, "route" => route.to_owned(), "status" => status)
        .increment(1);
    histogram!("tollgate_http_request_duration_seconds", "service" => service, "route" => route.to_owned())
        .record(began.elapsed());
    response
}

const OTHER: &str = "_OTHER";

/// The method as a label: callers may send any word.
fn method(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        Method::PATCH => "PATCH",
        _ => OTHER,
    }
}

fn described(span: Span, method: &'static str, route: &str, request: &Request) -> Span {
    let text = |name| {
        let value = request
            .headers()
            .get(name)
            .and_then(|value| value.to_str().ok());
        value.map(|text| text.chars().take(256).collect::<String>())
    };
    let host = text(header::HOST).unwrap_or_default();
    let (address, port) = match host.rsplit_once(':') {
        Some((address, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => (address, port),
        _ => (host.as_str(), ""),
    };
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>();
    let version = match request.version() {
        axum::http::Version::HTTP_2 => "2",
        axum::http::Version::HTTP_10 => "1.0",
        _ => "1.1",
    };
    span.with("http.request.method", method)
        .with("http.route", route.to_owned())
        // The path itself may contain ids.
        .with("url.path", route.to_owned())
        .with("url.scheme", scheme(request))
        .with("network.protocol.version", version)
        .with("server.address", address.to_owned())
        .with_some("server.port", port.parse::<i64>().ok())
        .with_some("client.address", peer.map(|peer| peer.ip().to_string()))
        .with_some("user_agent.original", text(header::USER_AGENT))
}

/// How the request came: the listener knows it, and HTTP/1 requests do not say it.
fn scheme(request: &Request) -> &'static str {
    match request.extensions().get::<Scheme>() {
        Some(scheme) if *scheme == Scheme::HTTPS => "https",
        _ => "http",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scheme_of_a_span_is_that_of_the_listener() {
        let mut request = Request::new(axum::body::Body::empty());
        assert_eq!(scheme(&request), "http");
        request.extensions_mut().insert(Scheme::HTTPS);
        assert_eq!(scheme(&request), "https");
    }

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_state_is_propagated_only_with_its_parent_and_two_parents_are_ignored() {
        let mut headers = HeaderMap::new();
        headers.append(TRACESTATE, "a=1".parse().unwrap());
        headers.append(TRACESTATE, "b=2".parse().unwrap());
        assert_eq!(caller(&headers), (None, None));
        headers.append(TRACEPARENT, PARENT.parse().unwrap());
        let (parent, state) = caller(&headers);
        assert_eq!(parent.unwrap().to_string(), PARENT);
        assert_eq!(state.as_deref(), Some("a=1,b=2"));
        headers.append(TRACEPARENT, PARENT.parse().unwrap());
        assert_eq!(caller(&headers), (None, None));
    }

    #[test]
    fn a_process_that_does_not_trace_propagates_the_context_of_its_caller() {
        let headers = HeaderMap::from_iter([(
            header::HeaderName::from_static(TRACEPARENT),
            PARENT.parse().unwrap(),
        )]);
        let traced = RequestTrace::of(&headers);
        assert_eq!(traced.context().unwrap().to_string(), PARENT);
        assert_eq!(RequestTrace::of(&HeaderMap::new()).context(), None);
    }
}
