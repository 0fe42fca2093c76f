//! What all services share, and where each of them is found.

use std::sync::Arc;

use axum::Router;
use axum::http::{Method, StatusCode, Uri};
use axum::response::Response;
use axum::routing::any;

use super::answer::{not_found, refusal};
use super::clock::Clock;
use super::confirmation::{self, Confirmations};
use super::faults::Faults;
use super::instance::{self, Instance};
use super::monitoring::{self, Monitoring};
use super::notifications::{self, Notifications};
use super::requests::RequestLog;
use super::service::Service;
use super::tokens::Tokens;
use super::users::Users;
use super::witness::witnessed;
use super::workload::{self, Workload};
use super::{Config, control, federation, page};

/// A stand-in without its listeners.
#[derive(Debug)]
pub(super) struct Core {
    pub(super) config: Config,
    pub(super) clock: Clock,
    pub(super) users: Users,
    pub(super) tokens: Tokens,
    pub(super) faults: Faults,
    pub(super) requests: RequestLog,
    pub(super) workload: Workload,
    pub(super) instance: Instance,
    pub(super) notifications: Notifications,
    pub(super) monitoring: Monitoring,
    pub(super) confirmations: Confirmations,
}

impl Core {
    pub(super) fn new(config: Config) -> anyhow::Result<Self> {
        Ok(Self {
            clock: Clock::default(),
            users: Users::new(&config.users)?,
            tokens: Tokens::new(config.token_seconds)?,
            faults: Faults::default(),
            requests: RequestLog::default(),
            workload: Workload::new(config.service_account_token.clone()),
            instance: Instance::new(&config.tenancy)?,
            notifications: Notifications::default(),
            monitoring: Monitoring::default(),
            confirmations: Confirmations::default(),
            config,
        })
    }
}

/// All services; workload identity over TLS only, as a pod's token must not cross the network in the clear.
pub(super) fn router(core: &Arc<Core>, tls: bool) -> Router {
    let services = [
        (notifications::routes(), Service::Notifications),
        (confirmation::routes(), Service::Confirmation),
        (monitoring::routes(), Service::Monitoring),
        (instance::metadata(), Service::InstanceMetadata),
        (federation::routes(), Service::Federation),
    ];
    let workload = if tls {
        witnessed(workload::routes(), core, Service::WorkloadIdentity)
    } else {
        Router::new().route(
            workload::PATH,
            any(async || not_found("offered over https only")),
        )
    };
    let mut router = control::routes().merge(page::routes()).merge(workload);
    for (routes, service) in services {
        router = router.merge(witnessed(routes, core, service));
    }
    router
        .fallback(unknown)
        .method_not_allowed_fallback(wrong_method)
        .with_state(Arc::clone(core))
}

async fn unknown(method: Method, uri: Uri) -> Response {
    let message = format!("there is no operation {method} {}", uri.path());
    refusal(StatusCode::NOT_FOUND, "NotFound", &message)
}

async fn wrong_method(method: Method, uri: Uri) -> Response {
    let message = format!("{} does not take {method}", uri.path());
    refusal(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", &message)
}
