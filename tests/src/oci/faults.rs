//! What goes wrong on demand. Plans are kept per service and used up in the order they were made, one for each request.
//! A request to Notifications or Monitoring that is not signed well uses none up: a plan never hides a bad signature.

use std::collections::{HashMap, VecDeque};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;

use super::answer::refusal;
use super::service::Service;
use super::store::lock;

#[derive(Debug, Clone)]
pub(super) enum Fault {
    /// Answers this, and does nothing.
    Answer(Planned),
    /// Never answers, and does nothing.
    Hang,
    /// Executes the request, then closes the connection instead of answering.
    Drop,
}

#[derive(Debug, Clone)]
pub(super) struct Planned {
    status: u16,
    code: String,
    retry_after: Option<u64>,
}

/// Plans of what goes wrong.
#[derive(Debug, Default)]
pub struct Faults {
    plans: Mutex<HashMap<Service, VecDeque<Fault>>>,
    workload_identity_forbidden: AtomicBool,
}

impl Faults {
    /// Answers the next `n` requests to a service with a status, an error code and, if any, a `Retry-After` of so many
    /// seconds. They have no effect. A status that HTTP does not have becomes 500.
    pub fn answer_next(
        &self,
        service: Service,
        n: usize,
        status: u16,
        code: &str,
        retry_after: Option<u64>,
    ) {
        let planned = Planned {
            status,
            code: code.to_owned(),
            retry_after,
        };
        self.plan(service, n, &Fault::Answer(planned));
    }

    /// Never answers the next `n` requests to a service. They have no effect.
    pub fn hang_next(&self, service: Service, n: usize) {
        self.plan(service, n, &Fault::Hang);
    }

    /// Does what the next `n` requests to a service ask, but closes the connection without an answer: the client cannot
    /// know whether there was an effect.
    pub fn drop_next(&self, service: Service, n: usize) {
        self.plan(service, n, &Fault::Drop);
    }

    /// Refuses workload identity with 403, as a cluster that is not enhanced does; or does so no longer.
    pub fn forbid_workload_identity(&self, forbidden: bool) {
        self.workload_identity_forbidden
            .store(forbidden, Ordering::Relaxed);
    }

    /// Drops all plans for a service that are not used up.
    pub fn clear(&self, service: Service) {
        lock(&self.plans).remove(&service);
    }

    fn plan(&self, service: Service, n: usize, fault: &Fault) {
        let mut plans = lock(&self.plans);
        let queue = plans.entry(service).or_default();
        queue.extend(std::iter::repeat_n(fault.clone(), n));
    }

    pub(super) fn take(&self, service: Service) -> Option<Fault> {
        lock(&self.plans).get_mut(&service)?.pop_front()
    }

    pub(super) fn workload_identity_forbidden(&self) -> bool {
        self.workload_identity_forbidden.load(Ordering::Relaxed)
    }
}

impl Planned {
    pub(super) fn answer(&self) -> Response {
        let status = StatusCode::from_u16(self.status);
        let status = status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut answer = refusal(status, &self.code, "planned by the test");
        if let Some(seconds) = self.retry_after {
            let headers = answer.headers_mut();
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        answer
    }
}
