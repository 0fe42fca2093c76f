//! The policy document: TOML in, a checked [`Policy`] out, or every fault at once.

mod builtin;
mod conditions;
mod features;
mod fields;
mod names;
mod rules;

use sha2::{Digest as _, Sha256};
use tollgate_types::Status;

use crate::canonical::canonical;
use crate::fault::{Fault, FaultKind};
use crate::policy::{Policy, PolicyHash, Tables, Thresholds};
use crate::source::{Item, Table, Value};
use conditions::Conditions;
use fields::{Document, Fields, text};
use names::Declared;

/// The version of the language that this program reads.
const LANGUAGE: f64 = 1.0;

const KEYS: [&str; 12] = [
    "language",
    "name",
    "thresholds",
    "members",
    "lists",
    "builtin",
    "features",
    "rules",
    "brake",
    "tests",
    "model",
    "explore",
];

/// What the check of a document found.
#[derive(Debug)]
pub struct Report {
    /// The policy, where there is no fault.
    pub policy: Option<Policy>,
    /// Every fault, by place.
    pub faults: Vec<Fault>,
    /// What is permitted, and perhaps a mistake.
    pub warnings: Vec<Fault>,
}

/// Checks a document: all of its faults with line and column, or the policy.
#[must_use]
pub fn check(source: &str) -> Report {
    let document = Document::new(source);
    match document.source.parse() {
        Ok(table) => {
            let length = source.len();
            let root = Item {
                at: 0..length,
                value: Value::Table(table),
            };
            check_values(document, &root)
        }
        Err(fault) => Report {
            policy: None,
            faults: vec![fault],
            warnings: Vec::new(),
        },
    }
}

fn check_values(mut document: Document, root: &Item) -> Report {
    plain(&mut document, root);
    let fields = document.table(Some(root));
    document.only(fields, &KEYS);
    document.required(fields, "language", "1", |value| {
        fields::number(value, LANGUAGE, LANGUAGE)
    });
    let name = document.required(fields, "name", "a text", |value| {
        text(value).map(str::to_owned)
    });
    let thresholds = thresholds(&mut document, fields);
    let mut declared = Declared::members(&mut document, fields);
    let lists = declared.lists(&mut document, fields);
    let (builtin, longest_builtin) = builtin::builtin(&mut document, fields);
    let tables = tables(&mut document, fields);
    let mut conditions = Conditions::default();
    let features = features::features(&mut document, fields, &mut declared, &mut conditions);
    let rules = rules::rules(&mut document, fields, &declared, &mut conditions);
    let warnings = conditions.warning(&document);
    let faultless = document.is_faultless();
    let policy = name.filter(|_| faultless).map(|name| Policy {
        name,
        hash: PolicyHash(Sha256::digest(canonical(root)).into()),
        thresholds,
        builtin,
        members: declared.into_members(),
        lists,
        longest_window: features
            .iter()
            .map(|feature| feature.window)
            .fold(longest_builtin, u64::max),
        features,
        rules,
        layout: conditions.layout,
        tables,
    });
    Report {
        policy,
        faults: document.into_faults(),
        warnings,
    }
}

/// Dates, infinities and the like have no canonical form.
fn plain(document: &mut Document, item: &Item) {
    match &item.value {
        Value::Table(table) => plain_table(document, table),
        Value::Array(elements) => elements.iter().for_each(|each| plain(document, each)),
        Value::Other => document.wrong(
            item,
            FaultKind::Value,
            "expected a text, a finite number, true or false",
        ),
        Value::Text(_) | Value::Number(_) | Value::Bool(_) => {}
    }
}

fn plain_table(document: &mut Document, table: &Table) {
    table
        .values()
        .for_each(|entry| plain(document, &entry.item));
}

fn thresholds(document: &mut Document, root: Fields<'_>) -> Thresholds {
    let fields = document.table(root.item("thresholds"));
    document.only(fields, &["review", "block", "late_status"]);
    let found = Thresholds {
        review: document.points(fields, "review", 40.0),
        block: document.points(fields, "block", 70.0),
        late_status: document.status(fields, "late_status", Status::Review),
    };
    // A wrong value has its default here, and may not seem to contradict the other one.
    let is_right = |key: &str| {
        let (least, most) = fields::POINTS;
        let item = fields.item(key);
        item.is_none_or(|item| fields::number(&item.value, least, most).is_some())
    };
    if found.review > found.block && is_right("review") && is_right("block") {
        document.fault(
            fields.at(),
            FaultKind::Value,
            format!(
                "review is at most block; here review is {} and block is {}",
                found.review, found.block
            ),
        );
    }
    found
}

/// The tables that are defined elsewhere: their shape alone is checked.
fn tables(document: &mut Document, root: Fields<'_>) -> Tables {
    let mut table = |key: &str| {
        let item = root.item(key);
        document.table(item);
        item.map(json)
    };
    let (brake, model, explore) = (table("brake"), table("model"), table("explore"));
    let is_table = |value: &Value| matches!(value, Value::Table(_));
    let tests = document.array(root.item("tests"), "[[tests]]", is_table);
    Tables {
        tests: tests.into_iter().map(json).collect(),
        brake,
        model,
        explore,
    }
}

fn json(item: &Item) -> serde_json::Value {
    serde_json::from_str(&canonical(item)).unwrap_or_default()
}
