//! The conformance vectors of cel-spec that lie in the profile.

use serde::Deserialize;
use serde_json::Value as Json;

use super::{Value, Variables, evaluate};

#[derive(Deserialize)]
struct Vector {
    name: String,
    expr: String,
    #[serde(default)]
    bindings: std::collections::BTreeMap<String, Json>,
    /// What cel-spec expects; null for an error, which here is an unknown value.
    value: Json,
    /// What the profile says, where that is something else.
    profile: Option<Json>,
}

fn value(json: &Json) -> Option<Value> {
    match json {
        Json::Null => None,
        Json::Bool(value) => Some(Value::Bool(*value)),
        Json::Number(number) => Some(Value::Number(number.as_f64().unwrap())),
        Json::String(text) => Some(Value::String(text.clone())),
        other => panic!("no value of the profile: {other}"),
    }
}

#[test]
fn the_vectors_of_cel_spec_hold_except_for_integers_that_overflow() {
    let mut lines = 0;
    let mut different = Vec::new();
    for line in include_str!("../../../tests/data/cel-spec.jsonl").lines() {
        let vector: Vector = serde_json::from_str(line).unwrap();
        let variables: Variables = vector
            .bindings
            .iter()
            .map(|(name, bound)| {
                let bound = value(bound).unwrap();
                (name.clone(), (bound.type_of(), Some(bound)))
            })
            .collect();
        let found = evaluate(&vector.expr, &variables).unwrap();
        let expected = vector.profile.as_ref().unwrap_or(&vector.value);
        assert_eq!(found, value(expected), "{}: {}", vector.name, vector.expr);
        if vector.profile.is_some() {
            different.push(vector.name);
        }
        lines += 1;
    }
    assert_eq!(lines, 290);
    // A number is a double here.
    assert_eq!(different.len(), 4, "{different:?}");
    assert!(different.iter().all(|name| name.contains("overflow")));
}
