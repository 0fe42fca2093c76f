//! The parts of the OpenAPI document other than its paths: schemas of bodies that this service handles as text, and the
//! problems that every endpoint can answer with.

use serde::Serialize;
use tollgate_service::http::openapi::ApiKeySchemes;
pub(crate) use tollgate_service::http::openapi::ProblemSchema as Problem;
use utoipa::{IntoResponses, OpenApi, ToSchema};

use crate::report::ItemResult;

/// The document, without the paths.
#[derive(Debug, OpenApi)]
#[openapi(
    info(
        title = "Tollgate ingest",
        description = "Accepts card and account transactions to be decided on: approved, review or blocked.",
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

/// A transaction. Any other member is kept unchanged in the decision, the store and the alert.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Transaction {
    /// Unique within a user; 1 to 128 bytes, without control or invisible characters; brought to NFC.
    #[schema(min_length = 1, max_length = 128, example = "tx-1")]
    transaction_id: String,
    /// The key of the stream: one user's transactions stay in order. 1 to 128 bytes, without control or invisible
    /// characters; brought to NFC.
    #[schema(min_length = 1, max_length = 128, example = "user-1")]
    user_id: String,
    amount: Amount,
    /// RFC 3339, in the years 2000 (by default) to 9999, also with an offset like +01 or +0100; without an offset it is
    /// UTC. A number is rejected: it could be seconds or milliseconds. At most 5 minutes ahead of the clock, and, where API keys are configured, at most 72 hours old by default.
    #[schema(format = "date-time", example = "2026-03-01T12:30:00Z")]
    timestamp: String,
    /// Both coordinates, or no location.
    #[serde(skip_serializing_if = "Option::is_none")]
    location: Option<Location>,
    /// The code of the amount's currency in any case, such as EUR. Looked at where the rules have a base currency.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "EUR")]
    currency: Option<String>,
    /// Any other members, such as merchant_id, merchant_category, country, device_id, ip, channel.
    #[serde(flatten)]
    other: std::collections::BTreeMap<String, serde_json::Value>,
}

/// From 0 to 10^12 with at most 4 decimal places, processed exactly.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
#[schema(example = "1250.50")]
#[expect(dead_code, reason = "only its schema is used")]
pub(crate) enum Amount {
    /// A JSON number.
    Number(f64),
    /// A decimal string, which every JSON library preserves exactly.
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

/// What a caller that waits gets for an accepted transaction.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "only its schema is used")]
pub(crate) enum Reply {
    /// The decision.
    Decision(Decision),
    /// There is no decision.
    Error(ReplyError),
}

/// Why an accepted transaction has no decision. It is not approved: send it again with the same id, or hold the payment.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ReplyError {
    #[schema(example = "tx-1")]
    transaction_id: String,
    #[schema(example = "user-1")]
    user_id: String,
    /// Always `error`.
    #[schema(example = "error")]
    status: String,
    /// Class of the failure. The set is open.
    #[schema(example = "too_large")]
    kind: String,
    /// The member at fault, if it is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<String>,
    #[schema(example = "the transaction is larger than 262144 bytes")]
    reason: String,
}

/// The decision on a transaction, and the reasons for it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Decision {
    #[schema(example = "tx-1")]
    transaction_id: String,
    #[schema(example = "user-1")]
    user_id: String,
    /// The sum of the contributions' points: 70 and more is blocked, 40 and more review, by default.
    #[schema(example = 12.505)]
    fraud_score: f64,
    /// Names: `high_velocity`, `high_amount`, `geographic_anomaly`, `suspicious_pattern`, `conflicting_duplicate`, in this
    /// order, then those of other rules. The set is open; a reader must accept names that it does not know.
    #[schema(example = json!(["high_velocity", "high_amount"]))]
    fraud_indicators: Vec<String>,
    status: Status,
    /// When it was decided.
    #[schema(format = "date-time", example = "2026-03-01T12:30:00.012345Z")]
    processed_at: String,
    /// The points and the measured value of each indicator; may be missing in the decision on a duplicate.
    contributions: Vec<Contribution>,
    /// Fingerprint of the rules in force.
    ruleset_version: String,
    /// Whether the transaction is older than the history against which it was scored.
    late: bool,
    /// Whether the transaction was decided before; this is that decision again.
    duplicate: bool,
    transaction: Transaction,
}

/// The outcome of a transaction.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[expect(dead_code, reason = "only its schema is used")]
pub(crate) enum Status {
    Approved,
    Review,
    Blocked,
}

/// The contribution of one indicator to a score.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Contribution {
    #[schema(example = "high_amount")]
    indicator: String,
    points: f64,
    /// The number of transactions counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    count: Option<u32>,
    /// The amount that caused the indicator.
    #[serde(skip_serializing_if = "Option::is_none")]
    amount: Option<String>,
    /// That amount in the base currency of the rules, if they have one.
    #[serde(skip_serializing_if = "Option::is_none")]
    amount_base: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    speed_kmh: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    distance_km: Option<f64>,
}

/// The problems that every endpoint can answer with.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "only its responses are used")]
pub(crate) enum CommonProblems {
    /// No API key, or an unknown one.
    #[response(status = 401, content_type = "application/problem+json")]
    Unauthorized(Problem),
    /// The key lacks the scope `transactions:write`, or the request comes from a web page of another site.
    #[response(status = 403, content_type = "application/problem+json")]
    Forbidden(Problem),
    /// The body did not arrive in time, or too slowly.
    #[response(status = 408, content_type = "application/problem+json")]
    RequestTimeout(Problem),
    /// The body is too large, or has too many items.
    #[response(status = 413, content_type = "application/problem+json")]
    PayloadTooLarge(Problem),
    /// An unsupported content type or charset, or a content coding such as gzip.
    #[response(status = 415, content_type = "application/problem+json")]
    UnsupportedMediaType(Problem),
    /// The service does not answer under this host.
    #[response(status = 421, content_type = "application/problem+json")]
    MisdirectedRequest(Problem),
    /// The rate limit of the key, or its share of what is in flight, is exceeded. Nothing was accepted; send again after `Retry-After`.
    #[response(status = 429, content_type = "application/problem+json", headers(("Retry-After" = u64, description = "Seconds.")))]
    TooManyRequests(Problem),
    /// An internal error.
    #[response(status = 500, content_type = "application/problem+json")]
    InternalServerError(Problem),
    /// Too much is in flight, or the log has not acknowledged. Send again with the same ids after `Retry-After`.
    #[response(status = 503, content_type = "application/problem+json", headers(("Retry-After" = u64, description = "Seconds.")))]
    ServiceUnavailable(Problem),
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
