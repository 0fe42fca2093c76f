//! Members and lists of a document, and what each name in a condition stands for.

use std::collections::{BTreeMap, BTreeSet};

use super::fields::{Document, Fields, NAME, choose, identifier, listed, text};
use crate::fault::FaultKind;
use crate::language::Type;
use crate::policy::{Member, MemberType};
use crate::slots::Input;
use crate::source::Value;

/// Members that every transaction has, with their types; they are not declared.
pub(super) const ALWAYS: [(&str, Type); 3] = [
    ("amount", Type::Money),
    ("timestamp", Type::Timestamp),
    ("user_id", Type::String),
];

/// The probability of the model, where the document has a table `[model]`.
const MODEL_RISK: &str = "model.risk";

const TYPES: [(&str, MemberType); 4] = [
    ("string", MemberType::String),
    ("number", MemberType::Number),
    ("bool", MemberType::Bool),
    ("money", MemberType::Money),
];

impl From<MemberType> for Type {
    fn from(kind: MemberType) -> Self {
        match kind {
            MemberType::String => Self::String,
            MemberType::Number => Self::Number,
            MemberType::Bool => Self::Bool,
            MemberType::Money => Self::Money,
        }
    }
}

/// The names of a document. One whose declaration has a fault has no type, so that its uses are not told as faults, too.
pub(super) struct Declared {
    declared: Vec<Member>,
    /// Members: what `where`, `by` and `member` of a feature may name.
    pub(super) members: BTreeMap<String, Option<Type>>,
    /// Members, features and the model: what a rule may name.
    pub(super) names: BTreeMap<String, Option<Type>>,
    /// What the names that are no members have to be filled with.
    inputs: BTreeMap<String, Input>,
    pub(super) list_names: BTreeSet<String>,
    /// The place of each list among them.
    list_places: BTreeMap<String, usize>,
}

impl Declared {
    pub(super) fn members(document: &mut Document, root: Fields<'_>) -> Self {
        let mut members: BTreeMap<String, Option<Type>> = ALWAYS
            .into_iter()
            .map(|(name, found)| (name.to_owned(), Some(found)))
            .collect();
        let mut declared = Vec::new();
        let fields = document.table(root.item("members"));
        for (path, entry) in fields.entries() {
            let found = choose(&entry.item.value, &TYPES);
            if found.is_none() {
                let mut message = format!("{path}: expected {}", listed(&TYPES));
                if matches!(entry.item.value, Value::Table(_)) {
                    message.push_str("; a path is one name in quotes, \"card.bin\" = \"string\"");
                }
                document.wrong(&entry.item, FaultKind::Value, message);
            }
            if is_always(path) || path == MODEL_RISK {
                let message = format!("{path} is always there and not declared");
                document.fault(entry.key_at, FaultKind::Duplicate, message);
            } else if path.split('.').any(|step| identifier(step).is_none()) {
                let message = format!("{path}: each step of a path is {NAME}");
                document.fault(entry.key_at, FaultKind::Name, message);
            }
            members.entry(path.clone()).or_insert(found.map(Type::from));
            if let Some(kind) = found {
                let path = path.clone();
                declared.push(Member { path, kind });
            }
        }
        let mut names = members.clone();
        let mut inputs = BTreeMap::new();
        if root.has("model") {
            names.insert(MODEL_RISK.to_owned(), Some(Type::Number));
            inputs.insert(MODEL_RISK.to_owned(), Input::ModelRisk);
        }
        Self {
            declared,
            members,
            names,
            inputs,
            list_names: BTreeSet::new(),
            list_places: BTreeMap::new(),
        }
    }

    pub(super) fn lists(&mut self, document: &mut Document, root: Fields<'_>) -> Vec<String> {
        let is_text = |value: &Value| text(value).is_some();
        let mut lists = Vec::new();
        for item in document.array(root.item("lists"), "an array of names", is_text) {
            let name = text(&item.value).unwrap_or_default();
            if self.list_names.contains(name) {
                document.wrong(
                    item,
                    FaultKind::Duplicate,
                    format!("{name} is there already"),
                );
            } else if identifier(name).is_none() {
                document.wrong(item, FaultKind::Name, format!("{name}: expected {NAME}"));
            }
            self.list_names.insert(name.to_owned());
            self.list_places
                .entry(name.to_owned())
                .or_insert(lists.len());
            lists.push(name.to_owned());
        }
        lists
    }

    /// Makes a feature known, unless its name is taken.
    pub(super) fn feature(&mut self, name: &str, index: usize, found: Option<Type>) {
        self.names.entry(name.to_owned()).or_insert(found);
        self.inputs
            .entry(name.to_owned())
            .or_insert(Input::Feature(index));
    }

    /// What the slot of a name has to be filled with.
    pub(super) fn input(&self, name: &str) -> Input {
        self.inputs
            .get(name)
            .cloned()
            .unwrap_or_else(|| Input::Member(name.split('.').map(str::to_owned).collect()))
    }

    pub(super) fn list_place(&self, name: &str) -> usize {
        self.list_places.get(name).copied().unwrap_or(usize::MAX)
    }

    pub(super) fn into_members(self) -> Vec<Member> {
        self.declared
    }
}

pub(super) fn is_always(name: &str) -> bool {
    ALWAYS.iter().any(|(always, _)| *always == name)
}
