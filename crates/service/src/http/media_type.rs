//! Media types of bodies.

use axum::http::{HeaderMap, StatusCode, header};

use super::Problem;

/// Characters of a media type that an answer repeats.
const MAX_SHOWN_CHARS: usize = 100;

/// Rejects a body that is not declared as JSON. A web page of another site may send other types (`text/plain`, forms, none
/// at all) without asking first.
///
/// # Errors
/// 415 for any type but `application/json` and those that end with `+json`.
pub fn require_json(headers: &HeaderMap) -> Result<(), Problem> {
    let mut kinds = headers.get_all(header::CONTENT_TYPE).iter();
    match (kinds.next(), kinds.next()) {
        (Some(kind), None) if is_json(kind.as_bytes()) => Ok(()),
        _ => Err(unsupported_type(
            headers,
            "application/json, or one that ends with +json",
        )),
    }
}

/// The answer to a body of another type than `allowed`: 415, with the type that was received.
pub fn unsupported_type(headers: &HeaderMap, allowed: &str) -> Problem {
    let mut kinds = headers.get_all(header::CONTENT_TYPE).iter();
    let received = match (kinds.next(), kinds.next()) {
        (None, _) => "the request has none".to_owned(),
        (Some(kind), None) => {
            // Its beginning is enough to recognise it.
            let kind: String = String::from_utf8_lossy(kind.as_bytes())
                .chars()
                .take(MAX_SHOWN_CHARS)
                .collect();
            format!("the request has {kind:?}")
        }
        (Some(_), Some(_)) => "the request has more than one".to_owned(),
    };
    let detail = format!("the Content-Type must be {allowed}; {received}");
    Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail)
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
    fn the_answer_to_another_type_names_it() {
        let mut headers = HeaderMap::new();
        let detail = |headers: &HeaderMap| {
            let problem = require_json(headers).unwrap_err();
            serde_json::to_value(problem).unwrap()["detail"].to_string()
        };
        assert!(detail(&headers).contains("has none"));
        headers.append(header::CONTENT_TYPE, "text/csv".parse().unwrap());
        assert!(detail(&headers).contains("text/csv"));
        headers.append(header::CONTENT_TYPE, "text/plain".parse().unwrap());
        assert!(detail(&headers).contains("more than one"));
        headers.insert(header::CONTENT_TYPE, "x".repeat(5_000).parse().unwrap());
        assert!(detail(&headers).len() < 300);
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
