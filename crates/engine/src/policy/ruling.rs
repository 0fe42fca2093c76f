//! What a policy adds to a verdict: which policy decided, what fired, what would have, and what set the status.

use std::borrow::Cow;
use std::sync::Arc;

use serde::Serialize;
use serde::ser::{SerializeMap as _, Serializer};
use serde_json::value::RawValue;
use tollgate_policy::{Action, Effect, Slots, Value};
use tollgate_types::{Contribution, Status, Tenant, Timestamp, TraceContext, Transaction};

use crate::Verdict;

/// The policy that decided.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PolicyReference {
    /// The change that brought it; `None` for the built-in one.
    pub change: Option<u64>,
    /// 64 hexadecimal digits.
    pub hash: Arc<str>,
}

/// What a policy adds to a verdict.
#[derive(Debug, Clone, PartialEq)]
pub struct Ruling {
    /// The policy in force; of a duplicate that of the first verdict.
    pub policy: PolicyReference,
    /// The rule whose action, or `score`, `conflicting_duplicate` or `late`, that set the status.
    pub decided_by: Arc<str>,
    /// What fired and counts. Empty for a duplicate, as are the next two.
    pub contributions: Vec<Fired>,
    /// What fired in shadow.
    pub shadow: Vec<Fired>,
    /// What would have fired without a suppression, live or in shadow.
    pub suppressed: Vec<Fired>,
}

/// A built-in indicator or rule that fired.
#[derive(Debug, Clone, PartialEq)]
pub struct Fired {
    /// Its name.
    pub indicator: Cow<'static, str>,
    /// What it does; `None` where it is suppressed.
    pub effect: Option<Effect>,
    /// What it read.
    pub values: Vec<(Cow<'static, str>, Shown)>,
}

/// A value as a decision shows it.
#[derive(Debug, Clone, PartialEq)]
pub enum Shown {
    /// Null.
    Unknown,
    /// A number.
    Number(f64),
    /// True or false.
    Bool(bool),
    /// A text; money as the shortest decimal, and a time in UTC.
    Text(String),
}

impl Fired {
    /// A built-in indicator.
    pub(super) fn built_in(contribution: &Contribution) -> Self {
        let mut values = Vec::new();
        let mut add = |name: &'static str, value: Option<Shown>| {
            values.extend(value.map(|value| (Cow::Borrowed(name), value)));
        };
        let number = |value: f64| Shown::Number(value);
        add("count", contribution.count.map(f64::from).map(number));
        let text = |text: String| Shown::Text(text);
        let amount = contribution.amount;
        add(
            "amount",
            amount.map(|amount| text(shortest(amount.to_string()))),
        );
        let base = contribution.amount_base;
        add(
            "amount_base",
            base.map(|base| text(shortest(base.to_string()))),
        );
        add("speed_kmh", contribution.speed_kmh.map(number));
        add("distance_km", contribution.distance_km.map(number));
        Self {
            indicator: Cow::Borrowed(contribution.indicator.name()),
            effect: Some(Effect::Points(contribution.points)),
            values,
        }
    }

    /// A rule.
    pub(super) fn rule(rule: &tollgate_policy::Rule, slots: &Slots<'_>) -> Self {
        let reads = rule.condition.reads.iter();
        let values = reads.map(|read| {
            let name = Cow::Owned(read.name.clone());
            (name, Shown::of(slots.value(read.slot)))
        });
        Self {
            indicator: Cow::Owned(rule.id.clone()),
            effect: Some(rule.effect),
            values: values.collect(),
        }
    }

    /// Its points; 0 where it has an action.
    #[must_use]
    pub const fn points(&self) -> f64 {
        match self.effect {
            Some(Effect::Points(points)) => points,
            _ => 0.0,
        }
    }

    pub(super) fn has(&self, action: Action) -> bool {
        self.effect == Some(Effect::Action(action))
    }
}

/// Without zeros at the end of a fraction.
fn shortest(decimal: String) -> String {
    if !decimal.contains('.') {
        return decimal;
    }
    let shortest = decimal.trim_end_matches('0').trim_end_matches('.');
    shortest.to_owned()
}

impl Shown {
    fn of(value: Value<'_>) -> Self {
        match value {
            Value::Unknown => Self::Unknown,
            Value::Number(number) => Self::Number(number),
            Value::Bool(value) => Self::Bool(value),
            Value::String(text) => Self::Text(text.to_owned()),
            Value::Money(money) => Self::Text(money.to_string()),
            Value::Timestamp(time) => Self::Text(time.to_string()),
        }
    }
}

impl Serialize for Shown {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Unknown => serializer.serialize_none(),
            Self::Number(number) => serialize_number(*number, serializer),
            Self::Bool(value) => serializer.serialize_bool(*value),
            Self::Text(text) => serializer.serialize_str(text),
        }
    }
}

/// Whole numbers are written without a fraction.
fn serialize_number<S: Serializer>(number: f64, serializer: S) -> Result<S::Ok, S::Error> {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    if number.fract() == 0.0 && number.abs() < EXACT {
        #[expect(clippy::cast_possible_truncation, reason = "whole, and below 2^53")]
        return serializer.serialize_i64(number as i64);
    }
    serializer.serialize_f64(number)
}

impl Serialize for Fired {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("indicator", &self.indicator)?;
        match self.effect {
            Some(Effect::Points(points)) => {
                map.serialize_entry("points", &Shown::Number(points))?
            }
            Some(Effect::Action(action)) => map.serialize_entry("action", action_name(action))?,
            None => {}
        }
        map.serialize_entry("values", &Values(&self.values))?;
        map.end()
    }
}

struct Values<'v>(&'v [(Cow<'static, str>, Shown)]);

impl Serialize for Values<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, value)| (name, value)))
    }
}

const fn action_name(action: Action) -> &'static str {
    match action {
        Action::Allow => "allow",
        Action::Block => "block",
        Action::Review => "review",
    }
}

/// A decision under a policy, as JSON has it.
#[derive(Serialize)]
struct RuledDecision<'a> {
    transaction_id: &'a str,
    user_id: &'a str,
    fraud_score: Shown,
    fraud_indicators: Vec<&'a str>,
    status: Status,
    processed_at: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    contributions: Option<&'a [Fired]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    shadow: Option<&'a [Fired]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    suppressed: Option<&'a [Fired]>,
    decided_by: &'a str,
    policy: &'a PolicyReference,
    ruleset_version: &'a str,
    late: bool,
    duplicate: bool,
    conflict: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    tenant: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    traceparent: Option<&'a str>,
    transaction: &'a RawValue,
}

impl Ruling {
    /// Appends the decision on one line.
    pub(crate) fn write_decision(
        &self,
        verdict: &Verdict,
        tenant: Tenant<'_>,
        transaction: &Transaction<'_>,
        processed_at: Timestamp,
        trace: Option<TraceContext>,
        out: &mut Vec<u8>,
    ) {
        let traceparent = trace.map(TraceContext::to_traceparent);
        let contributions = first(verdict, &self.contributions);
        let fraud_indicators = match contributions {
            Some(fired) => fired.iter().map(|fired| &*fired.indicator).collect(),
            None => verdict.indicators.iter().map(|each| each.name()).collect(),
        };
        let decision = RuledDecision {
            transaction_id: &transaction.transaction_id,
            user_id: &transaction.user_id,
            fraud_score: Shown::Number(verdict.score),
            fraud_indicators,
            status: verdict.status,
            processed_at,
            contributions,
            shadow: first(verdict, &self.shadow),
            suppressed: first(verdict, &self.suppressed),
            decided_by: &self.decided_by,
            policy: &self.policy,
            ruleset_version: &self.policy.hash,
            late: verdict.late,
            duplicate: verdict.duplicate,
            conflict: verdict.conflict,
            tenant: tenant.given(),
            traceparent: traceparent
                .as_ref()
                .and_then(|text| std::str::from_utf8(text).ok()),
            transaction: RawValue::NULL,
        };
        // Writing to memory cannot fail, and every member serialises.
        let _ = serde_json::to_writer(&mut *out, &decision);
        // The transaction is the last member.
        out.truncate(out.len() - "null}".len());
        out.extend_from_slice(transaction.one_line().as_bytes());
        out.push(b'}');
    }
}

/// What is shown of a first verdict only.
fn first<'f>(verdict: &Verdict, fired: &'f [Fired]) -> Option<&'f [Fired]> {
    (!verdict.duplicate).then_some(fired)
}
