//! A checked policy: what decides, with types, and ready to be evaluated. It is immutable, `Send` and `Sync`, and shared by
//! an `Arc`.

use std::fmt;

use tollgate_types::Status;

use crate::language::Test;
use crate::money::Money;
use crate::slots::{Layout, Slot, Slots};

/// The identity of a policy: the SHA-256 of its document's canonical JSON form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PolicyHash(pub(crate) [u8; 32]);

impl PolicyHash {
    /// The 32 bytes.
    #[must_use]
    pub const fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// 64 hexadecimal digits in lower case.
impl fmt::Display for PolicyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Everything that decides.
#[derive(Debug, Clone)]
pub struct Policy {
    /// The document's name, any text.
    pub name: String,
    /// Its identity.
    pub hash: PolicyHash,
    /// When points lead to a review or a block.
    pub thresholds: Thresholds,
    /// Parameters of the built-in indicators.
    pub builtin: Builtin,
    /// Members that conditions and features may read, by path; `amount`, `timestamp` and `user_id` are not among them.
    pub members: Vec<Member>,
    /// Names of lists that conditions may look into.
    pub lists: Vec<String>,
    /// In the order of the document.
    pub features: Vec<Feature>,
    /// In the order of the document, in which their points are added.
    pub rules: Vec<Rule>,
    /// The slots of everything that conditions read.
    pub layout: Layout,
    /// The longest window of any feature or built-in indicator, in seconds.
    pub longest_window: u64,
    /// Tables whose contents belong to other parts of the system, as canonical JSON values.
    pub tables: Tables,
}

/// Tables that are part of a document's identity and that this crate does not interpret.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Tables {
    /// `[[tests]]`: the document's own test cases.
    pub tests: Vec<serde_json::Value>,
    /// `[brake]`.
    pub brake: Option<serde_json::Value>,
    /// `[model]`.
    pub model: Option<serde_json::Value>,
    /// `[explore]`.
    pub explore: Option<serde_json::Value>,
}

/// Points, and what becomes of late transactions.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Thresholds {
    /// Points from which a transaction is reviewed; at most `block`.
    pub review: f64,
    /// Points from which it is blocked.
    pub block: f64,
    /// The least status of a late transaction.
    pub late_status: Status,
}

/// Whether something decides, is only shown, or is not evaluated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Mode {
    /// It decides.
    #[default]
    Live,
    /// It is evaluated, and shown in the decision.
    Shadow,
    /// It is not evaluated.
    Off,
}

/// Parameters of the built-in indicators, with the defaults of the scoring rules. Windows are seconds.
#[derive(Debug, Clone, Copy, PartialEq)]
#[expect(missing_docs, reason = "named as in a document")]
pub struct Builtin {
    pub high_velocity: HighVelocity,
    pub high_amount: HighAmount,
    pub geographic_anomaly: GeographicAnomaly,
    pub suspicious_pattern: SuspiciousPattern,
    pub conflicting_duplicate: ConflictingDuplicate,
}

/// Many transactions of a user within a window.
#[derive(Debug, Clone, Copy, PartialEq)]
#[expect(missing_docs, reason = "named as in a document")]
pub struct HighVelocity {
    pub mode: Mode,
    pub window_seconds: u64,
    pub minimum_count: u64,
    pub points_per_transaction: f64,
    pub cap: f64,
    pub arrival_within_hours: f64,
}

/// An amount above a threshold.
#[derive(Debug, Clone, Copy, PartialEq)]
#[expect(missing_docs, reason = "named as in a document")]
pub struct HighAmount {
    pub mode: Mode,
    pub threshold: Money,
    pub points_per_threshold: f64,
    pub cap: f64,
}

/// A journey faster than anybody travels.
#[derive(Debug, Clone, Copy, PartialEq)]
#[expect(missing_docs, reason = "named as in a document")]
pub struct GeographicAnomaly {
    pub mode: Mode,
    pub window_seconds: u64,
    pub threshold_kmh: f64,
    pub kmh_per_point: f64,
    pub minimum_km: f64,
    pub cap: f64,
    pub null_island: bool,
}

/// Round or repeated amounts.
#[derive(Debug, Clone, Copy, PartialEq)]
#[expect(missing_docs, reason = "named as in a document")]
pub struct SuspiciousPattern {
    pub mode: Mode,
    pub round_multiple: Money,
    pub round_minimum: Money,
    pub round_points: f64,
    pub repeat_window_seconds: u64,
    pub repeat_minimum_count: u64,
    pub points_per_repeat: f64,
    pub repeat_cap: f64,
}

/// A transaction's id again with another amount.
#[derive(Debug, Clone, Copy, PartialEq)]
#[expect(missing_docs, reason = "named as in a document")]
pub struct ConflictingDuplicate {
    pub mode: Mode,
    pub points: f64,
}

/// The type of a declared member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MemberType {
    /// A text.
    String,
    /// A number, read as a double.
    Number,
    /// True or false.
    Bool,
    /// A number or decimal string, read exactly.
    Money,
}

/// A member of transactions that conditions and features may read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Names from the outside in, joined by dots: `card.bin`.
    pub path: String,
    /// The declared type.
    pub kind: MemberType,
}

/// How a feature is made of the transactions in its window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Aggregate {
    /// How many.
    Count,
    /// The sum of a member; of none it is 0.
    Sum,
    /// Its mean; of none it is unknown.
    Mean,
    /// Its minimum.
    Min,
    /// Its maximum.
    Max,
    /// How many different strings.
    Distinct,
    /// Seconds to the nearest other transaction.
    SecondsSinceLast,
    /// Seconds since the earliest one at or before this one.
    SecondsSinceFirst,
}

/// A value computed of a user's history. This crate checks the declaration; the engine keeps the value.
#[derive(Debug, Clone)]
pub struct Feature {
    /// The name in conditions.
    pub name: String,
    /// How it is made.
    pub of: Aggregate,
    /// Of which member; `None` where the aggregate has none.
    pub member: Option<String>,
    /// Seconds to either side of a transaction.
    pub window: u64,
    /// Members that form the key together with `user_id`, in the order of the document.
    pub by: Vec<String>,
    /// Which transactions are left in; it reads members alone.
    pub condition: Option<Condition>,
    /// What must be remembered of each transaction beside amount and time: members with their types, sorted.
    pub reads: Vec<Member>,
}

/// What a rule does when it fires.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Effect {
    /// It adds points, 0 to 1,000,000.
    Points(f64),
    /// It sets the status.
    Action(Action),
}

/// The action of a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// Approved, whatever else fired.
    Allow,
    /// Blocked.
    Block,
    /// At least reviewed.
    Review,
}

/// A rule.
#[derive(Debug, Clone)]
pub struct Rule {
    /// The name in decisions.
    pub id: String,
    /// When it fires.
    pub condition: Condition,
    /// What it does then.
    pub effect: Effect,
    /// Whether it decides.
    pub mode: Mode,
    /// For how many of 10,000 users it is live; for the others it is in shadow.
    pub rollout: u16,
    /// The words for people.
    pub reason: Option<String>,
}

/// Something that a condition reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Read {
    /// As `values` of a decision name it.
    pub name: String,
    /// Where it stands.
    pub slot: Slot,
}

/// A compiled condition.
#[derive(Debug, Clone)]
pub struct Condition {
    /// As the document writes it.
    pub source: String,
    /// What it reads, in the order of first use.
    pub reads: Vec<Read>,
    /// Whether it compares money. Then something should look at the currency.
    pub compares_money: bool,
    pub(crate) test: Test,
}

impl Condition {
    /// True, false, or unknown. The slots must be those of the policy's layout; others read as unknown.
    #[must_use]
    pub fn evaluate(&self, slots: &Slots<'_>) -> Option<bool> {
        self.test.evaluate(slots)
    }
}
