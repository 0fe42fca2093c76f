//! The documents of an API: `/openapi.json`, and the page to read it at `/docs`. Anybody may ask for them, so that their
//! bytes are in memory once, however many answers with them are unread.

use std::borrow::Cow;
use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Redirect, Response};
use axum::routing::get;
use utoipa::openapi::OpenApi;
use utoipa_swagger_ui::Config;

use super::{Problem, shared};

const DESCRIPTION: &str = "/openapi.json";

/// The routes of the documents. `description` is that of the API.
///
/// # Errors
/// The description is no JSON, which is a defect.
pub fn documents(description: &OpenApi) -> Result<Router, serde_json::Error> {
    let description = Bytes::from(serde_json::to_vec(description)?);
    let config = Arc::new(Config::from(DESCRIPTION));
    let describe = move || {
        let description = description.clone();
        async move { file("application/json".to_owned(), description) }
    };
    Ok(Router::new()
        .route(DESCRIPTION, get(describe))
        .route("/docs", get(|| async { Redirect::to("/docs/") }))
        .route("/docs/", get(index))
        .route("/docs/{*rest}", get(page))
        .with_state(config))
}

async fn index(State(config): State<Arc<Config<'static>>>) -> Response {
    answer("index.html", config)
}

async fn page(Path(path): Path<String>, State(config): State<Arc<Config<'static>>>) -> Response {
    answer(&path, config)
}

fn answer(path: &str, config: Arc<Config<'static>>) -> Response {
    match utoipa_swagger_ui::serve(path, config) {
        Ok(Some(found)) => {
            let bytes = match found.bytes {
                Cow::Borrowed(bytes) => Bytes::from_static(bytes),
                Cow::Owned(bytes) => Bytes::from(bytes),
            };
            file(found.content_type, bytes)
        }
        Ok(None) => {
            Problem::new(StatusCode::NOT_FOUND, "the page has no such file").into_response()
        }
        Err(error) => {
            tracing::error!(error, "the page of the documents");
            Problem::internal().into_response()
        }
    }
}

fn file(content_type: String, bytes: Bytes) -> Response {
    shared(([(header::CONTENT_TYPE, content_type)], bytes).into_response())
}

#[cfg(test)]
mod tests {
    use axum::extract::Request;
    use futures_util::StreamExt as _;
    use tower::ServiceExt as _;

    use super::*;

    #[tokio::test]
    async fn the_documents_are_in_memory_once_however_many_answers_with_them_are_unread() {
        let description = OpenApi::default();
        let app = documents(&description).unwrap();
        for path in ["/openapi.json", "/docs/", "/docs/swagger-ui-bundle.js"] {
            let mut bytes = Vec::new();
            for _ in 0..2 {
                let request = Request::get(path).body(axum::body::Body::empty()).unwrap();
                let response = app.clone().oneshot(request).await.unwrap();
                assert_eq!(response.status(), StatusCode::OK, "{path}");
                let mut frames = response.into_body().into_data_stream();
                bytes.push(frames.next().await.unwrap().unwrap());
            }
            assert!(!bytes[0].is_empty(), "{path}");
            assert_eq!(bytes[0].as_ptr(), bytes[1].as_ptr(), "{path}");
        }
    }
}
