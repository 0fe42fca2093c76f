//! Statistics over all decisions of a tenant. The store keeps the counts, so that the cost does not depend on the number of rows.

use std::collections::BTreeMap;

use axum::extract::{Query, State};
use axum::{Extension, Json};
use serde::Serialize;
use tollgate_service::http::{Caller, Problem};
use tollgate_types::{Status, Timestamp};
use utoipa::ToSchema;

use super::decisions::only_tenant;
use super::{Api, by_indicator, by_status};
use crate::rows::split;
use crate::store::Counts;

/// Points that one bucket of the histogram spans; the migrations say the same.
const BUCKET_POINTS: i64 = 10;
/// Number of the last bucket, which is open.
const LAST_BUCKET: i64 = 14;

/// Statistics over all decisions of a tenant.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Stats {
    decisions: i64,
    /// How many of each status.
    #[schema(value_type = BTreeMap<String, i64>)]
    by_status: BTreeMap<&'static str, i64>,
    /// How many with each indicator; one decision may have several.
    #[schema(value_type = BTreeMap<String, i64>)]
    by_indicator: BTreeMap<&'static str, i64>,
    score_histogram: Vec<ScoreBucket>,
    /// Share of decisions that are `review` or `blocked`, 0 to 1.
    alert_share: f64,
    #[schema(value_type = Option<String>, format = DateTime)]
    first_event_time: Option<Timestamp>,
    #[schema(value_type = Option<String>, format = DateTime)]
    last_event_time: Option<Timestamp>,
    /// When the scorer made the newest of the decisions.
    #[schema(value_type = Option<String>, format = DateTime)]
    last_processed_at: Option<Timestamp>,
}

/// The number of scores in a range.
#[derive(Debug, PartialEq, Serialize, ToSchema)]
pub(super) struct ScoreBucket {
    /// Inclusive.
    from: i64,
    /// Exclusive; null in the last one.
    to: Option<i64>,
    decisions: i64,
}

/// Statistics over all decisions of a tenant
#[utoipa::path(
    get,
    path = "/v1/stats",
    params(("tenant" = Option<String>, Query, description = "This tenant's, for a key that reads all tenants; empty for the default tenant")),
    responses(
        super::documents::CommonProblems,
        (status = 200, description = "The statistics", body = Stats),
    ),
    security((), ("bearer" = []), ("api_key" = []), ("basic" = [])),
    tag = "stats"
)]
pub(super) async fn get_stats(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Query(pairs): Query<Vec<(String, String)>>,
) -> Result<Json<Stats>, Problem> {
    let tenant = only_tenant(&caller, pairs)?;
    Ok(Json(summarize(&api.store.counts(tenant.as_deref()).await?)))
}

fn summarize(counts: &Counts) -> Stats {
    let all = || counts.counts.iter();
    let decisions = all().map(|count| count.decisions).sum();
    let statuses = by_status(all().map(|count| (count.status.clone(), count.decisions)));
    let alerts: i64 = Status::ALL
        .iter()
        .filter(|status| status.is_alert())
        .filter_map(|status| statuses.get(status.name()))
        .sum();
    let bucket = |number: i64| ScoreBucket {
        from: number * BUCKET_POINTS,
        to: (number < LAST_BUCKET).then_some((number + 1) * BUCKET_POINTS),
        decisions: all()
            .filter(|count| count.score_bucket == number)
            .map(|count| count.decisions)
            .sum(),
    };
    #[expect(clippy::cast_precision_loss, reason = "a share is a float")]
    let alert_share = if decisions == 0 {
        0.0
    } else {
        alerts as f64 / decisions as f64
    };
    Stats {
        decisions,
        by_indicator: by_indicator(
            all().map(|count| (split(&count.fraud_indicators), count.decisions)),
        ),
        by_status: statuses,
        score_histogram: (0..=LAST_BUCKET).map(bucket).collect(),
        alert_share,
        first_event_time: counts.first,
        last_event_time: counts.last,
        last_processed_at: all().map(|count| count.last_processed).max(),
    }
}
