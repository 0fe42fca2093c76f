//! The OpenAPI document of the read API, and the schemas of values that are written as text.

use serde::Serialize;
use tollgate_service::http::openapi::{ApiKeySchemes, ProblemSchema};
use utoipa::{IntoResponses, OpenApi, ToSchema};

/// The read API.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "Tollgate: decisions",
        description = "Decisions on transactions, and what they add up to. Times are RFC 3339 in UTC; amounts are decimal strings."
    ),
    components(schemas(Decision, DecisionWithConflicts, Contribution, ProblemSchema)),
    modifiers(&ApiKeySchemes)
)]
pub(super) struct ApiDoc;

/// The problems that every request can be answered with.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "only its responses are used")]
pub(super) enum CommonProblems {
    /// No API key, or one that is unknown or has expired.
    #[response(status = 401, content_type = "application/problem+json")]
    Unauthorized(ProblemSchema),
    /// The key lacks the scope `decisions:read`, or the request comes from a web page of another site.
    #[response(status = 403, content_type = "application/problem+json")]
    Forbidden(ProblemSchema),
    /// The service does not answer under this host.
    #[response(status = 421, content_type = "application/problem+json")]
    MisdirectedRequest(ProblemSchema),
    /// The key has too many requests in flight, or answers that it has not read; send again after `Retry-After`.
    #[response(status = 429, content_type = "application/problem+json", headers(("Retry-After" = u64, description = "Seconds.")))]
    TooManyRequests(ProblemSchema),
    /// An error of the service.
    #[response(status = 500, content_type = "application/problem+json")]
    InternalServerError(ProblemSchema),
    /// The store does not answer, or too many requests are in flight; send again after `Retry-After`.
    #[response(status = 503, content_type = "application/problem+json", headers(("Retry-After" = u64, description = "Seconds.")))]
    ServiceUnavailable(ProblemSchema),
}

/// What was decided on a transaction, and why.
#[derive(Serialize, ToSchema)]
pub(super) struct Decision {
    /// Unique within the user.
    transaction_id: String,
    user_id: String,
    /// Sum of the contributions' points.
    fraud_score: f64,
    /// Names: `high_velocity`, `high_amount`, `geographic_anomaly`, `suspicious_pattern`, `conflicting_duplicate`, in this
    /// order, then those of other rules. The set is open; a reader must accept names that it does not know.
    fraud_indicators: Vec<String>,
    /// `approved`, `review` or `blocked`.
    status: String,
    /// When the scorer decided.
    #[schema(format = DateTime)]
    processed_at: String,
    /// Points and measured values; may be missing from a decision that was made anew for a duplicate.
    contributions: Vec<Contribution>,
    /// Fingerprint of the rules in force.
    ruleset_version: String,
    /// The transaction was older than the history that was there to judge it.
    late: bool,
    /// Always false here: the stored decision is the first one.
    duplicate: bool,
    /// True where the id of the transaction had been used for another amount; absent otherwise.
    conflict: Option<bool>,
    /// Namespace of the user; absent for the default tenant.
    tenant: Option<String>,
    /// The transaction as its producer wrote it, unknown members included.
    #[schema(value_type = Object)]
    transaction: String,
}

/// A decision and, if the id of its transaction was used again for other amounts, the decisions on those.
#[derive(Serialize, ToSchema)]
pub(super) struct DecisionWithConflicts {
    #[serde(flatten)]
    decision: Decision,
    /// The first 20 in the order in which they were decided; absent without conflicts. Lists hold all of them.
    conflicts: Option<Vec<Decision>>,
}

/// The points that one indicator gave, and the measured value behind them.
#[derive(Serialize, ToSchema)]
pub(super) struct Contribution {
    indicator: String,
    points: f64,
    /// Transactions counted.
    count: Option<u32>,
    /// The amount that was high or round.
    amount: Option<String>,
    /// That amount in the base currency of the rules, if they have one.
    amount_base: Option<String>,
    speed_kmh: Option<f64>,
    distance_km: Option<f64>,
}
