//! One decision by its id, and pages of them.

use axum::Extension;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use tollgate_service::http::openapi::ProblemSchema;
use tollgate_service::http::{Caller, Problem};
use tollgate_types::{Status, Timestamp, UserIdCase, stored_id};
use utoipa::IntoParams;

use super::access::{RowCount, tenant_read};
use super::{Api, bad_parameter, documents, is_id};
use crate::cursor::Cursor;
use crate::rows::StoredDecision;
use crate::store::Filter;

/// Most conflicts that are listed beside a decision. Lists with `user_id` hold all of them.
const CONFLICTS_MAX: u32 = 20;

/// Query parameters as they were given, in order.
type Pairs = Query<Vec<(String, String)>>;

/// The decision on a transaction
///
/// Transaction ids are unique within a user only. If several users have this one, `user_id` is required. If the id was
/// used again for another amount, this is the first decision, and `conflicts` lists the others.
#[utoipa::path(
    get,
    path = "/v1/decisions/{transaction_id}",
    params(
        ("transaction_id" = String, Path, description = "Id of the transaction"),
        ("user_id" = Option<String>, Query, description = "The user of the transaction"),
        ("tenant" = Option<String>, Query, description = "The tenant of the transaction, for a key that reads all tenants; empty for the default tenant"),
    ),
    responses(
        documents::CommonProblems,
        (status = 200, description = "The decision", body = documents::DecisionWithConflicts),
        (status = 400, description = "A parameter is invalid", body = ProblemSchema, content_type = "application/problem+json"),
        (status = 404, description = "There is no such decision", body = ProblemSchema, content_type = "application/problem+json"),
        (status = 409, description = "Several users have a transaction of this id", body = ProblemSchema, content_type = "application/problem+json"),
    ),
    security((), ("bearer" = []), ("api_key" = []), ("basic" = [])),
    tag = "decisions"
)]
pub(super) async fn get_decision(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    path: Result<Path<String>, PathRejection>,
    Query(pairs): Pairs,
) -> Result<Response, Problem> {
    let Path(transaction_id) = path.map_err(|_| bad_parameter("transaction_id", "is not UTF-8"))?;
    let transaction_id = stored_id(&transaction_id, UserIdCase::Keep);
    let (mut user_id, mut tenant) = (None, None);
    read_pairs(pairs, |name, value| match name {
        "user_id" => Ok(user_id.replace(user(&api, value)?).is_none()),
        "tenant" => Ok(tenant.replace(value.to_owned()).is_none()),
        _ => Err(unknown(name, "user_id and tenant")),
    })?;
    let tenant = tenant_read(&caller, tenant.as_deref())?;
    if !is_id(&transaction_id) {
        return Err(not_found());
    }
    let found = api
        .store
        .decisions(tenant.as_deref(), &transaction_id, user_id.as_deref())
        .await?;
    match found.as_slice() {
        [] => Err(not_found()),
        [only] => Ok(json(write(only), 1)),
        [first, other, ..]
            if (&first.tenant, &first.user_id) == (&other.tenant, &other.user_id) =>
        {
            let conflicts = api.store.conflicts(
                &first.tenant,
                &transaction_id,
                &first.user_id,
                CONFLICTS_MAX,
                api.page_max_bytes,
            );
            let mut conflicts = conflicts.await?.decisions;
            // Without a first decision, as after its deletion, the first row is a conflict itself.
            conflicts.retain(|conflict| conflict.conflict_amount != first.conflict_amount);
            let body = write_with_conflicts(first, &conflicts);
            Ok(json(body, 1 + conflicts.len()))
        }
        _ => Err(Problem::new(
            StatusCode::CONFLICT,
            "several users have a transaction of this id; add ?user_id=",
        )
        .with("parameter", "user_id")),
    }
}

/// Which decisions a page holds.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(
    dead_code,
    reason = "used for the document only; the values are parsed by hand, so that errors name the parameter"
)]
pub(super) struct PageParameters {
    /// `approved`, `review` or `blocked`
    status: Option<String>,
    /// Only this user's
    user_id: Option<String>,
    /// This tenant's, for a key that reads all tenants; empty for the default tenant
    tenant: Option<String>,
    /// Event time from here on, RFC 3339
    from: Option<String>,
    /// Event time before this, RFC 3339
    to: Option<String>,
    /// Most decisions on the page, 50 unless given. A page has fewer where it would become too large; `next` continues
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u32>,
    /// `next` of the page before
    after: Option<String>,
}

/// A page of decisions.
#[derive(serde::Serialize, utoipa::ToSchema)]
pub(super) struct Page {
    /// Newest event time first.
    decisions: Vec<documents::Decision>,
    /// The value of `after` for the next page; null on the last page. A page may hold fewer decisions than `limit` and have
    /// a next one.
    next: Option<String>,
}

/// Decisions, newest first
#[utoipa::path(
    get,
    path = "/v1/decisions",
    params(PageParameters),
    responses(
        documents::CommonProblems,
        (status = 200, description = "A page of decisions", body = Page),
        (status = 400, description = "A parameter is invalid", body = ProblemSchema, content_type = "application/problem+json"),
    ),
    security((), ("bearer" = []), ("api_key" = []), ("basic" = [])),
    tag = "decisions"
)]
pub(super) async fn list_decisions(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Query(pairs): Pairs,
) -> Result<Response, Problem> {
    let (filter, limit) = read_filter(&api, &caller, pairs)?;
    // One more than the page shows whether there is a next page.
    let page = api
        .store
        .page(&filter, limit.saturating_add(1), api.page_max_bytes)
        .await?;
    let size = usize::try_from(limit).unwrap_or(usize::MAX);
    let (mut found, more) = (page.decisions, page.cut);
    let more = more || found.len() > size;
    found.truncate(size);
    let next = found.last().filter(|_| more).map(|last| Cursor {
        event_time: last.event_time,
        user_id: last.user_id.clone(),
        transaction_id: last.transaction_id.clone(),
        conflict_amount: last.conflict_amount.clone(),
        tenant: last.tenant.clone(),
    });
    let mut body = b"{\"decisions\":[".to_vec();
    for (index, decision) in found.iter().enumerate() {
        if index > 0 {
            body.push(b',');
        }
        decision.decision().write_to(&mut body);
    }
    body.extend(b"],\"next\":");
    match next {
        // The alphabet of base64 needs no escapes.
        Some(next) => body.extend(format!("\"{}\"}}", next.encode()).as_bytes()),
        None => body.extend(b"null}"),
    }
    Ok(json(body, found.len()))
}

fn read_filter(
    api: &Api,
    caller: &Caller,
    pairs: Vec<(String, String)>,
) -> Result<(Filter, u32), Problem> {
    let (mut filter, mut limit, mut tenant) = (Filter::default(), None, None);
    read_pairs(pairs, |name, value| {
        Ok(match name {
            "status" => {
                let status = Status::from_name(value).ok_or_else(|| {
                    bad_parameter("status", "expected approved, review or blocked")
                })?;
                filter.status.replace(status).is_none()
            }
            "user_id" => filter.user_id.replace(user(api, value)?).is_none(),
            "tenant" => tenant.replace(value.to_owned()).is_none(),
            "from" => filter.from.replace(time("from", value)?).is_none(),
            "to" => filter.to.replace(time("to", value)?).is_none(),
            "limit" => {
                let expected = || {
                    bad_parameter(
                        "limit",
                        format!("expected a number from 1 to {}", api.page_max),
                    )
                };
                let number = value.parse::<u32>().map_err(|_| expected())?;
                if !(1..=api.page_max).contains(&number) {
                    return Err(expected());
                }
                limit.replace(number).is_none()
            }
            "after" => {
                let cursor = Cursor::decode(value).ok_or_else(|| {
                    bad_parameter("after", "expected the value of next from the page before")
                })?;
                filter.after.replace(cursor).is_none()
            }
            _ => {
                let known = "status, user_id, tenant, from, to, limit and after";
                return Err(unknown(name, known));
            }
        })
    })?;
    if let (Some(from), Some(to)) = (filter.from, filter.to)
        && from > to
    {
        return Err(bad_parameter(
            "from",
            format!("is later than to: {from} > {to}"),
        ));
    }
    filter.tenant = tenant_read(caller, tenant.as_deref())?;
    Ok((filter, limit.unwrap_or(api.page_default)))
}

/// Reads each parameter. `read` returns false for a repeated one.
fn read_pairs(
    pairs: Vec<(String, String)>,
    mut read: impl FnMut(&str, &str) -> Result<bool, Problem>,
) -> Result<(), Problem> {
    for (name, value) in pairs {
        if !read(&name, &value)? {
            return Err(bad_parameter(&name, "given twice"));
        }
    }
    Ok(())
}

/// The tenant to read, where `tenant` is the only parameter.
pub(super) fn only_tenant(
    caller: &Caller,
    pairs: Vec<(String, String)>,
) -> Result<Option<String>, Problem> {
    let mut tenant = None;
    read_pairs(pairs, |name, value| match name {
        "tenant" => Ok(tenant.replace(value.to_owned()).is_none()),
        _ => Err(unknown(name, "tenant")),
    })?;
    tenant_read(caller, tenant.as_deref())
}

fn unknown(name: &str, known: &str) -> Problem {
    // A name may be very long; its beginning is enough to recognise it.
    let shown: String = name.chars().take(64).collect();
    bad_parameter(&shown, format!("no such parameter; known here: {known}"))
}

/// The id of a user as it is stored.
fn user(api: &Api, value: &str) -> Result<String, Problem> {
    let id = stored_id(value, api.user_id_case);
    if is_id(&id) {
        Ok(id)
    } else {
        Err(bad_parameter(
            "user_id",
            "expected 1 to 128 bytes without U+0000",
        ))
    }
}

fn time(parameter: &str, value: &str) -> Result<Timestamp, Problem> {
    Timestamp::parse(value).map_err(|error| {
        // In a query a bare + is a space.
        let hint = if value.contains(' ') {
            "; a + in it must be sent as %2B"
        } else {
            ""
        };
        bad_parameter(parameter, format!("{error}{hint}"))
    })
}

fn not_found() -> Problem {
    Problem::new(
        StatusCode::NOT_FOUND,
        "there is no decision on such a transaction, or it is not stored yet",
    )
}

pub(super) fn write(decision: &StoredDecision) -> Vec<u8> {
    let mut body = Vec::new();
    decision.decision().write_to(&mut body);
    body
}

/// The first decision with the member `conflicts`.
fn write_with_conflicts(first: &StoredDecision, conflicts: &[StoredDecision]) -> Vec<u8> {
    let mut body = write(first);
    // The closing brace of the decision.
    body.pop();
    body.extend(b",\"conflicts\":[");
    for (index, conflict) in conflicts.iter().enumerate() {
        if index > 0 {
            body.push(b',');
        }
        conflict.decision().write_to(&mut body);
    }
    body.extend(b"]}");
    body
}

fn json(body: Vec<u8>, rows: usize) -> Response {
    let head = [(header::CONTENT_TYPE, "application/json")];
    (head, Extension(RowCount(rows)), body).into_response()
}
