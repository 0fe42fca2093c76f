//! What the APIs of all services have in common: unknown addresses, wrong methods and panics are answered with problems,
//! and every request is measured and traced.

use std::any::Any;

use axum::Router;
use axum::http::{Method, StatusCode, Uri};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use tower_http::catch_panic::CatchPanicLayer;

use tollgate_types::CardPolicy;

use super::{Problem, observed};

/// The complete API of a service, from its routes; `/` leads to its documentation. `service` is the label of its metrics and spans.
pub fn api(routes: Router, service: &'static str) -> Router {
    let routes = routes
        .route("/", get(|| async { Redirect::to("/docs") }))
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(CatchPanicLayer::custom(
            move |_panic: Box<dyn Any + Send>| panicked(service),
        ));
    observed(routes, service)
}

async fn not_found(uri: Uri) -> Problem {
    // Whoever builds addresses from card numbers gets none back.
    let path = CardPolicy::default().mask(uri.path()).into_owned();
    let detail = format!("there is nothing at {path}; /docs lists the API");
    Problem::new(StatusCode::NOT_FOUND, detail)
}

async fn method_not_allowed(method: Method) -> Problem {
    let detail = format!("{method} is not allowed here; /docs lists the API");
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, detail)
}

/// The answer after a panic. Its text is on standard error and not in the answer, since it may quote data.
fn panicked(service: &'static str) -> Response {
    metrics::counter!("tollgate_http_panics_total", "service" => service).increment(1);
    Problem::internal().into_response()
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::extract::Request;
    use axum::http::header;
    use tower::ServiceExt as _;

    use super::*;

    async fn answer(request: Request) -> (StatusCode, String) {
        async fn broken() -> Response {
            panic!("4111111111111111");
        }
        let app = api(Router::new().route("/broken", get(broken)), "test");
        let response = app.oneshot(request).await.unwrap();
        let status = response.status();
        let content_type = &response.headers()[header::CONTENT_TYPE];
        assert_eq!(content_type, "application/problem+json");
        let body = axum::body::to_bytes(response.into_body(), 10_000)
            .await
            .unwrap();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn a_handler_that_panics_is_answered_with_a_problem_without_the_panics_text() {
        let (status, body) = answer(Request::get("/broken").body(Body::empty()).unwrap()).await;
        assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
        assert!(!body.contains("4111"), "{body}");
    }

    #[tokio::test]
    async fn the_root_leads_to_the_documentation() {
        let app = api(Router::new(), "test");
        let request = Request::get("/").body(Body::empty()).unwrap();
        let response = app.oneshot(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::SEE_OTHER);
        assert_eq!(response.headers()[header::LOCATION], "/docs");
    }

    #[tokio::test]
    async fn an_unknown_address_and_a_wrong_method_are_answered_with_problems() {
        let request = Request::get("/nowhere").body(Body::empty()).unwrap();
        assert_eq!(answer(request).await.0, StatusCode::NOT_FOUND);
        let request = Request::delete("/broken").body(Body::empty()).unwrap();
        assert_eq!(answer(request).await.0, StatusCode::METHOD_NOT_ALLOWED);
    }
}
