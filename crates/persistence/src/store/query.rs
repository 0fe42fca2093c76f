//! The queries for decisions that both stores share. A [`Dialect`] holds their differences.

use sqlx::{Database, Encode, QueryBuilder, Type};
use tollgate_types::{Status, Timestamp};

use super::Filter;

/// The differences between the stores.
pub(super) trait Dialect: Database<Arguments: Default> {
    /// `SELECT` with the columns of a decision, up to `FROM`.
    const SELECT: &'static str;
    /// Behind decisions called `a`: the join with their transactions, called `t`.
    const TRANSACTION: &'static str;
    /// Behind [`Dialect::SELECT`]: decisions called `a`, from tables each of which gets the same condition, and an end.
    const WITH_ID: (&'static [&'static str], &'static str);
    /// A time as the driver takes it.
    type Time: for<'q> Encode<'q, Self> + Type<Self>;

    fn time(time: Timestamp) -> Self::Time;

    /// The condition for a status. It is a literal, since the index of alerts cannot be used with a parameter.
    fn status(status: Status) -> &'static str;
}

/// The condition for a tenant, whose name is bound to a parameter; none for all tenants. The default tenant has most
/// rows: its condition uses the index by time.
pub(super) fn of_tenant(tenant: Option<&str>, parameter: &str) -> String {
    match tenant {
        // The parameter is bound whether or not it is needed.
        None => format!(" WHERE {parameter} = {parameter}"),
        Some("") => format!(" WHERE tenant = {parameter}"),
        Some(_) => format!(" WHERE tenant = {parameter} AND tenant <> ''"),
    }
}

/// The decisions on transactions with this id, at most two, first decisions before conflicts.
pub(super) fn decisions<DB>(
    tenant: Option<&str>,
    transaction_id: &str,
    user_id: Option<&str>,
) -> QueryBuilder<DB>
where
    DB: Dialect,
    for<'q> &'q str: Encode<'q, DB> + Type<DB>,
{
    let mut query = with_id(transaction_id, user_id, tenant, "");
    query.push(" ORDER BY a.conflict_amount LIMIT 2");
    query
}

/// Up to `limit` conflicts with the first decision on a transaction, oldest first.
pub(super) fn conflicts<DB>(
    tenant: &str,
    transaction_id: &str,
    user_id: &str,
    limit: u32,
) -> QueryBuilder<DB>
where
    DB: Dialect,
    for<'q> &'q str: Encode<'q, DB> + Type<DB>,
    for<'q> i64: Encode<'q, DB> + Type<DB>,
{
    let conflict = " AND conflict_amount <> ''";
    let mut query = with_id(transaction_id, Some(user_id), Some(tenant), conflict);
    query.push(" ORDER BY a.processed_at, a.conflict_amount LIMIT ");
    query.push_bind(i64::from(limit));
    query
}

/// The decisions on transactions with this id, of a user and a tenant or of all, under one more condition.
fn with_id<DB>(
    transaction_id: &str,
    user_id: Option<&str>,
    tenant: Option<&str>,
    condition: &str,
) -> QueryBuilder<DB>
where
    DB: Dialect,
    for<'q> &'q str: Encode<'q, DB> + Type<DB>,
{
    let mut query = QueryBuilder::new(DB::SELECT);
    let (parts, end) = DB::WITH_ID;
    for part in parts {
        query
            .push(*part)
            .push(" WHERE transaction_id = ")
            .push_bind(transaction_id);
        if let Some(user_id) = user_id {
            query.push(" AND user_id = ").push_bind(user_id);
        }
        if let Some(tenant) = tenant {
            query.push(" AND tenant = ").push_bind(tenant);
        }
        query.push(condition);
    }
    query.push(end).push(DB::TRANSACTION);
    query
}

/// The decisions on a user, oldest first.
pub(super) fn of_user<DB>(tenant: &str, user_id: &str) -> QueryBuilder<DB>
where
    DB: Dialect,
    for<'q> &'q str: Encode<'q, DB> + Type<DB>,
{
    let mut query = QueryBuilder::new(DB::SELECT);
    query.push("fraud_analysis a").push(DB::TRANSACTION);
    query.push(" WHERE a.user_id = ").push_bind(user_id);
    query.push(" AND a.tenant = ").push_bind(tenant);
    query.push(" ORDER BY a.event_time, a.transaction_id, a.conflict_amount");
    query
}

/// Up to `limit` decisions, newest first.
pub(super) fn page<DB>(filter: &Filter, limit: u32) -> QueryBuilder<DB>
where
    DB: Dialect,
    for<'q> &'q str: Encode<'q, DB> + Type<DB>,
    for<'q> i64: Encode<'q, DB> + Type<DB>,
{
    let mut query = QueryBuilder::new(DB::SELECT);
    // The page is cut before the join, so that no plan joins more than a page.
    query.push("(SELECT * FROM fraud_analysis WHERE true");
    if let Some(tenant) = &filter.tenant {
        query.push(" AND tenant = ").push_bind(tenant.as_str());
        if !tenant.is_empty() {
            // The index by tenant is used only if its condition is in the statement.
            query.push(" AND tenant <> ''");
        }
    }
    if let Some(status) = filter.status {
        query.push(" AND ").push(DB::status(status));
    }
    if let Some(user_id) = &filter.user_id {
        query.push(" AND user_id = ").push_bind(user_id.as_str());
    }
    if let Some(from) = filter.from {
        query.push(" AND event_time >= ").push_bind(DB::time(from));
    }
    if let Some(to) = filter.to {
        query.push(" AND event_time < ").push_bind(DB::time(to));
    }
    if let Some(after) = &filter.after {
        query
            .push(" AND (event_time, user_id, transaction_id, conflict_amount, tenant) < (")
            .push_bind(DB::time(after.event_time));
        query.push(", ").push_bind(after.user_id.as_str());
        query.push(", ").push_bind(after.transaction_id.as_str());
        query.push(", ").push_bind(after.conflict_amount.as_str());
        query.push(", ").push_bind(after.tenant.as_str()).push(")");
    }
    query
        .push(" ORDER BY event_time DESC, user_id DESC, transaction_id DESC, conflict_amount DESC, tenant DESC LIMIT ")
        .push_bind(i64::from(limit));
    query.push(") a").push(DB::TRANSACTION);
    query.push(" ORDER BY a.event_time DESC, a.user_id DESC, a.transaction_id DESC, a.conflict_amount DESC, a.tenant DESC");
    query
}
