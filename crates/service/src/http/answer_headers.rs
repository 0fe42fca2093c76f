//! Headers of every answer by which browsers confine what it can do.

use axum::http::{HeaderMap, HeaderName, HeaderValue, header};

/// The policy of pages: scripts and data of this service only, in no frame. Styles are in the pages themselves.
const PAGE: &str = "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; object-src 'none'; \
                    base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
/// The policy of everything else, which is no page.
const DATA: &str = "default-src 'none'; frame-ancestors 'none'";
/// A year, in seconds.
const STRICT_TRANSPORT: &str = "max-age=31536000";

/// Adds what a handler has not set.
pub(super) fn confine(headers: &mut HeaderMap, over_tls: bool) {
    let is_page = headers
        .get(header::CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"text/html"));
    let mut set = |name: HeaderName, value: &'static str| {
        let entry = headers.entry(name);
        entry.or_insert(HeaderValue::from_static(value));
    };
    let policy = if is_page { PAGE } else { DATA };
    set(header::CONTENT_SECURITY_POLICY, policy);
    set(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    // For browsers without frame-ancestors.
    set(header::X_FRAME_OPTIONS, "DENY");
    set(header::REFERRER_POLICY, "no-referrer");
    set(
        HeaderName::from_static("cross-origin-resource-policy"),
        "same-origin",
    );
    // Answers hold decisions and ids.
    set(header::CACHE_CONTROL, "no-store");
    if over_tls {
        set(header::STRICT_TRANSPORT_SECURITY, STRICT_TRANSPORT);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_gets_its_policy_and_data_gets_none_at_all() {
        let mut page = HeaderMap::new();
        page.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("text/html; charset=utf-8"),
        );
        confine(&mut page, true);
        assert_eq!(page[header::CONTENT_SECURITY_POLICY], PAGE);
        assert_eq!(page[header::STRICT_TRANSPORT_SECURITY], STRICT_TRANSPORT);
        let mut data = HeaderMap::new();
        data.insert(header::CACHE_CONTROL, HeaderValue::from_static("max-age=9"));
        confine(&mut data, false);
        assert_eq!(data[header::CONTENT_SECURITY_POLICY], DATA);
        assert_eq!(data[header::X_CONTENT_TYPE_OPTIONS], "nosniff");
        assert_eq!(data[header::CACHE_CONTROL], "max-age=9");
        assert!(!data.contains_key(header::STRICT_TRANSPORT_SECURITY));
    }
}
