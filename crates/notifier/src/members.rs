//! Setting `members` of a sink: the members of the transaction that it gets.

use std::fmt;
use std::sync::Arc;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use tollgate_types::Decision;

use crate::alert::Alert;

/// The members of the transaction that a sink gets; all of them by default.
#[derive(Debug, Clone, Default)]
pub struct SentMembers(Option<Arc<[String]>>);

impl SentMembers {
    /// Only these; `None` for all.
    pub(crate) fn only(names: Option<&[String]>) -> Self {
        Self(names.map(Arc::from))
    }

    /// The alert as the sink gets it. Everything outside the transaction, and the text of each member that is sent, stays
    /// as it was.
    pub(crate) fn of(&self, alert: &Arc<Alert>) -> Arc<Alert> {
        let Some(names) = &self.0 else {
            return Arc::clone(alert);
        };
        let mut sent = Alert::clone(alert);
        sent.json = filtered(&alert.json, names).into();
        Arc::new(sent)
    }
}

fn filtered(alert: &str, names: &[String]) -> String {
    let Ok(decision) = Decision::parse(alert.as_bytes()) else {
        // It was parsed when it was read. If that changes, the transaction is rather missing than sent.
        return "{}".to_owned();
    };
    let whole = decision.transaction.get();
    let start = whole.as_ptr().addr() - alert.as_ptr().addr();
    let members: Object<'_> = serde_json::from_str(whole).unwrap_or_default();
    let kept = members
        .0
        .iter()
        .filter(|(name, _)| names.iter().any(|kept| kept == name));
    let kept: Vec<String> = kept
        .map(|(name, value)| {
            let quoted = serde_json::to_string(name).unwrap_or_default();
            format!("{quoted}:{}", value.get())
        })
        .collect();
    let (before, after) = (&alert[..start], &alert[start + whole.len()..]);
    format!("{before}{{{}}}{after}", kept.join(","))
}

/// The members of an object in their order, with the text of their values.
#[derive(Default)]
struct Object<'a>(Vec<(String, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Object<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Object<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some((name, value)) = map.next_entry::<String, &'de RawValue>()? {
                    members.push((name, value));
                }
                Ok(Object(members))
            }
        }
        deserializer.deserialize_map(Members)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALERT: &str = r#"{"transaction_id":"t","user_id":"u","fraud_score":61.0,"fraud_indicators":["high_amount"],"status":"review","processed_at":"2026-03-01T12:30:00Z","contributions":[],"ruleset_version":"v","late":false,"duplicate":false,"transaction":{"transaction_id":"t","amount":1.50,"email":"a@example.com","n\u006fte": {"a":1}}}"#;

    fn sent(names: &[&str]) -> String {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        filtered(ALERT, &names)
    }

    #[test]
    fn only_the_listed_members_of_the_transaction_are_sent_and_their_text_is_unchanged() {
        let (decision, _) = ALERT.split_once(r#""transaction":"#).unwrap();
        for (names, transaction) in [
            (&["amount", "note"][..], r#"{"amount":1.50,"note":{"a":1}}"#),
            (
                &["note", "absent", "transaction_id"],
                r#"{"transaction_id":"t","note":{"a":1}}"#,
            ),
            (&[], "{}"),
        ] {
            assert_eq!(
                sent(names),
                format!(r#"{decision}"transaction":{transaction}}}"#)
            );
        }
    }
}
