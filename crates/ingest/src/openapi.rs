//! What the OpenAPI document says beside its paths: shapes of bodies that pass through this service as text.

use serde::Serialize;
use tollgate_service::http::openapi::ApiKeySchemes;
pub(crate) use tollgate_service::http::openapi::ProblemSchema as Problem;
use utoipa::{OpenApi, ToSchema};

use crate::report::ItemResult;

/// The document, without the paths.
#[derive(Debug, OpenApi)]
#[openapi(
    info(
        title = "Tollgate ingest",
        description = "Takes card and account transactions to be decided on: approved, review or blocked.",
        license(name = "Apache-2.0", identifier = "Apache-2.0"),
    ),
    tags((name = "transactions", description = "Transactions to be decided on")),
    components(schemas(Status)),
    modifiers(&ApiKeySchemes),
)]
pub(crate) struct ApiDoc;

/// One transaction, or several.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "only its schema is used")]
pub(crate) enum Transactions {
    /// One.
    One(Transaction),
    /// Several, in the order in which they are written to the log.
    Several(Vec<Transaction>),
}

/// A transaction. Any further member is carried through untouched to decision, store and alert.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Transaction {
    /// Unique within a user; 1 to 128 bytes, no U+0000.
    #[schema(min_length = 1, max_length = 128, example = "tx-1")]
    transaction_id: String,
    /// The key of the stream: one user's transactions stay in order. 1 to 128 bytes, no U+0000.
    #[schema(min_length = 1, max_length = 128, example = "user-1")]
    user_id: String,
    amount: Amount,
    /// RFC 3339, in the years 0000 to 9999; without an offset it is UTC. At most 5 minutes ahead of the clock.
    #[schema(format = "date-time", example = "2026-03-01T12:30:00Z")]
    timestamp: String,
    /// Both coordinates, or no location.
    #[serde(skip_serializing_if = "Option::is_none")]
    location: Option<Location>,
    /// Such as currency, merchant_id, merchant_category, country, device_id, ip, channel.
    #[serde(flatten)]
    other: std::collections::BTreeMap<String, serde_json::Value>,
}

/// At least 0, at most 10^12, at most 4 decimal places, held exactly.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
#[schema(example = "1250.50")]
#[expect(dead_code, reason = "only its schema is used")]
pub(crate) enum Amount {
    /// A JSON number.
    Number(f64),
    /// A decimal string, which every JSON library keeps exactly.
    Decimal(String),
}

/// Degrees.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Location {
    #[schema(minimum = -90, maximum = 90, example = 52.52)]
    latitude: f64,
    #[schema(minimum = -180, maximum = 180, example = 13.405)]
    longitude: f64,
}

/// What was decided on a transaction, and why.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Decision {
    #[schema(example = "tx-1")]
    transaction_id: String,
    #[schema(example = "user-1")]
    user_id: String,
    /// The sum of the contributions' points: 70 and more is blocked, 40 and more review, by default.
    #[schema(example = 12.505)]
    fraud_score: f64,
    /// Names: `high_velocity`, `high_amount`, `geographic_anomaly`, `suspicious_pattern`, in this order, then those of
    /// other rules. The set is open; a reader must accept names that it does not know.
    #[schema(example = json!(["high_velocity", "high_amount"]))]
    fraud_indicators: Vec<String>,
    status: Status,
    /// When it was decided.
    #[schema(format = "date-time", example = "2026-03-01T12:30:00.012345Z")]
    processed_at: String,
    /// The points and the measured value behind each indicator; may be missing in a duplicate's decision.
    contributions: Vec<Contribution>,
    /// Fingerprint of the rules in force.
    ruleset_version: String,
    /// Older than the history that was there to judge it.
    late: bool,
    /// The transaction had been decided on before; this is that decision again.
    duplicate: bool,
    transaction: Transaction,
}

/// What is done with a transaction.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[expect(dead_code, reason = "only its schema is used")]
pub(crate) enum Status {
    Approved,
    Review,
    Blocked,
}

/// The share of one indicator in a score.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Contribution {
    #[schema(example = "high_amount")]
    indicator: String,
    points: f64,
    /// Transactions counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    count: Option<u32>,
    /// The amount that was high or round.
    #[serde(skip_serializing_if = "Option::is_none")]
    amount: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    speed_kmh: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    distance_km: Option<f64>,
}

/// A problem with the result of each item.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AllRejected {
    #[serde(rename = "type")]
    #[schema(example = "about:blank")]
    kind: String,
    #[schema(example = "Unprocessable Entity")]
    title: String,
    #[schema(example = 422)]
    status: u16,
    detail: String,
    /// Always 0.
    accepted: usize,
    rejected: usize,
    #[schema(value_type = Vec<ItemResult>)]
    results: Vec<ItemResult<'static>>,
}
