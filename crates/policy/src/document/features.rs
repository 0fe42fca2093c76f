//! `[[features]]`: declarations alone; the engine computes them.

use std::collections::{BTreeMap, BTreeSet};

use super::conditions::Conditions;
use super::fields::{Document, Fields, NAME, duration, identifier, text};
use super::names::{Declared, is_always};
use crate::fault::FaultKind;
use crate::language::{Names, Type};
use crate::policy::{Aggregate, Condition, Feature, Member, MemberType};
use crate::slots::Input;
use crate::source::{Item, Value};

const AGGREGATES: [(&str, Aggregate); 8] = [
    ("count", Aggregate::Count),
    ("sum", Aggregate::Sum),
    ("mean", Aggregate::Mean),
    ("min", Aggregate::Min),
    ("max", Aggregate::Max),
    ("distinct", Aggregate::Distinct),
    ("seconds_since_last", Aggregate::SecondsSinceLast),
    ("seconds_since_first", Aggregate::SecondsSinceFirst),
];

impl Aggregate {
    /// The types that its member may have; without one it has no member.
    const fn takes(self) -> &'static [Type] {
        match self {
            Self::Count | Self::SecondsSinceLast | Self::SecondsSinceFirst => &[],
            Self::Distinct => &[Type::String],
            Self::Sum | Self::Mean | Self::Min | Self::Max => &[Type::Money, Type::Number],
        }
    }

    fn name(self) -> &'static str {
        AGGREGATES
            .iter()
            .find(|(_, each)| *each == self)
            .map_or("", |(name, _)| name)
    }
}

pub(super) fn features(
    document: &mut Document,
    root: Fields<'_>,
    declared: &mut Declared,
    conditions: &mut Conditions,
) -> Vec<Feature> {
    let is_table = |value: &Value| matches!(value, Value::Table(_));
    let items = document.array(root.item("features"), "[[features]]", is_table);
    // A `where` that names a feature is told so, also where the feature comes later.
    let feature_names: BTreeSet<String> = items
        .iter()
        .filter_map(|item| match &item.value {
            Value::Table(table) => table.get("name"),
            _ => None,
        })
        .filter_map(|entry| text(&entry.item.value).map(str::to_owned))
        .collect();
    let mut found = Vec::with_capacity(items.len());
    for item in items {
        let index = found.len();
        found.extend(feature(
            document,
            item,
            index,
            declared,
            &feature_names,
            conditions,
        ));
    }
    found
}

fn feature(
    document: &mut Document,
    item: &Item,
    index: usize,
    declared: &mut Declared,
    feature_names: &BTreeSet<String>,
    conditions: &mut Conditions,
) -> Option<Feature> {
    let fields = document.table(Some(item));
    document.only(fields, &["name", "of", "window", "member", "by", "where"]);
    let name = document.required(fields, "name", NAME, |value| {
        text(value).and_then(identifier).map(str::to_owned)
    });
    if let (Some(name), Some(place)) = (&name, fields.item("name"))
        && declared.names.contains_key(name)
    {
        document.wrong(
            place,
            FaultKind::Duplicate,
            format!("{name} is there already"),
        );
    }
    let of = {
        let wanted = super::fields::listed(&AGGREGATES);
        document.required(fields, "of", &wanted, |value| {
            super::fields::choose(value, &AGGREGATES)
        })
    };
    let window = document.required(
        fields,
        "window",
        "1m to 35d, such as 90s, 10m, 24h or 7d",
        duration,
    );
    let member = member(document, fields, of, &declared.members);
    let by = by(document, fields, declared, conditions);
    let condition = match fields.item("where") {
        None => None,
        Some(place) => {
            if text(&place.value).is_none() {
                document.wrong(
                    place,
                    FaultKind::Value,
                    "where: expected a condition in quotes",
                );
            }
            let suggestions = std::mem::take(&mut document.suggestions);
            let names = Names {
                types: &declared.members,
                lists: &declared.list_names,
                not_members: Some(feature_names),
                suggestions: &suggestions,
            };
            let condition = conditions.condition(document, place, declared, names);
            document.suggestions = suggestions;
            condition
        }
    };
    let kind = match of {
        Some(Aggregate::Sum | Aggregate::Mean | Aggregate::Min | Aggregate::Max) => {
            // Also of a member that it does not take: its type is known, and the fault has been told.
            let named = fields.item("member").and_then(|item| text(&item.value));
            named.and_then(|member| declared.members.get(member).copied().flatten())
        }
        Some(_) => Some(Type::Number),
        None => None,
    };
    let name = name?;
    declared.feature(&name, index, kind);
    let reads = reads(declared, member, &by, condition.as_ref(), conditions);
    Some(Feature {
        name,
        of: of?,
        member: member.map(str::to_owned),
        window: window?,
        by,
        condition,
        reads,
    })
}

/// The member that is aggregated, where it may be.
fn member<'a>(
    document: &mut Document,
    fields: Fields<'a>,
    of: Option<Aggregate>,
    members: &BTreeMap<String, Option<Type>>,
) -> Option<&'a str> {
    let Some(item) = fields.item("member") else {
        if let Some(of) = of.filter(|of| !of.takes().is_empty()) {
            let message = format!("member is missing: {} is made of a member", of.name());
            document.fault(fields.at(), FaultKind::Missing, message);
        }
        return None;
    };
    let Some(member) = text(&item.value) else {
        document.wrong(
            item,
            FaultKind::Value,
            "member: expected the name of a member",
        );
        return None;
    };
    let takes = of.map(Aggregate::takes);
    let name = of.map_or("", Aggregate::name);
    match (takes, members.get(member)) {
        (Some([]), _) => {
            document.wrong(item, FaultKind::Value, format!("{name} has no member"));
            None
        }
        (_, None) => {
            let near = document
                .suggestions
                .nearest(member, members.keys().map(String::as_str));
            let message = format!("{member} is no member{near}");
            document.wrong(item, FaultKind::UnknownName, message);
            None
        }
        (Some(takes), Some(Some(found))) if !takes.contains(found) => {
            let wanted: Vec<&str> = takes.iter().map(|each| each.name()).collect();
            let wanted = wanted.join(" or ");
            let message = format!(
                "{name} expects a member of type {wanted}; {member} is a {}",
                found.name()
            );
            document.wrong(item, FaultKind::Type, message);
            None
        }
        _ => Some(member),
    }
}

/// The members of the key.
fn by(
    document: &mut Document,
    fields: Fields<'_>,
    declared: &Declared,
    conditions: &mut Conditions,
) -> Vec<String> {
    let is_text = |value: &Value| text(value).is_some();
    let mut found: Vec<String> = Vec::new();
    let mut seen = BTreeSet::new();
    for item in document.array(fields.item("by"), "an array of members", is_text) {
        let key = text(&item.value).unwrap_or_default();
        conditions.sees_currency |= Conditions::is_currency(key);
        match declared.members.get(key) {
            None => {
                let known = declared.members.keys().map(String::as_str);
                let near = document.suggestions.nearest(key, known);
                let message = format!("{key} is no member{near}");
                document.wrong(item, FaultKind::UnknownName, message);
            }
            Some(Some(found @ (Type::Number | Type::Timestamp))) => {
                let message = format!(
                    "{key} is a {}, which is no key; a key is string, bool or money",
                    found.name()
                );
                document.wrong(item, FaultKind::Type, message);
            }
            Some(_) if key == "user_id" || seen.contains(key) => {
                let message = format!("{key} is part of the key already");
                document.wrong(item, FaultKind::Duplicate, message);
            }
            Some(_) => {}
        }
        seen.insert(key);
        found.push(key.to_owned());
    }
    found
}

/// What must be remembered of each transaction, beside what always is.
fn reads(
    declared: &Declared,
    member: Option<&str>,
    by: &[String],
    condition: Option<&Condition>,
    conditions: &Conditions,
) -> Vec<Member> {
    let mut paths: BTreeSet<&str> = by.iter().map(String::as_str).chain(member).collect();
    for read in condition
        .map(|condition| &condition.reads[..])
        .unwrap_or_default()
    {
        let entry = conditions.layout.entry(&read.name);
        if entry.is_some_and(|entry| matches!(entry.input, Input::Member(_))) {
            paths.insert(&read.name);
        }
    }
    paths
        .into_iter()
        .filter(|path| !is_always(path))
        .filter_map(|path| {
            let kind = match declared.members.get(path).copied().flatten()? {
                Type::String => MemberType::String,
                Type::Number => MemberType::Number,
                Type::Bool => MemberType::Bool,
                Type::Money => MemberType::Money,
                Type::Timestamp => return None,
            };
            Some(Member {
                path: path.to_owned(),
                kind,
            })
        })
        .collect()
}
