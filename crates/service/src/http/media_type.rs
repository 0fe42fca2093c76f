//! Media types of bodies.

use axum::http::{HeaderMap, StatusCode, header};

use super::Problem;

/// Rejects a body that is not declared as JSON. A web page of another site may send other types (`text/plain`, forms, none
/// at all) without asking first.
///
/// # Errors
/// 415 for any type but `application/json` and those that end with `+json`.
pub fn require_json(headers: &HeaderMap) -> Result<(), Problem> {
    let mut kinds = headers.get_all(header::CONTENT_TYPE).iter();
    match (kinds.next(), kinds.next()) {
        (Some(kind), None) if is_json(kind.as_bytes()) => Ok(()),
        _ => Err(Problem::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "the Content-Type must be application/json, or one that ends with +json",
        )),
    }
}

fn is_json(content_type: &[u8]) -> bool {
    let essence = content_type.split(|byte| *byte == b';').next();
    let essence = essence.unwrap_or_default().trim_ascii();
    let essence = essence.to_ascii_lowercase();
    essence == b"application/json"
        || (essence.starts_with(b"application/") && essence.ends_with(b"+json"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_json_is_json() {
        for kind in [
            "application/json",
            "Application/JSON; charset=utf-8",
            "application/cloudevents+json",
        ] {
            assert!(is_json(kind.as_bytes()), "{kind}");
        }
        for kind in [
            "",
            "text/plain",
            "text/plain; application/json",
            "text/json",
            "text/plain+json",
            "application/x-www-form-urlencoded",
            "multipart/form-data",
            "application/jsonp",
        ] {
            assert!(!is_json(kind.as_bytes()), "{kind}");
        }
    }

    #[test]
    fn a_type_that_is_missing_or_given_twice_is_refused() {
        let mut headers = HeaderMap::new();
        assert!(require_json(&headers).is_err());
        headers.append(header::CONTENT_TYPE, "application/json".parse().unwrap());
        assert!(require_json(&headers).is_ok());
        headers.append(header::CONTENT_TYPE, "text/plain".parse().unwrap());
        assert!(require_json(&headers).is_err());
    }
}
