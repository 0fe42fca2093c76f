//! `[[rules]]`.

use std::collections::BTreeSet;

use super::builtin::INDICATORS;
use super::conditions::Conditions;
use super::fields::{Document, Fields, NAME, POINTS, identifier, money, number, text};
use super::names::Declared;
use crate::fault::FaultKind;
use crate::language::Names;
use crate::policy::{Action, Effect, Rule};
use crate::source::{Item, Value};

/// Names that decisions use for something else than a rule.
const TAKEN: [&str; 2] = ["score", "late"];
/// A rollout of all users, in hundredths of a percent.
const EVERYBODY: u16 = 10_000;

const ACTIONS: [(&str, Action); 3] = [
    ("allow", Action::Allow),
    ("block", Action::Block),
    ("review", Action::Review),
];

pub(super) fn rules(
    document: &mut Document,
    root: Fields<'_>,
    declared: &Declared,
    conditions: &mut Conditions,
) -> Vec<Rule> {
    let mut ids: BTreeSet<&str> = TAKEN.into_iter().chain(INDICATORS).collect();
    let is_table = |value: &Value| matches!(value, Value::Table(_));
    let items = document.array(root.item("rules"), "[[rules]]", is_table);
    let mut found = Vec::with_capacity(items.len());
    for item in items {
        found.extend(rule(document, item, declared, &mut ids, conditions));
    }
    found
}

fn rule<'a>(
    document: &mut Document,
    item: &'a Item,
    declared: &Declared,
    ids: &mut BTreeSet<&'a str>,
    conditions: &mut Conditions,
) -> Option<Rule> {
    let fields = document.table(Some(item));
    document.only(
        fields,
        &[
            "id", "when", "points", "action", "mode", "rollout", "reason",
        ],
    );
    document.required(fields, "id", NAME, |value| {
        text(value).and_then(identifier).map(|_| ())
    });
    let id = fields.item("id").and_then(|place| {
        let id = text(&place.value).and_then(identifier)?;
        if !ids.insert(id) {
            let message =
                format!("{id} is there already, or what decisions use for something else");
            document.wrong(place, FaultKind::Duplicate, message);
        }
        Some(id)
    });
    let effect = effect(document, fields);
    let mode = document.mode(fields);
    let rollout = document
        .optional(
            fields,
            "rollout",
            "percent of users, 0 to 100 with at most two decimal places",
            rollout,
        )
        .unwrap_or(EVERYBODY);
    let reason = document.optional(fields, "reason", "a text", |value| {
        text(value).map(str::to_owned)
    });
    document.required(fields, "when", "a condition in quotes", |value| {
        text(value).map(|_| ())
    });
    let suggestions = std::mem::take(&mut document.suggestions);
    let names = Names {
        types: &declared.names,
        lists: &declared.list_names,
        not_members: None,
        suggestions: &suggestions,
    };
    let condition = fields
        .item("when")
        .and_then(|place| conditions.condition(document, place, declared, names));
    document.suggestions = suggestions;
    Some(Rule {
        id: id?.to_owned(),
        condition: condition?,
        effect: effect?,
        mode,
        rollout,
        reason,
    })
}

/// Points or an action, one of the two.
fn effect(document: &mut Document, fields: Fields<'_>) -> Option<Effect> {
    let points = document.optional(fields, "points", "a number from 0 to 1000000", |value| {
        number(value, POINTS.0, POINTS.1)
    });
    let action = document.one_of(fields, "action", &ACTIONS);
    match (fields.item("points"), fields.item("action")) {
        (Some(_), Some(place)) => {
            let message = "a rule has points or an action, not both: leave one out";
            document.wrong(place, FaultKind::Value, message);
            None
        }
        (None, None) => {
            let message = "points or action is missing: points = 35, or action = \"allow\", \"block\" or \"review\"";
            document.fault(fields.at(), FaultKind::Missing, message);
            None
        }
        _ => points.map(Effect::Points).or(action.map(Effect::Action)),
    }
}

/// Hundredths of a percent.
fn rollout(value: &Value) -> Option<u16> {
    let Value::Number(_) = value else {
        return None;
    };
    let percent = money(value)?.ten_thousandths();
    let hundredths = u16::try_from(percent / 100).ok()?;
    (percent % 100 == 0 && percent >= 0 && hundredths <= EVERYBODY).then_some(hundredths)
}
