//! The summary of the decisions of a user.

use std::collections::BTreeMap;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::{Extension, Json};
use serde::Serialize;
use serde_json::value::RawValue;
use tollgate_service::http::openapi::ProblemSchema;
use tollgate_service::http::{Caller, Problem};
use tollgate_types::{Amount, Timestamp, stored_id};
use utoipa::ToSchema;

use super::access::RowCount;
use super::decisions::{only_tenant, write};
use super::{Api, bad_parameter, by_indicator, by_status, documents, is_id};
use crate::rows::split;
use crate::store::{Filter, UserGroup};

/// The summary of the decisions of a user.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct UserSummary {
    user_id: String,
    /// Transactions decided on.
    transactions: i64,
    /// Exact.
    total_amount: String,
    /// To four decimal places, halves away from zero.
    average_amount: String,
    /// Exact.
    max_amount: String,
    /// How many of each status.
    #[schema(value_type = BTreeMap<String, i64>)]
    by_status: BTreeMap<&'static str, i64>,
    /// How many with each indicator; one transaction may have several.
    #[schema(value_type = BTreeMap<String, i64>)]
    by_indicator: BTreeMap<&'static str, i64>,
    highest_score: f64,
    #[schema(value_type = String, format = DateTime)]
    first_event_time: Timestamp,
    #[schema(value_type = String, format = DateTime)]
    last_event_time: Timestamp,
    /// The one with the newest event time.
    #[schema(value_type = documents::Decision)]
    last_decision: Option<Box<RawValue>>,
}

/// The summary of the decisions of a user
#[utoipa::path(
    get,
    path = "/v1/users/{user_id}/summary",
    params(
        ("user_id" = String, Path, description = "Id of the user"),
        ("tenant" = Option<String>, Query, description = "The tenant of the user, for a key that reads all tenants; empty for the default tenant"),
    ),
    responses(
        documents::CommonProblems,
        (status = 200, description = "The summary", body = UserSummary),
        (status = 404, description = "There is no decision for this user", body = ProblemSchema, content_type = "application/problem+json"),
    ),
    security((), ("bearer" = []), ("api_key" = []), ("basic" = [])),
    tag = "users"
)]
pub(super) async fn get_user_summary(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    path: Result<Path<String>, PathRejection>,
    Query(pairs): Query<Vec<(String, String)>>,
) -> Result<Response, Problem> {
    let Path(user_id) = path.map_err(|_| bad_parameter("user_id", "is not UTF-8"))?;
    let user_id = stored_id(&user_id, api.user_id_case);
    let tenant = only_tenant(&caller, pairs)?;
    if !is_id(&user_id) {
        return Err(not_found());
    }
    let groups = api.store.user(tenant.as_deref(), &user_id).await?;
    let filter = Filter {
        user_id: Some(user_id.clone()),
        tenant,
        ..Filter::default()
    };
    let last = api.store.page(&filter, 1, api.page_max_bytes).await?;
    // The text was written as JSON.
    let last = last
        .decisions
        .first()
        .and_then(|last| RawValue::from_string(String::from_utf8(write(last)).ok()?).ok());
    let summary = summarize(user_id, &groups, last).ok_or_else(not_found)?;
    Ok((Extension(RowCount(1)), Json(summary)).into_response())
}

/// `None` without decisions.
fn summarize(
    user_id: String,
    groups: &[UserGroup],
    last_decision: Option<Box<RawValue>>,
) -> Option<UserSummary> {
    let transactions: i64 = groups.iter().map(|group| group.decisions).sum();
    let total: i128 = groups.iter().map(|group| group.total).sum();
    let average = (total + i128::from(transactions) / 2).checked_div(i128::from(transactions))?;
    Some(UserSummary {
        user_id,
        transactions,
        total_amount: decimal(total),
        average_amount: decimal(average),
        max_amount: groups
            .iter()
            .map(|group| group.largest)
            .max()
            .unwrap_or_default()
            .to_string(),
        by_status: by_status(
            groups
                .iter()
                .map(|group| (group.status.clone(), group.decisions)),
        ),
        by_indicator: by_indicator(
            groups
                .iter()
                .map(|group| (split(&group.fraud_indicators), group.decisions)),
        ),
        highest_score: groups
            .iter()
            .map(|group| group.highest_score)
            .fold(f64::MIN, f64::max),
        first_event_time: groups.iter().map(|group| group.first).min()?,
        last_event_time: groups.iter().map(|group| group.last).max()?,
        last_decision,
    })
}

/// Ten-thousandths as the shortest decimal, also beyond what one [`Amount`] holds.
fn decimal(ten_thousandths: i128) -> String {
    let (whole, fraction) = (ten_thousandths / 10_000, ten_thousandths % 10_000);
    let fraction = i64::try_from(fraction)
        .ok()
        .and_then(Amount::from_ten_thousandths)
        .unwrap_or_default()
        .to_string();
    format!("{whole}{}", fraction.strip_prefix('0').unwrap_or_default())
}

fn not_found() -> Problem {
    Problem::new(
        StatusCode::NOT_FOUND,
        "there is no decision for such a user",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_exact_beyond_what_one_amount_holds() {
        for (ten_thousandths, text) in [
            (0, "0"),
            (1, "0.0001"),
            (125_000, "12.5"),
            (10_000, "1"),
            (
                9_999_999_999_999_999 * 1_000_000 + 1,
                "999999999999999900.0001",
            ),
        ] {
            assert_eq!(decimal(ten_thousandths), text);
        }
    }

    #[test]
    fn an_average_is_rounded_half_up_and_a_user_without_decisions_has_none() {
        let time = Timestamp::MIN;
        let group = UserGroup {
            status: "review".into(),
            fraud_indicators: "high_amount".into(),
            decisions: 2,
            total: 3,
            largest: Amount::from_ten_thousandths(2).unwrap(),
            highest_score: 41.5,
            first: time,
            last: time,
        };
        let summary = summarize("u".into(), &[group], None).unwrap();
        assert_eq!(
            (
                summary.total_amount.as_str(),
                summary.average_amount.as_str()
            ),
            ("0.0003", "0.0002")
        );
        assert_eq!(
            (summary.by_status["review"], summary.by_status["blocked"]),
            (2, 0)
        );
        assert_eq!(summary.by_indicator["high_amount"], 2);
        assert!(summarize("u".into(), &[], None).is_none());
    }
}
