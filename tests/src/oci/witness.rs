//! What every request to a service passes through: it is recorded, authenticated, and goes wrong if a test planned so.

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderValue, Uri};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;

use super::answer::{not_authenticated, too_large};
use super::call::Call;
use super::core::Core;
use super::faults::Fault;
use super::keys;
use super::service::Service;
use super::signature::{self, Host};

/// More than any service here takes.
const MAX_BODY: usize = 1024 * 1024;

/// Marks an answer that must not be sent: the connection is closed instead.
#[derive(Debug, Clone, Copy)]
pub(super) struct Unsent;

/// Puts the witness before a service.
pub(super) fn witnessed(
    router: Router<Arc<Core>>,
    core: &Arc<Core>,
    service: Service,
) -> Router<Arc<Core>> {
    router.layer(from_fn_with_state((Arc::clone(core), service), witness))
}

/// Path and query as on the wire.
pub(super) fn target(uri: &Uri) -> String {
    uri.path_and_query()
        .map_or("/", |target| target.as_str())
        .to_owned()
}

async fn witness(
    State((core, service)): State<(Arc<Core>, Service)>,
    request: Request,
    next: Next,
) -> Response {
    let (parts, body) = request.into_parts();
    let body = to_bytes(body, MAX_BODY).await;
    let whole = body.is_ok();
    let call = Call {
        method: parts.method.clone(),
        target: target(&parts.uri),
        headers: parts.headers.clone(),
        body: body.unwrap_or_default(),
    };
    let number = core.requests.received(service, &call, core.clock.now());
    let request = Request::from_parts(parts, Body::from(call.body.clone()));
    let mut answer = match whole {
        true => answer(&core, service, &call, next.run(request)).await,
        false => too_large(&format!("body: more than {MAX_BODY} bytes, or cut off")),
    };
    if answer.extensions().get::<Unsent>().is_none() {
        core.requests.answered(number, answer.status());
    }
    if let Some(id) = request_id(&call) {
        answer.headers_mut().insert("opc-request-id", id);
    }
    answer
}

async fn answer(
    core: &Core,
    service: Service,
    call: &Call,
    effect: impl Future<Output = Response>,
) -> Response {
    if service.signed()
        && let Err(flaw) = authenticate(core, call)
    {
        return not_authenticated(&flaw);
    }
    match core.faults.take(service) {
        None => effect.await,
        Some(Fault::Answer(planned)) => planned.answer(),
        Some(Fault::Hang) => std::future::pending().await,
        Some(Fault::Drop) => {
            let mut answer = effect.await;
            answer.extensions_mut().insert(Unsent);
            answer
        }
    }
}

fn authenticate(core: &Core, call: &Call) -> Result<(), String> {
    let now = core.clock.now();
    signature::check(call, now, Host::Signed, |key_id| {
        match key_id.strip_prefix("ST$") {
            Some(token) => core.tokens.key(token, now),
            None => core.users.key(key_id),
        }
    })
}

/// Oracle keeps the client's part, if it sent one, and adds its own.
fn request_id(call: &Call) -> Option<HeaderValue> {
    let client = call
        .header("opc-request-id")
        .unwrap_or_else(keys::random_id);
    let client = client.split('/').next()?;
    let id = format!("{client}/{}/{}", keys::random_id(), keys::random_id());
    HeaderValue::from_str(&id).ok()
}
